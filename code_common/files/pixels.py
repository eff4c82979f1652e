"""What the stored samples of an image file mean: the image or the label that they make."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
from PIL import Image

from code_common.errors import InputError


class Colour(Enum):
    """How the samples of a pixel make its colour."""

    GREY = "grey"
    WHITE_IS_ZERO = "grey, white is 0"
    PALETTE = "indices of a palette"
    RGB = "RGB"
    CMYK = "CMYK"

    @property
    def count(self) -> int:
        """Samples per pixel."""
        return {Colour.RGB: 3, Colour.CMYK: 4}.get(self, 1)


@dataclass(frozen=True)
class Decoded:
    """What a decoder has found in an image file, or in a part of it."""

    path: Path
    samples: np.ndarray  # [H, W, S] as they are stored: not scaled, not inverted, not turned
    colour: Colour  # of the first samples of a pixel
    bits: int  # per sample in the file
    alpha: int | None = None  # which sample is alpha
    associated: bool = False  # the colours are multiplied by alpha already
    palette: np.ndarray | None = None  # [N, 4] uint8 RGBA
    clear: tuple[int, ...] | None = None  # the colour that is transparent
    orientation: int = 1  # 1 to 8, as EXIF and TIFF count
    largest: int | None = None  # largest possible sample, where the file states it
    lossy: str = ""  # name of a compression that changes values; empty: none
    others: str = ""  # which of the file's images this is; empty: the only one
    notes: tuple[str, ...] = ()  # what a user should know, without the file's name

    @property
    def colours(self) -> np.ndarray:
        """The samples of the colour alone, [H, W, 1, 3 or 4]."""
        return self.samples[..., : self.colour.count]


# Orientation -> (rows and columns are swapped, rows are reversed, columns are reversed); both are
# reversed before they are swapped.
_TURNS = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}


def valid_orientation(value: object) -> int:
    """The orientation that a file states. Viewers ignore what is no number from 1 to 8."""
    return value if isinstance(value, int) and value in _TURNS else 1


def turned(array: np.ndarray, orientation: int) -> np.ndarray:
    """A stored array [H, W, ...] as viewers show it."""
    swap, reverse_rows, reverse_cols = _TURNS[orientation]
    array = array[:: -1 if reverse_rows else 1, :: -1 if reverse_cols else 1]
    return np.ascontiguousarray(array.swapaxes(0, 1) if swap else array)


def turned_shape(shape: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Rows and columns as viewers show them. The same function leads back."""
    return shape[::-1] if _TURNS[orientation][0] else shape


def stored_part(
    part: tuple[int, int, int, int], shape: tuple[int, int], orientation: int
) -> tuple[int, int, int, int]:
    """Where a part of the shown image lies in the stored one.

    part: first row, first column, rows, columns; shape: of the stored image.
    """
    swap, reverse_rows, reverse_cols = _TURNS[orientation]
    row, col, rows, cols = part
    if swap:
        row, col, rows, cols = col, row, cols, rows
    if reverse_rows:
        row = shape[0] - row - rows
    if reverse_cols:
        col = shape[1] - col - cols
    return row, col, rows, cols


@dataclass(frozen=True)
class Extremes:
    """The range of an image's samples."""

    lowest: float
    highest: float
    highest_alpha: float = 0

    def join(self, other: "Extremes") -> "Extremes":
        """The range of both."""
        # np.minimum and np.maximum keep a NaN, min and max may lose it.
        return Extremes(
            np.minimum(self.lowest, other.lowest),
            np.maximum(self.highest, other.highest),
            np.maximum(self.highest_alpha, other.highest_alpha),
        )


@dataclass(frozen=True)
class Levels:
    """How samples become 8 bits."""

    white: int  # the sample that becomes 255
    opaque: int  # the same of alpha
    note: str = ""


def needs_extremes(decoded: Decoded) -> bool:
    """Whether the scale depends on the samples. It does not for 8 bits and fewer."""
    return decoded.samples.dtype not in (np.uint8, np.bool_)


