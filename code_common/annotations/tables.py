"""Tables of points, shapes of napari, and outlines of Cellpose."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from code_common.annotations.choice import ALL, Choice
from code_common.annotations.geometry import (
    FARTHEST,
    Annotations,
    ellipse_ring,
    error_of,
    filled,
    ring,
)
from code_common.annotations.json_files import (
    NO_NUCLEI,
    base_name,
    image_stem,
    one_for_each,
    told_of_image,
)
from code_common.annotations.text import read_text, short
from code_common.errors import InputError
from code_common.files.image_kinds import IMAGE_SUFFIXES, OTHER_SUFFIXES, SLIDE_SUFFIXES

# Names of the columns of x and y in lower case, and what is added to count from the corner.
# Columns that count from the middle of a pixel get half a pixel.
_COLUMNS = (
    ("x", "y", 0.0),
    ("col", "row", 0.5),
    ("column", "row", 0.5),
    ("centroid-1", "centroid-0", 0.5),  # of scikit-image
    ("x_px", "y_px", 0.0),
    ("x (px)", "y (px)", 0.0),
    ("centroid x px", "centroid y px", 0.0),
    ("xm", "ym", 0.0),
)
_OF_WEIGHTS = ("xm", "ym")  # of ImageJ: the middle by brightness, which may be another place
_CLASSES = ("class", "classification", "label")
_SLICES = ("slice", "frame")  # columns of ImageJ that count planes from 1
_QUPATH_PLANE = {"c", "z", "t"}  # columns of QuPath's points in a stack; z and t count from 0
_IMAGEJ = ("area", "mean", "min", "max", "counter", "count", "slice", "xm", "feret")
_OF_PYTHON = "eccentricity"  # a column that tables with the same names have, but no ImageJ's
_THOUSAND = re.compile(r"-?\d{1,3},\d{3}")  # a thousand, or a decimal comma
# Columns that name images, and those that may, where their cells are names of image files.
_IMAGES = ("image", "image name", "image_name", "image_id", "image_path", "filename", "file_name",
           "file", "path")  # fmt: skip
_PERHAPS_IMAGES = ("tile", "slide", "label")
_SUFFIXES = {*IMAGE_SUFFIXES, *SLIDE_SUFFIXES, *OTHER_SUFFIXES}
# Columns of the sides of boxes.
_SIDES = ({"w", "h"}, {"width", "height"}, {"x2", "y2"}, {"xmax", "ymax"}, {"x_max", "y_max"})
_MICRONS = re.compile(r"^(centroid )?[xy]m? ?[\[(_]?[µμu]m[\])]?$|microns?$")


@dataclass(frozen=True)
class Table:
    """Lines of cells below a header."""

    path: Path
    header: list[str]  # names of the columns in lower case
    rows: list[list[str]]
    lines: list[int]  # number of each row's last line in the file, from 1
    separator: str
    of_imagej: bool = False  # whether ImageJ measured x, y, maybe in the unit of a scale
    notes: int = 0  # lines below the header that are not read

    def _index(self, name: str) -> int:
        """Where a column stands. Raises InputError if it stands twice."""
        if self.header.count(name) > 1:
            raise InputError(f"{self.path}: the column {name} stands twice; keep one of them")
        return self.header.index(name)

    def column(self, names: Sequence[str]) -> list[str] | None:
        """The cells of the first of these columns that is there; None if there is none."""
        index = next((self._index(name) for name in names if name in self.header), None)
        if index is None:
            return None
        return [row[index].strip() if index < len(row) else "" for row in self.rows]

    def numbers(self, names: Sequence[str]) -> np.ndarray:
        """Columns of coordinates, [rows, columns]. Raises InputError, which names the line."""
        columns = [self._index(name) for name in names]
        values = np.zeros((len(self.rows), len(columns)))
        for k, (row, line) in enumerate(zip(self.rows, self.lines, strict=True)):
            try:
                values[k] = [_number(row[column], self.separator) for column in columns]
            except (ValueError, IndexError):
                cells = short("; ".join(row))
                thousand = any(_THOUSAND.fullmatch(row[c].strip()) for c in columns if c < len(row))
                hint = ": is the comma a decimal one? Write a point" if thousand else ""
                raise InputError(
                    f"{self.path}: line {line} of the table has no coordinates ({cells}){hint}"
                ) from None
            if not (np.abs(values[k]) < FARTHEST).all():  # so NaN is refused, too
                raise InputError(f"{self.path}: line {line} of the table is not finite or far away")
        return values


def read_point_table(path: Path, choice: Choice = ALL, image: str = "") -> Annotations:
    """Points of a table with a header: QuPath's x, y (TSV), napari's axis-N, or row, col.

    x, y count from the corner of the first pixel, the others from its middle. The table may be
    separated by commas, semicolons or tabs. Lines that begin with '#' are notes, unless they have
    the cells of the header and an id in the first. image: file name of the image, for QuPath's
    tables of several. Raises InputError for coordinates in microns.
    """
    table = _read_table(path)
    axes = _axes(table.header)
    if "shape-type" in table.header and "index" in table.header and len(axes) >= 2:
        return _read_shapes(table, axes, choice)
    annotations = Annotations(notes=_told_of_notes(table))
    table = _rows_of_image(_rows_of_objects(table, annotations), image, annotations)
    _add_points(annotations, table, choice)
    return annotations


def images_of_table(path: Path, choice: Choice = ALL) -> dict[str, Annotations] | None:
    """Points of a table of several images, by the file name that a column says; None: none does.

    Raises InputError as `read_point_table` does, and for a line that names no image.
    """
    table = _read_table(path)
    cells = next(_columns_of_images(table), None)
    if cells is None:
        return None
    if "" in cells:
        raise InputError(f"{path}: line {table.lines[cells.index('')]} of the table names no image")
    named = list(dict.fromkeys(cells))
    by_name = {}
    for cell, name in zip(named, one_for_each(path, named), strict=True):
        annotations = by_name[name] = Annotations(notes=_told_of_notes(table))
        rows = _kept(table, [other == cell for other in cells])
        with error_of(annotations):
            _add_points(annotations, _rows_of_objects(rows, annotations), choice)
    return by_name


def _add_points(annotations: Annotations, table: Table, choice: Choice) -> None:
    """Add the points of a table of one image."""
    path, axes = table.path, _axes(table.header)
    x, y, offset = _coordinates(table, axes)
    if _says_no_nuclei(table, x, y):
        return
    units = {cell.lower() for cell in table.column(("unit", "units")) or []}
    if any(unit.startswith(("um", "µm", "μm", "mic", "mm")) for unit in units):
        raise InputError(f"{path}: coordinates in {short(', '.join(units))}; expected pixels")
    places = table.numbers((x, y)) + offset
    _check_places(table, axes, places)
    planes = _planes(table, axes if x in axes else [])
    names = table.column(_CLASSES) or [""] * len(places)
    for place, plane, name in zip(places.tolist(), planes, names, strict=True):
        if annotations.takes(choice, [name], plane):
            annotations.points.append(tuple(place))
    if places.size and table.of_imagej and offset == 0:
        annotations.notes.append("x, y of ImageJ are read as pixels; with a scale they are not")


def _says_no_nuclei(table: Table, x: str, y: str) -> bool:
    """Whether the only line names an image, and no place in it."""
    if len(table.rows) != 1 or any(cell for name in (x, y) for cell in table.column((name,))):
        return False
    return next(_columns_of_images(table), None) is not None


def _coordinates(table: Table, axes: list[str]) -> tuple[str, str, float]:
    """The columns of x and y, and what is added to count from the corner."""
    header = table.header
    present = _coordinate_columns(header, axes)
    if present:
        return present[0]
    if "region_shape_attributes" in header:
        raise InputError(f"{table.path}: a table of VIA; expected its annotations as JSON")
    if any(_MICRONS.search(name) for name in header):
        raise InputError(
            f"{table.path}: coordinates in microns; expected pixels (in QuPath export objects as "
            "GeoJSON, in ImageJ use Analyze > Set Scale > Click to Remove Scale)"
        )
    raise InputError(
        f"{table.path}: columns {short(', '.join(header), 80)}; "
        "expected x,y or axis-0,axis-1 or row,col"
    )


def _coordinate_columns(header: list[str], axes: list[str]) -> list[tuple[str, str, float]]:
    """All columns of x and y that are there, as `_COLUMNS` has them; the first are read."""
    of_napari = [(axes[-1], axes[-2], 0.5)] if len(axes) >= 2 else []
    return of_napari + [columns for columns in _COLUMNS if set(columns[:2]) <= set(header)]


def _check_places(table: Table, axes: list[str], places: np.ndarray) -> None:
    """Raise InputError where a table's coordinates [N, 2] are hardly those of points in pixels."""
    header = set(table.header)
    if any(sides <= header for sides in _SIDES) and "bx" not in header:  # ImageJ's box is beside
        raise InputError(
            f"{table.path}: boxes, whose x, y may be a corner or the middle; expected points alone"
        )
    if any(name.startswith("vertex") for name in header):
        raise InputError(f"{table.path}: vertices of outlines; expected a line for each point")
    first, *others = _coordinate_columns(table.header, axes)
    for x, y, offset in others:
        if (x, y) == _OF_WEIGHTS:
            continue
        apart = np.flatnonzero(np.abs(places - table.numbers((x, y)) - offset).max(1) > 1)
        if len(apart):
            line, read = table.lines[apart[0]], f"{first[0]}, {first[1]}"
            raise InputError(f"{table.path}: line {line}: {read} and {x}, {y} are of two places")


