"""Reading images and labels of every kind: PNG, TIFF, BMP and JPEG, whatever their suffix.

An image is read as viewers show it. Whatever cannot be read rightly is an InputError in one line.
"""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from skimage.measure import label as connected_parts

from code_common.errors import InputError
from code_common.files import pillow_formats
from code_common.files.image_kinds import image_kind
from code_common.files.pixels import (
    Decoded,
    all_notes,
    extremes_of,
    levels_of,
    needs_extremes,
    to_ids,
    to_rgb,
    turned,
    turned_shape,
)
from code_common.files.tiff import TiffPlane

_LARGEST_ID = 1 << 20  # that is kept; larger ones are numbered anew
# Of an image, what no nucleus covers; less is enough where it reaches all four edges.
TILE_SHARE, AROUND_SHARE = 0.9, 0.5
_CLASSES = 10  # a map of classes has no more values than this
_SPECK = 0.1  # of the largest component; smaller ones are not counted
_PIECES = 2  # components of an id on average; of true nuclei, one in thirty has two
_OTHERS = 0.5  # share of the neighbours in nuclei that have another id; in true maps it is .02
_BY_CHANCE = 10  # components or neighbours more than that; in a tiny map a few say nothing
_PARTS = 3  # components that the only nucleus of an image may have, unless its id is that of a mask
_MOST, _FEW_PIXELS = 0.5, 100  # of an image; points cover less, if it is not tiny
_SAME = 3  # grey levels; an image with fewer shows nothing
_DARK = 64  # grey levels, of which those of a stained section are a small share
NOTHING = "shows next to nothing: nearly all its pixels have one colour"


def read_image(path: Path, notes: list[str] | None = None) -> np.ndarray:
    """Read an image as [H, W, 3] uint8 RGB.

    Grey is repeated in three channels, more than 8 bits are scaled by what the image holds, and
    transparent pixels are laid over white, as on a slide. The image is turned as its EXIF or TIFF
    orientation says. `notes` gets a line for each of these that a user should know. Raises
    InputError if the file cannot be read.
    """
    decoded = _decode(Path(path))
    levels = levels_of(decoded, extremes_of(decoded) if needs_extremes(decoded) else None)
    image = turned(to_rgb(decoded, levels), decoded.orientation)
    if notes is not None:
        notes.extend(all_notes(decoded, levels))
    return image


def image_shape(path: Path) -> tuple[int, int]:
    """Rows and columns of an image as `read_image` returns it, from its header.

    Raises InputError as `read_image` does.
    """
    return turned_shape(*_read_header(Path(path)))


def which_of_several(path: Path) -> str:
    """Which image of a file of several is read, 'z-plane 1 of 5' say; empty: the only one."""
    return TiffPlane(path).others if image_kind(path) == "TIFF" else ""


def read_label(
    path: Path, shape: tuple[int, int], image: Path | None = None, plane: int | None = None
) -> np.ndarray:
    """Read an integer label image as int32 [H, W]: the numbers that are stored.

    shape: rows and columns of its image; image: the image itself; plane: which map of a stack is
    read, from 1; None: a stack is refused. Some programs write an
    orientation into label files by mistake, so it counts only where the image has the same.
    Raises InputError if the file cannot be read, if it holds no ids (colours, a lossy
    compression, several images), or if its shape or orientation is not that of its image.
    """
    path = Path(path)
    decoded = _decode(path, plane)
    orientation = decoded.orientation
    if orientation != 1 and not (image and _read_header(Path(image))[1] == orientation):
        raise InputError(
            f"{path}: its orientation tag ({orientation}) says that the label is turned, and its "
            "image is not; save the label without that tag"
        )
    label = turned(to_ids(decoded), orientation)
    if label.shape != tuple(shape):
        hint = " (it looks rotated)" if label.shape == tuple(shape)[::-1] else ""
        raise InputError(
            f"{path}: {label.shape[1]} x {label.shape[0]} pixels, but its image has "
            f"{shape[1]} x {shape[0]}{hint}"
        )
    return label


def read_point_label(path: Path, shape: tuple[int, int], image: Path | None = None) -> np.ndarray:
    """Read a point label [H, W]: 0 outside of the points.

    Raises InputError as `read_label` does, and where most of the image is not 0.
    """
    label = read_label(path, shape, image)
    share = np.count_nonzero(label) / label.size
    if share > _MOST and label.size > _FEW_PIXELS:
        raise InputError(f"{path}: {share:.0%} of it is not 0; expected 0 outside of the points")
    return label


