"""What was drawn on one image."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from code_common.annotations.choice import ALL, Choice, plane_name
from code_common.annotations.formats import (
    ARRAYS,
    Annotations,
    read_annotations,
    shifted,
    without_regions,
)
from code_common.annotations.labels import listed
from code_common.errors import InputError
from code_common.files.images import which_of_several


def is_array(source: Path) -> bool:
    """Whether a source is a file of an instance map."""
    return source.suffix.lower() in ARRAYS and not source.is_dir()


def read_source(
    image: Path,
    shape: tuple[int, int],
    source: Path | Annotations,
    where: str,
    kind: str,
    choice: Choice = ALL,
    shift: Sequence[float] = (0.0, 0.0),
) -> Annotations:
    """What was drawn on an image [H, W], moved by `shift` (x, y in pixels), without regions.

    source: its file, or what a file of all images holds of it; where: what an error names; kind:
    masks or points, as wanted; choice: which objects are.

    Raises InputError, also for a source that holds objects of which none is taken (unless they are
    of other classes than those asked for), and for one that was drawn on another image.
    """
    if kind == "points" and isinstance(source, Path) and is_array(source):
        raise InputError(f"{source}: expected a table, GeoJSON or XML of points")
    if isinstance(source, Path):
        annotations = read_annotations(source, image.name, shape, choice)
    elif source.error:
        raise source.error
    else:
        annotations = source
    if annotations.shape not in (None, tuple(shape)):
        rows, cols = annotations.shape
        raise InputError(
            f"{where}: drawn on an image of {cols} x {rows}, but it has {shape[1]} x {shape[0]}"
        )
    if any(shift) and annotations.masks:
        raise InputError(f"{where}: --shift is for outlines and points, not for masks")
    for plane in annotations.planes:
        check_plane(image, where, plane)
    annotations = shifted(annotations, shift)
    check_inside(where, annotations, shape)
    annotations = without_regions(annotations, shape)
    if choice.plane and annotations.count() and not annotations.names_planes:
        chosen = plane_name(choice.plane)
        annotations.notes.append(f"it names no plane; --plane {chosen} chose nothing")
    if not annotations.count() and annotations.left_out and not annotations.unwanted:
        held = listed(annotations.left_out)
        raise InputError(f"{where}: no {kind[:-1]} in it; it holds {held}")
    return annotations


def check_inside(where: str, annotations: Annotations, shape: tuple[int, int]) -> None:
    """Raise InputError where half of the outlines, boxes and masks lie outside of an image [H, W].

    They are of another scale, say. where: what the error names.
    """
    corners = [(x0, y0, x1, y1) for x0, y0, x1, y1 in annotations.boxes]
    for outline in annotations.outlines:
        vertices = np.concatenate([rings[0] for rings in outline])
        corners.append((*vertices.min(0), *vertices.max(0)))
    for pixels in annotations.masks:
        corners.append((*pixels.min(0)[::-1], *pixels.max(0)[::-1] + 1))
    low, high = np.split(np.reshape(corners, (-1, 4)), 2, axis=1)  # x, y
    outside = ((high <= 0) | (low >= shape[::-1])).any(1)
    if len(outside) and outside.mean() >= 0.5:
        x, y = low[outside][0]
        raise InputError(
            f"{where}: {outside.sum()} of {len(outside)} objects lie outside of its "
            f"image of {shape[1]} x {shape[0]}, the first at ({x:g}, {y:g})"
        )


def check_plane(image: Path, where: str, plane: Sequence[int]) -> None:
    """Raise InputError for annotations of another plane of a stack than is read of the image."""
    read = which_of_several(image)
    if read and any(number != 1 for number in plane):
        raise InputError(
            f"{where}: objects of plane {plane_name(plane)}, but of {image.name} {read} is "
            "read; save the plane that was annotated as the image"
        )