def _rows_of_image(table: Table, image: str, annotations: Annotations) -> Table:
    """The rows of one image, where a column names several; the others are counted.

    A single other name is noted where no column has this one. Raises InputError where a table of
    several images has none of this one.
    """
    other = ""
    for cells in _columns_of_images(table) if image else ():
        names = {cell for cell in cells if cell}
        wanted = [image_stem(cell) == image_stem(image) for cell in cells]
        if len(names) == 1:
            if any(wanted):
                return table
            other = other or names.pop()
        elif any(wanted):
            annotations.left_out["object of another image"] += wanted.count(False)
            return _kept(table, wanted)
        else:
            first, more = short(base_name(cells[0])), len(names) - 1
            raise InputError(f"{table.path}: it is of {first} and {more} more; expected {image}")
    told_of_image(annotations, other, image)
    return table


def _columns_of_images(table: Table) -> Iterator[list[str]]:
    """The cells of each column that names images."""
    for column in (*_IMAGES, *_PERHAPS_IMAGES):
        cells = table.column((column,)) or []
        # ImageJ's label is the image's name, and what it is of.
        cells = [cell.partition(":")[0] for cell in cells] if column == "label" else cells
        are_files = any(Path(cell).suffix.lower() in _SUFFIXES for cell in cells)
        if any(cells) and (are_files or column in _IMAGES):
            yield cells


