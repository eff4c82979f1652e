"""Tables of points, and of shapes of napari."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from code_common.errors import InputError
from data.annotations.geometry import FARTHEST, Annotations, ellipse_ring, ring
from data.annotations.text import class_left_out, read_text

# Names of the columns of x and y in lower case, and what is added to count from the corner.
# Columns that count from the middle of a pixel get half a pixel.
_COLUMNS = (
    ("x", "y", 0.0),
    ("col", "row", 0.5),
    ("centroid x px", "centroid y px", 0.0),
)
_CLASSES = ("class", "classification", "label")


def read_point_table(path: Path, classes: Sequence[str] | None = None) -> Annotations:
    """Points of a table with a header: QuPath's x, y (TSV), napari's axis-N, or row, col.

    x, y count from the corner of the first pixel, the others from its middle. The table may be
    separated by commas, semicolons or tabs. Lines that begin with '#' are notes. Raises InputError
    for points of several planes: each of them is another image.
    """
    header, rows = _rows(path)
    axes = _axes(header)
    if "shape-type" in header and "index" in header and len(axes) >= 2:
        return _read_shapes(path, header, rows, axes)
    if "region_shape_attributes" in header:
        raise InputError(f"{path}: a table of VIA; expected its annotations as JSON")
    present = [columns for columns in _COLUMNS if set(columns[:2]) <= set(header)]
    if len(axes) >= 2:
        present.insert(0, (axes[-1], axes[-2], 0.5))
    if not present:
        raise InputError(
            f"{path}: columns {', '.join(header)[:80]}; expected x,y or axis-0,axis-1 or row,col"
        )
    x_name, y_name, offset = present[0]
    x_column, y_column = header.index(x_name), header.index(y_name)
    planes = [header.index(axis) for axis in axes[:-2]] if x_name in axes else []
    class_column = next((header.index(name) for name in _CLASSES if name in header), None)
    annotations, seen = Annotations(), set()
    for number, row in enumerate(rows, 2):
        x, y = _numbers(path, number, row, (x_column, y_column))
        seen.add(_numbers(path, number, row, planes))
        named = class_column is not None and class_column < len(row)
        why = class_left_out([row[class_column].strip()] if named else [], classes)
        if why:
            annotations.left_out[why] += 1
        else:
            annotations.points.append((x + offset, y + offset))
    _one_plane(path, seen)
    return annotations


def _rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """The names of the columns in lower case, and the lines below."""
    lines = [line for line in read_text(path).splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("#")]
    if not lines:
        raise InputError(f"{path}: empty; expected a table of points with a header line")
    if lines[0].lower().startswith("sep=") and len(lines) > 1:  # Excel's note for itself
        lines = lines[1:]
    separator = next((sign for sign in "\t;" if sign in lines[0]), ",")
    try:
        rows = list(csv.reader(lines, delimiter=separator))
    except csv.Error as error:
        raise InputError(f"{path}: not readable as a table ({error})") from None
    if separator == ";":  # Excel writes semicolons where the comma is the decimal sign
        rows = [rows[0], *([cell.replace(",", ".") for cell in row] for row in rows[1:])]
    return [name.strip().lower() for name in rows[0]], rows[1:]


def _axes(header: list[str]) -> list[str]:
    """napari's columns axis-0, axis-1, ... in the order of their numbers."""
    axes = [name for name in header if name.startswith("axis-") and name[5:].isdecimal()]
    return sorted(axes, key=lambda name: int(name[5:]))


def _numbers(path: Path, number: int, row: list[str], columns: Sequence[int]) -> tuple[float, ...]:
    """The coordinates in some columns of a line."""
    try:
        values = tuple(float(row[column]) for column in columns)
    except (ValueError, IndexError):
        raise InputError(f"{path}: line {number} of the table has no coordinates") from None
    if not all(abs(value) < FARTHEST for value in values):
        raise InputError(f"{path}: line {number} of the table is not finite or far away")
    return values


def _one_plane(path: Path, planes: set[tuple[float, ...]]) -> None:
    if len(planes) > 1:
        named = ", ".join("/".join(f"{value:g}" for value in plane) for plane in sorted(planes)[:5])
        raise InputError(
            f"{path}: objects of {len(planes)} planes of a stack ({named}); expected those of one "
            "image: save them in a file for each plane"
        )


def _read_shapes(
    path: Path, header: list[str], rows: list[list[str]], axes: list[str]
) -> Annotations:
    """Shapes of napari: one line for each vertex, shapes by their index."""
    index, kind = header.index("index"), header.index("shape-type")
    columns = [header.index(axis) for axis in axes]
    shapes: dict[str, tuple[str, list]] = {}
    planes = set()
    for number, row in enumerate(rows, 2):
        values = _numbers(path, number, row, columns)
        if len(row) <= max(index, kind):
            raise InputError(f"{path}: line {number} of the table names no shape")
        planes.add(values[:-2])
        vertices = shapes.setdefault(row[index].strip(), (row[kind].strip().lower(), []))[1]
        vertices.append((values[-1] + 0.5, values[-2] + 0.5))
    _one_plane(path, planes)
    annotations = Annotations()
    for kind_name, vertices in shapes.values():
        if kind_name in ("polygon", "rectangle"):
            annotations.add_outline([[ring(path, vertices)]])
        elif kind_name == "ellipse" and len(vertices) == 4:  # the corners of its box
            annotations.add_outline([[ring(path, _ellipse_in_box(np.array(vertices)))]])
        else:
            annotations.left_out[f"shape of type {kind_name[:20]}"] += 1
    return annotations


def _ellipse_in_box(corners: np.ndarray) -> list[tuple[float, float]]:
    """The ellipse in a box of corners [4, 2], which may be turned."""
    side, other = corners[1] - corners[0], corners[3] - corners[0]
    radii = np.hypot(*side) / 2, np.hypot(*other) / 2
    return ellipse_ring(*corners.mean(0), *radii, float(np.arctan2(side[1], side[0])))