def extremes_of(decoded: Decoded) -> Extremes:
    """The range of the samples."""
    alpha = 0 if decoded.alpha is None else decoded.samples[..., decoded.alpha].max()
    return Extremes(decoded.colours.min(), decoded.colours.max(), alpha)


def levels_of(decoded: Decoded, extremes: Extremes | None) -> Levels:
    """The scale of an image. extremes: of all of it; None: it does not need them.

    Raises InputError for values that have no scale: negative, too large, or floating point numbers
    that are neither 0..1 nor 0..255.
    """
    if extremes is None or decoded.colour is Colour.PALETTE:
        white = 2**decoded.bits - 1
        return Levels(white, white)
    low, high, alpha = extremes.lowest, extremes.highest, extremes.highest_alpha
    kind = decoded.samples.dtype
    values = f"{kind.name} pixels from {low:.6g} to {high:.6g}"
    if kind.kind == "f":
        if not np.isfinite([low, high]).all():
            values = f"{kind.name} pixels, some of which are no numbers (NaN) or infinite"
        unit = high <= 1 + _ROUNDED
        if not (-_ROUNDED <= low and (unit or 2 <= high <= 255)):
            raise InputError(f"{decoded.path}: {values}; expected 0 to 1 or 0 to 255")
        return Levels(1 if unit else 255, 1 if alpha <= 1 + _ROUNDED else 255)
    if kind.kind not in "iu" or low < 0 or high > 65535:
        raise InputError(f"{decoded.path}: {values}; expected integers from 0 to 65535")
    if decoded.bits < 16 and decoded.bits != 8:  # packed: they fill their bits
        return Levels(2**decoded.bits - 1, 2**decoded.bits - 1)
    bits = _used_bits(int(high), decoded.largest, 15 if kind.kind == "i" else 16)
    white, full = 2**bits - 1, 2 ** min(decoded.bits, 16) - 1
    same = bits in (16, decoded.bits)
    notes = [] if same else [f"{decoded.bits}-bit samples are read as {bits} bits, 0 to {white}"]
    if decoded.bits > 8 and 2 * int(high) < white:
        notes.append(f"the brightest sample is {high:.0f} of {white}")
    note = "; ".join(notes)
    return Levels(white, white if alpha <= white else full, note)


def all_notes(decoded: Decoded, levels: Levels) -> list[str]:
    """What a user should know of a file, each in a line that names it."""
    notes = list(decoded.notes)
    if levels.note:
        notes.append(levels.note)
    if decoded.orientation != 1:
        notes.append("turned as its orientation tag says, as viewers show it")
    return [f"{decoded.path}: {note}" for note in notes]


_ROUNDED = 0.001  # a range of 0 to 1 may begin a little lower and end a little higher
_CAMERAS = (8, 10, 12, 14)  # bits that cameras and scanners have


def _used_bits(highest: int, stated: int | None, most: int) -> int:
    """The bits of the camera whose pictures are stored in up to 16 bits: `most`, or fewer.

    A stated 65535 says no more than the 16 bits do.
    """
    if stated and highest <= stated < 65535:
        highest = stated
    return next(bits for bits in (*_CAMERAS, most) if highest < 2**bits)


def _to_bytes(values: np.ndarray, white: int) -> np.ndarray:
    """Values scaled to uint8; `white` becomes 255."""
    if values.dtype == np.uint8 and white == 255:
        return values
    if values.dtype.kind == "f":
        values = values if values.itemsize >= 4 else values.astype(np.float32)
        return np.rint(np.clip(values, 0, white) * (255 / white)).astype(np.uint8)
    # 16 bits have always been cut off. Fewer are rounded, so that 8 bits come back as they were.
    half = 0 if white == 65535 else white // 2
    table = (np.arange(white + 1, dtype=np.uint32) * 255 + half) // white
    return table.astype(np.uint8)[values.astype(np.intp)]


