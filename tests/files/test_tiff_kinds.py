"""TIFFs of random kinds are read as the array that they were made from, whole and in parts."""

import importlib.util
from dataclasses import dataclass

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from code_common.errors import InputError
from code_common.files.images import image_shape, read_image, read_label
from code_common.files.tiff import TiffPlane

# Compressions that keep every value, and those of them that tifffile writes alone.
ALONE = [None, "zlib", "lzma"]
LOSSLESS = [*ALONE, "lzw", "packbits", "zstd"]
COMPRESSIONS = LOSSLESS if importlib.util.find_spec("imagecodecs") else ALONE
FULL = {"uint8": 255, "uint16": 65535, "uint32": 65535, "float32": 1, "float64": 255}
COLOURS = {"minisblack": 1, "miniswhite": 1, "rgb": 3}


@dataclass(frozen=True)
class Kind:
    """A TIFF, and the array that it was made from."""

    samples: np.ndarray  # [H, W, S]
    photometric: str
    alpha: str  # "", "unassalpha" or "assocalpha"
    planar: str
    orientation: int
    options: dict  # of tifffile

    def write(self, path):
        array = self.samples
        if self.planar == "separate":
            array = np.moveaxis(array, 2, 0)
        elif array.shape[2] == 1:
            array = array[..., 0]
        tifffile.imwrite(
            path,
            array,
            photometric=self.photometric,
            planarconfig=self.planar if self.samples.shape[2] > 1 else None,
            extrasamples=[self.alpha] if self.alpha else None,
            extratags=[(274, "H", 1, self.orientation, True)],
            metadata=None,
            **self.options,
        )

    def shown(self, array):
        """An array [H, W, ...] as viewers show it."""
        return {
            1: array,
            2: np.fliplr(array),
            3: np.rot90(array, 2),
            4: np.flipud(array),
            5: np.swapaxes(array, 0, 1),
            6: np.rot90(array, -1),
            7: np.swapaxes(np.rot90(array, 2), 0, 1),
            8: np.rot90(array),
        }[self.orientation]


def pixels_of(kind):
    """The right image [H, W, 3] of a file, computed with floating point numbers."""
    full = FULL[kind.samples.dtype.name]
    values = kind.samples.astype(float) * 255 / full
    values = np.floor(values) if full == 65535 else np.rint(values)
    colour = values[..., : COLOURS[kind.photometric]]
    if kind.photometric == "miniswhite":
        colour = 255 - colour
    if kind.alpha == "assocalpha":
        colour = np.minimum(colour + 255 - values[..., -1:], 255)
    elif kind.alpha:
        alpha = values[..., -1:]
        colour = np.floor((colour * alpha + 255 * (255 - alpha)) / 255)
    colour = np.repeat(colour, 3, 2) if colour.shape[2] == 1 else colour
    return kind.shown(colour.astype(np.uint8))


@st.composite
def kinds(draw, last_orientation=8):
    dtype = draw(st.sampled_from(list(FULL)))
    photometric = draw(st.sampled_from(list(COLOURS)))
    alpha = draw(st.sampled_from(["", "", "unassalpha", "assocalpha"]))
    rows, cols = draw(st.integers(2, 40)), draw(st.integers(2, 40))
    count = COLOURS[photometric] + bool(alpha)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    samples = rng.integers(0, FULL[dtype] + 1, (rows, cols, count))
    if dtype == "float32":
        # Never half way between two grey values, where the last bit decides.
        samples = rng.integers(0, 256, (rows, cols, count)) + rng.uniform(
            -0.4, 0.4, (rows, cols, count)
        )
        samples = np.clip(samples / 255, 0, 1)
    samples = samples.astype(dtype)
    samples[0, 0, : COLOURS[photometric]] = FULL[dtype]  # so that the range is known
    compression = draw(st.sampled_from(COMPRESSIONS))
    options = {
        "byteorder": draw(st.sampled_from("<>")),
        "bigtiff": draw(st.booleans()),
        "compression": compression,
    }
    is_integer = dtype.startswith("uint")
    options["predictor"] = bool(compression in ALONE[1:] and is_integer and draw(st.booleans()))
    if draw(st.booleans()):
        options["tile"] = (draw(st.sampled_from([16, 32])), draw(st.sampled_from([16, 48])))
    else:
        options["rowsperstrip"] = draw(st.integers(1, rows))
    planar = draw(st.sampled_from(["contig", "separate"])) if count > 1 else "contig"
    return Kind(
        samples, photometric, alpha, planar, draw(st.integers(1, last_orientation)), options
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("kinds") / "a.tif"


@settings(max_examples=300, deadline=None)
@given(kind=kinds(), data=st.data())
def test_every_kind_is_read_as_it_was_made(path, kind, data):
    kind.write(path)
    pixels = pixels_of(kind)
    assert image_shape(path) == pixels.shape[:2]
    image = read_image(path)
    assert np.array_equal(image, pixels)
    plane = TiffPlane(path)
    for _ in range(3):
        row, col = (data.draw(st.integers(0, n - 1)) for n in pixels.shape[:2])
        rows, cols = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
        part = plane.read(row, col, rows, cols)
        assert np.array_equal(part, pixels[row : row + rows, col : col + cols])


@settings(max_examples=200, deadline=None)
@given(kind=kinds(), data=st.data())
def test_a_tiff_that_was_cut_off_is_whole_or_refused(path, kind, data):
    kind.write(path)
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    try:
        image = read_image(path)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert np.array_equal(image, pixels_of(kind))


@settings(max_examples=200, deadline=None)
@given(kind=kinds(last_orientation=1))
def test_a_label_of_every_kind_is_the_numbers_that_are_stored(path, kind):
    ids = np.rint(
        kind.samples[..., :1].astype(np.float64) * (255 if kind.samples.max() <= 1 else 1)
    )
    count = COLOURS[kind.photometric]
    label = Kind(np.repeat(ids, count, 2).astype(kind.samples.dtype), kind.photometric, "",
                 kind.planar if count > 1 else "contig", 1, kind.options)  # fmt: skip
    label.write(path)
    assert np.array_equal(read_label(path, ids.shape[:2]), ids[..., 0].astype(np.int32))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@settings(max_examples=200, deadline=None)
@given(kind=kinds(last_orientation=4))
def test_pillow_reads_the_same_where_it_reads_8_bits(path, kind):
    """An independent reader, libtiff. Pillow 13 itself turns grey images of one strip wrongly
    where rows become columns, and reads planes of few compressions."""
    kind.write(path)
    if kind.samples.dtype != np.uint8 or kind.alpha:
        return
    try:
        with Image.open(path) as picture:
            shown = np.asarray(picture.convert("RGB"))
    except OSError:
        return
    assert np.array_equal(read_image(path), shown)