def _rows_of_objects(table: Table, annotations: Annotations) -> Table:
    """The rows of nuclei in QuPath's table of all objects; the others are counted."""
    none = [""] * len(table.rows)
    columns = [table.column((name,)) or none for name in ("object type", "roi", "num points")]
    kinds, rois = ([cell.lower() for cell in cells] for cells in columns[:2])
    found = {"detection", "cell"} & set(kinds)
    why = [
        _no_nucleus(kind, found) or _no_place(roi, number)
        for kind, roi, number in zip(kinds, rois, columns[2], strict=True)
    ]
    annotations.left_out.update(filter(None, why))
    return _kept(table, [not reason for reason in why]) if any(why) else table


def _no_nucleus(kind: str, found: set[str]) -> str:
    """Why an object of QuPath is no nucleus, among the kinds that are found; "" if it is one."""
    if found and kind and kind not in found:
        return f"{short(kind, 20)} among {' and '.join(sorted(found))}s"
    return NO_NUCLEI.get(kind, "")


def _no_place(roi: str, number: str) -> str:
    """Why the centroid of an object of QuPath is not where a nucleus is; "" if it is.

    number: of its points. The centroid of several points is their mean.
    """
    if roi == "points" and number not in ("1", "1.0"):
        return "annotation of several points (only as GeoJSON)"
    return "line" if roi in ("line", "polyline") else ""