def to_rgb(decoded: Decoded, levels: Levels) -> np.ndarray:
    """The image [H, W, 3] uint8 RGB, in the frame in which it is stored.

    Transparent pixels are laid over white, as on a slide.
    """
    alpha = None
    if decoded.colour is Colour.PALETTE:
        index = decoded.samples[..., 0].astype(np.intp)
        if index.max() >= len(decoded.palette):
            raise InputError(f"{decoded.path}: a pixel has no colour in the palette")
        image = decoded.palette[index]
        image, alpha = image[..., :3], image[..., 3]
    else:
        image = _to_bytes(decoded.colours, levels.white)
        if decoded.colour is Colour.CMYK:
            cmyk = Image.frombytes("CMYK", image.shape[1::-1], image.tobytes())
            image = np.asarray(cmyk.convert("RGB"))
        elif decoded.colour is not Colour.RGB:
            grey = 255 - image if decoded.colour is Colour.WHITE_IS_ZERO else image
            image = np.repeat(grey, 3, axis=2)
    if decoded.alpha is not None:
        alpha = _to_bytes(decoded.samples[..., decoded.alpha], levels.opaque)
    elif decoded.clear is not None:
        alpha = np.where((decoded.colours == decoded.clear).all(2), np.uint8(0), np.uint8(255))
    if alpha is not None and alpha.min() < 255:
        image = _over_white(image, alpha[..., None].astype(np.uint16), decoded.associated)
    return np.ascontiguousarray(image)


def _over_white(image: np.ndarray, alpha: np.ndarray, associated: bool) -> np.ndarray:
    """A picture [H, W, 3] uint8 with alpha [H, W, 1] uint16 on a white ground."""
    if associated:
        return np.minimum(image + (255 - alpha), 255).astype(np.uint8)
    return ((image * alpha + 255 * (255 - alpha)) // 255).astype(np.uint8)


_ONE_ID = "expected one integer id per pixel"
_LARGEST_ID = 2**31 - 1


def to_ids(decoded: Decoded) -> np.ndarray:
    """The label [H, W] int32 that an image holds, in the frame in which it is stored.

    Ids are the samples themselves: neither a palette nor white as 0 changes them. Raises
    InputError for colours, for a lossy compression, for several images in one file, and for
    numbers that are no whole numbers of 32 bits.
    """
    path, ids = decoded.path, decoded.colours
    if decoded.lossy:
        raise InputError(
            f"{path}: {decoded.lossy} may change values, so ids are lost; expected a label as PNG, "
            "or as TIFF with LZW, deflate or no compression"
        )
    if decoded.others:
        raise InputError(f"{path}: several images ({decoded.others}); expected one label image")
    if decoded.colour is Colour.CMYK or (ids[..., 1:] != ids[..., :1]).any():
        raise InputError(f"{path}: a colour image; {_ONE_ID}")
    ids = ids[..., 0]
    if decoded.alpha is not None:
        alpha = decoded.samples[..., decoded.alpha]
        if ((ids != 0) & (alpha != alpha.max())).any():
            raise InputError(f"{path}: transparent pixels; {_ONE_ID}")
    kind = ids.dtype.kind
    if kind not in "iubf":
        raise InputError(f"{path}: {ids.dtype} pixels; {_ONE_ID}")
    if kind == "f" and not (np.isfinite(ids).all() and (ids == np.rint(ids)).all()):
        raise InputError(f"{path}: {ids.dtype} pixels that are no whole numbers; {_ONE_ID}")
    if kind == "f" and np.abs(ids).max() >= 2.0 ** (np.finfo(ids.dtype).nmant + 1):
        raise InputError(f"{path}: ids too large for {ids.dtype}, which rounds them; {_ONE_ID}")
    if kind != "b" and not -_LARGEST_ID - 1 <= ids.min() <= ids.max() <= _LARGEST_ID:
        raise InputError(f"{path}: an id of {ids.max():.0f}; expected at most {_LARGEST_ID}")
    return ids.astype(np.int32)