def read_prob(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Read a probability map [H, W] in 0..1 that `write_prob` wrote.

    Raises InputError as `read_label` does.
    """
    return read_label(path, shape) / 65535


def read_instances(
    path: Path, shape: tuple[int, int], image: Path | None = None, predicted: bool = False
) -> np.ndarray:
    """Read an instance map: int32 [H, W], 0 background, one id per nucleus.

    Ids are those that are stored, unless one is so large that a table by id would fill the memory:
    then they are 1, 2, ... in the same order. `predicted`: see `check_instances`. Raises InputError
    as `read_label` and `check_instances` do.
    """
    instances = read_label(path, shape, image)
    check_instances(instances, path, predicted)
    if instances.max(initial=0) > _LARGEST_ID:
        ids = np.unique(instances[instances > 0])
        instances = np.where(instances > 0, np.searchsorted(ids, instances) + 1, 0)
    return instances.astype(np.int32, copy=False)


def check_instances(instances: np.ndarray, path: Path, predicted: bool = False) -> None:
    """Raise InputError if a map [H, W] of any integers or bool is no instance map.

    An id may have several components, but no negative ids, no background other than 0, no binary
    mask, no map of classes and no picture are taken. Such a mask must not be labelled again
    silently (D4). A poor network may find one nucleus nearly everywhere: in a `predicted` map that
    has a background of 0, a nucleus may be of any size.
    """
    ids, areas = np.unique(instances, return_counts=True)
    if ids[0] < 0:
        raise InputError(f"{path}: negative ids; expected 0 for background and one id per nucleus")
    largest, share = ids[areas.argmax()], areas.max() / instances.size
    ids = ids[ids > 0]
    if 0 < len(ids) <= _CLASSES:
        _check_shared(instances, ids, path)
    if len(ids) and (why := _why_a_picture(instances)):
        raise InputError(
            f"{path}: it looks like a picture, or a map of probabilities or classes ({why}); "
            "expected one id per nucleus"
        )
    found = predicted and (instances == 0).any()
    if largest and not found and covers_tile(instances == largest):
        value = f"id {int(largest)} covers {share:.0%} of it"
        raise InputError(f"{path}: {value}; the background must be 0")


def _check_shared(instances: np.ndarray, ids: np.ndarray, path: Path) -> None:
    """Raise InputError for a map [H, W] of a few ids that many nuclei share."""
    sizes = np.concatenate([component_areas(instances == k) for k in ids])
    if len(ids) == 1 and len(sizes) > (1 if ids[0] in (1, 255, 65535) else _PARTS):
        raise InputError(
            f"{path}: a binary mask ({len(sizes)} components share the value {int(ids[0])}); "
            "expected one id per nucleus"
        )
    components = int((sizes >= _SPECK * sizes.max()).sum())
    if components >= 2 * len(ids) and components >= len(ids) + 2 and ids[-1] <= 255:
        values = ", ".join(map(str, ids))
        raise InputError(
            f"{path}: it looks like a map of classes ({components} components share the values "
            f"{values}); expected one id per nucleus"
        )


def _why_a_picture(instances: np.ndarray) -> str:
    """What tells that the values of a map [H, W] are levels and no ids; empty: they may be ids."""
    upper = instances[:-1], instances[:, :-1]
    lower = instances[1:], instances[:, 1:]
    pairs = others = 0
    for a, b in zip(upper, lower, strict=True):
        both = (a != 0) & (b != 0)
        pairs += np.count_nonzero(both)
        others += np.count_nonzero(both & (a != b))
    if others > _OTHERS * pairs + _BY_CHANCE:
        return f"{others / pairs:.0%} of the neighbouring pixels differ"
    parts = connected_parts(instances.astype(np.int64), background=0, connectivity=2)
    areas = np.bincount(parts.ravel())[1:]
    values = np.zeros(len(areas) + 1, np.int64)
    values[parts] = instances
    ids, number = np.unique(values[1:], return_inverse=True)
    largest = np.zeros(len(ids), np.int64)
    np.maximum.at(largest, number, areas)
    pieces = np.count_nonzero(areas >= _SPECK * largest[number])
    many = pieces > _PIECES * len(ids) + _BY_CHANCE
    return f"{pieces} components share {len(ids)} values" if many else ""


def covers_tile(mask: np.ndarray) -> bool:
    """Whether a mask [H, W] is no nucleus but what lies around nuclei, or a region of the tile."""
    edges = mask[0], mask[-1], mask[:, 0], mask[:, -1]
    around = all(edge.any() for edge in edges)
    return bool(mask.mean() >= (AROUND_SHARE if around else TILE_SHARE))


def component_areas(mask: np.ndarray) -> np.ndarray:
    """Areas in pixels of the 8-connected components of a mask [H, W] bool."""
    return cv2.connectedComponentsWithStats(mask.astype(np.uint8))[2][1:, cv2.CC_STAT_AREA]


def why_no_tissue(image: np.ndarray) -> str:
    """Why an image [H, W, 3] uint8 was hardly meant to be read as it is; '' for a usual one.

    It shows nothing: in no channel do the darkest and the brightest hundredth lie three grey levels
    apart. Or it is far darker than a stained section: its scale may be that of one bright mark.
    """
    bounds = []
    for channel in np.moveaxis(image, 2, 0):
        counts = np.cumsum(np.bincount(channel.ravel(), minlength=256))
        bounds.append(np.searchsorted(counts, (0.01 * channel.size, 0.99 * channel.size)))
    if all(high - low < _SAME for low, high in bounds):
        return NOTHING
    brightest = max(high for _, high in bounds)
    if brightest < _DARK:
        return f"99 % of it is at most {brightest} of 255; is one mark brighter than the tissue?"
    return ""


def grouped(notes: Iterable[str]) -> list[str]:
    """Notes 'PATH: text' with one line for each text: its first path, and how many more."""
    paths: dict[str, list[str]] = {}
    for note in notes:
        path, _, words = note.partition(": ")
        paths.setdefault(words, []).append(path)
    return [
        f"{first}: {words}" + (f" (so are {len(more)} more)" if more else "")
        for words, (first, *more) in paths.items()
    ]


def _decode(path: Path, plane: int | None = None) -> Decoded:
    kind = image_kind(path)
    return TiffPlane(path, plane).decode() if kind == "TIFF" else pillow_formats.decode(path, kind)


def _read_header(path: Path) -> tuple[tuple[int, int], int]:
    """Rows and columns as they are stored, and the orientation."""
    kind = image_kind(path)
    if kind != "TIFF":
        return pillow_formats.read_header(path, kind)
    plane = TiffPlane(path)
    return plane.stored_shape, plane.orientation