def _kept(table: Table, wanted: Sequence[bool]) -> Table:
    """The table with some of its rows."""
    rows = [row for row, keep in zip(table.rows, wanted, strict=True) if keep]
    lines = [line for line, keep in zip(table.lines, wanted, strict=True) if keep]
    return replace(table, rows=rows, lines=lines)


def _planes(table: Table, axes: list[str]) -> list[tuple[int, ...]]:
    """The plane of each row, from 1: by napari's axes, QuPath's z and t, or ImageJ's slices."""
    names, first = [name for name in _SLICES if name in table.header], 1
    if axes:
        names, first = axes[:-2], 0
    elif set(table.header) >= _QUPATH_PLANE:
        names, first = ["z", "t"], 0
    elif not names and any(table.column(("z",)) or []):
        names, first = ["z"], 0
    if not names:
        return [()] * len(table.rows)
    numbers = np.rint(table.numbers(names)).astype(int) + 1 - first
    return [tuple(plane) for plane in numbers.tolist()]


def _read_table(path: Path) -> Table:
    lines = read_text(path).split("\n")
    # VIA begins its header with '#', too.
    notes = (not line.strip() or re.match("#(?!filename)", line) for line in lines)
    first = next((k for k, is_note in enumerate(notes) if not is_note), None)
    if first is None:
        raise InputError(f"{path}: empty; expected a table of points with a header line")
    if lines[first].lower().startswith("sep=") and first + 1 < len(lines):  # Excel's own note
        first += 1
    separator = next((sign for sign in "\t;" if sign in lines[first]), ",")
    # Strict: else a quote that is not closed would swallow all lines below it.
    reader = csv.reader(io.StringIO("\n".join(lines[first:])), delimiter=separator, strict=True)
    rows, last = [], first
    try:
        names = [name.strip() for name in next(reader)]
        header = [name.lower() for name in names]
        last = first + reader.line_num
        for row in reader:
            last = first + reader.line_num
            if any(map(str.strip, row)):
                rows.append((row, last))
    except csv.Error as error:
        raise InputError(
            f"{path}: not readable as a table from line {last + 1} on ({error}); is a quote closed?"
        ) from None
    data = [(row, n) for row, n in rows if not _is_note(row, header)]
    longer = [n for row, n in data if any(map(str.strip, row[len(header) :]))]
    if longer:
        raise InputError(
            f"{path}: line {longer[0]} has more cells than the header; name every column (in "
            "R row.names = FALSE), and put semicolons between numbers with decimal commas"
        )
    cells, numbers = [row for row, _ in data], [line for _, line in data]
    notes = len(rows) - len(data)
    return Table(path, header, cells, numbers, separator, _is_of_imagej(names), notes)


def _is_note(row: list[str], header: list[str]) -> bool:
    """Whether a row below the header is a note, not data whose first cell is an id as #1.

    Excel fills up a note with empty cells. No id stands in a column of coordinates.
    """
    if row[0][:1] != "#":
        return False
    places = {name for x, y, _ in _COLUMNS for name in (x, y)}.union(_axes(header))
    has_cells = len(row) == len(header) and any(map(str.strip, row[1:]))
    return not has_cells or header[0] in places


def _told_of_notes(table: Table) -> list[str]:
    """A note where lines below the header are not read."""
    if not table.notes:
        return []
    lines = "1 line that begins" if table.notes == 1 else f"{table.notes} lines that begin"
    return [f"not read: {lines} with #"]


def _is_of_imagej(names: list[str]) -> bool:
    """Whether columns of these names, as they are written, are those of ImageJ's results."""
    header = {name.lower() for name in names}
    numbered = names[0] == "" and {"X", "Y"} <= set(names)  # pandas and R write x, y of the user
    return numbered or bool(header.intersection(_IMAGEJ) and _OF_PYTHON not in header)


def _number(cell: str, separator: str) -> float:
    """A number; a comma may be its decimal sign where it does not separate the columns.

    Raises ValueError, also for '1,234' in a table with tabs, where it may mean a thousand.
    """
    cell = cell.strip()
    if separator == ";" or (separator == "\t" and not _THOUSAND.fullmatch(cell)):
        cell = cell.replace(",", ".")
    return float(cell)


def _axes(header: list[str]) -> list[str]:
    """napari's columns axis-0, axis-1, ... in the order of their numbers."""
    axes = [name for name in header if name.startswith("axis-") and name[5:].isdecimal()]
    return sorted(axes, key=lambda name: int(name[5:]))


def _read_shapes(table: Table, axes: list[str], choice: Choice) -> Annotations:
    """Shapes of napari: one line for each vertex, shapes by their index."""
    places = table.numbers((axes[-1], axes[-2])) + 0.5
    indices, kinds = table.column(("index",)), table.column(("shape-type",))
    shapes: dict[str, list[int]] = {}
    for row in _by_vertex(table):
        shapes.setdefault(indices[row], []).append(row)
    for index, rows in shapes.items():
        if len({kinds[row].lower() for row in rows}) > 1:
            raise InputError(f"{table.path}: shapes of two types have the index {short(index)}")
    planes, names = _planes(table, axes), table.column(_CLASSES) or [""] * len(places)
    annotations = Annotations(notes=_told_of_notes(table))
    for rows in shapes.values():
        kind, vertices = kinds[rows[0]].lower(), places[rows]
        if not annotations.takes(choice, [names[rows[0]]], planes[rows[0]]):
            continue
        if kind in ("polygon", "rectangle"):
            annotations.add_outline([[vertices]])
        elif kind == "ellipse" and len(vertices) == 4:  # the corners of its box
            annotations.add_outline([[ring(table.path, _ellipse_in_box(vertices))]])
        else:
            annotations.left_out[f"shape of type {short(kind, 20)}"] += 1
    return annotations


def _by_vertex(table: Table) -> list[int]:
    """The rows of napari's shapes in the order of their vertices, shapes in that of the file.

    Raises InputError where a shape has a vertex twice, as in two tables that are put together.
    """
    indices = table.column(("index",))
    first = {index: row for row, index in reversed(list(enumerate(indices)))}
    if "vertex-index" not in table.header:
        return list(range(len(indices)))
    numbers = table.numbers(("vertex-index",))[:, 0].tolist()
    keys = [(first[index], number) for index, number in zip(indices, numbers, strict=True)]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    for row, after in zip(order[:-1], order[1:], strict=True):
        if keys[row] == keys[after]:
            raise InputError(
                f"{table.path}: line {table.lines[after]}: the shape {short(indices[row])} has the "
                f"vertex {numbers[row]:g} twice; expected the shapes of one layer"
            )
    return order


def _ellipse_in_box(corners: np.ndarray) -> list[tuple[float, float]]:
    """The ellipse in a box of corners [4, 2], which may be turned."""
    side, other = corners[1] - corners[0], corners[3] - corners[0]
    radii = np.hypot(*side) / 2, np.hypot(*other) / 2
    return ellipse_ring(*corners.mean(0), *radii, float(np.arctan2(side[1], side[0])))


def read_cellpose_outlines(path: Path) -> Annotations:
    """Outlines of Cellpose, one in each line: x, y, x, y, ... of the outermost pixels.

    The line of a nucleus of fewer than five such pixels is empty.
    """
    annotations = Annotations()
    text = read_text(path).removesuffix("\n")
    for number, line in enumerate(text.split("\n") if text else [], 1):
        cells = [cell for cell in line.split(",") if cell.strip()]
        vertices = ring(path, zip(cells[::2], cells[1::2], strict=False))
        if len(cells) % 2 or (vertices < 0).any():
            raise InputError(f"{path}: line {number} is no outline of x,y,x,y,...")
        if len(vertices) < 3:
            annotations.left_out["outline of fewer than three vertices"] += 1
        else:
            annotations.masks.append(filled(path, vertices))
    return annotations
