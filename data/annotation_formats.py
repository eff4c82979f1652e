"""Read annotations of other tools: outlines, points and instance maps.

Coordinates are x to the right and y down, in pixels from the top left corner of the image. The
first pixel covers 0..1, as in QuPath and Aperio ImageScope. Where a tool counts from the middle of
the first pixel (napari), half a pixel is added on reading. Whatever a file holds, a reader raises
only InputError, which names the file.
"""

import csv
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import scipy.io
from skimage.draw import polygon

from code_common.errors import InputError, reason
from code_common.files.reading import IMAGE_SUFFIXES, read_instances

MAX_BYTES = 1 << 30  # of a text file; the outlines of a whole slide take less
FARTHEST = 1e7  # pixels; a coordinate beyond is an error of the file
Outline = list[np.ndarray]  # rings [K, 2] (x, y); inside is what an odd number of rings encloses


@dataclass
class Annotations:
    """What was drawn on one image."""

    outlines: list[Outline] = field(default_factory=list)
    points: list[tuple[float, float]] = field(default_factory=list)  # (x, y)


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: larger than {MAX_BYTES >> 20} MiB")
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable text file ({error})") from None


def _ring(path: Path, vertices: Iterable) -> np.ndarray | None:
    """A ring [K, 2] of finite numbers; None for fewer than three vertices, which have no area."""
    try:
        ring = np.array([[float(v[0]), float(v[1])] for v in vertices], dtype=np.float64)
    except (TypeError, ValueError, IndexError, KeyError, OverflowError):
        raise InputError(f"{path}: an outline has a vertex that is no pair of numbers") from None
    if not (np.abs(ring) < FARTHEST).all():  # so NaN is refused, too
        raise InputError(f"{path}: an outline has a vertex that is not finite or far away")
    return ring if len(ring) >= 3 else None


def read_aperio_xml(path: Path) -> Annotations:
    """Outlines of Aperio ImageScope, the format of MoNuSeg: a Region has Vertices with X and Y."""
    text = _text(path)
    if re.search(r"<!\s*(DOCTYPE|ENTITY)", text, re.IGNORECASE):
        raise InputError(f"{path}: document types and entities are not allowed in annotations")
    try:
        root = ET.fromstring(text)
    except (ET.ParseError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as XML ({error})") from None
    regions = list(root.iter("Region"))
    if not regions:
        raise InputError(f"{path}: no Region in it; expected Aperio ImageScope annotations")
    annotations = Annotations()
    for region in regions:
        vertices = [(vertex.get("X"), vertex.get("Y")) for vertex in region.iter("Vertex")]
        ring = _ring(path, vertices)
        if ring is not None:
            annotations.outlines.append([ring])
    return annotations


def read_geojson(path: Path) -> Annotations:
    """Objects of QuPath: a FeatureCollection, one Feature, or a list of Features."""
    content = _json(path)
    if isinstance(content, dict):
        content = content.get("features", [content])
    if not isinstance(content, list):
        raise InputError(f"{path}: expected a GeoJSON FeatureCollection")
    annotations = Annotations()
    try:
        for feature in content:
            is_feature = isinstance(feature, dict) and feature.get("type") == "Feature"
            _add_geometry(path, feature["geometry"] if is_feature else feature, annotations)
    except (KeyError, RecursionError):
        raise InputError(f"{path}: a feature without a geometry") from None
    return annotations


def _add_geometry(path: Path, geometry: object, annotations: Annotations) -> None:
    """Add the outlines or points of a GeoJSON geometry to the annotations."""
    if not isinstance(geometry, dict):
        raise InputError(f"{path}: a feature without a geometry")
    kind, coordinates = geometry.get("type"), geometry.get("coordinates")
    try:
        if kind == "GeometryCollection":
            for part in geometry["geometries"]:
                _add_geometry(path, part, annotations)
        elif kind in ("Point", "MultiPoint"):
            places = [coordinates] if kind == "Point" else list(coordinates)
            annotations.points += [_point(place) for place in places]
        elif kind in ("Polygon", "MultiPolygon"):
            polygons = [coordinates] if kind == "Polygon" else list(coordinates)
            rings = [_ring(path, ring) for polygon_rings in polygons for ring in polygon_rings]
            rings = [ring for ring in rings if ring is not None]
            if rings:
                annotations.outlines.append(rings)
        else:
            raise InputError(
                f"{path}: a geometry of type {str(kind)[:40]}; expected Polygon, MultiPolygon, "
                "Point or MultiPoint"
            )
    except (TypeError, ValueError, KeyError, OverflowError):
        raise InputError(f"{path}: a {kind} with coordinates that are not numbers") from None


def _point(place: Sequence) -> tuple[float, float]:
    """A point (x, y) from x, y and what else a tool writes; ValueError where it is far away."""
    x, y, *_ = place
    x, y = float(x), float(y)
    if not (abs(x) < FARTHEST and abs(y) < FARTHEST):
        raise ValueError
    return x, y


def read_coco(path: Path) -> dict[str, Annotations]:
    """Outlines of a COCO file by the file name of their image."""
    content = _json(path)
    try:
        names = {image["id"]: Path(image["file_name"]).name for image in content["images"]}
        annotations = {name: Annotations() for name in names.values()}
        for entry in content["annotations"]:
            parts = entry["segmentation"]
            if not isinstance(parts, list):
                raise InputError(f"{path}: run-length masks are not read; expected polygons")
            rings = [_ring(path, np.reshape(part, (-1, 2)).tolist()) for part in parts]
            rings = [ring for ring in rings if ring is not None]
            if rings:
                annotations[names[entry["image_id"]]].outlines.append(rings)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        problem = f"{type(error).__name__}: {reason(error)}"
        raise InputError(f"{path}: not a COCO file of outlines ({problem})") from None
    return annotations


def _json(path: Path) -> object:
    try:
        return json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as JSON ({error})") from None


# Names of the columns of x and y in lower case, and what is added to count from the corner.
_COLUMNS = (("x", "y", 0.0), ("axis-1", "axis-0", 0.5), ("col", "row", 0.5))


def read_point_table(path: Path) -> Annotations:
    """Points of a table with a header: QuPath's x, y (TSV), napari's axis-0, axis-1, or row, col.

    x, y count from the corner of the first pixel, the others from its middle. Lines that begin
    with '#' are notes.
    """
    lines = _text(path).splitlines()
    lines = [line for line in lines if line.strip() and not line.startswith("#")]
    if not lines:
        raise InputError(f"{path}: empty; expected a table of points with a header line")
    try:
        rows = list(csv.reader(lines, delimiter="\t" if "\t" in lines[0] else ","))
    except csv.Error as error:
        raise InputError(f"{path}: not readable as a table ({error})") from None
    header = [name.strip().lower() for name in rows[0]]
    present = [columns for columns in _COLUMNS if set(columns[:2]) <= set(header)]
    if not present:
        raise InputError(
            f"{path}: columns {', '.join(header)[:80]}; expected x,y or axis-0,axis-1 or row,col"
        )
    x_name, y_name, offset = present[0]
    x_column, y_column = header.index(x_name), header.index(y_name)
    points = []
    for number, row in enumerate(rows[1:], 2):
        try:
            x, y = float(row[x_column]) + offset, float(row[y_column]) + offset
        except (ValueError, IndexError):
            raise InputError(f"{path}: line {number} of the table has no coordinates") from None
        if not (abs(x) < FARTHEST and abs(y) < FARTHEST):
            raise InputError(f"{path}: line {number} of the table is not finite or far away")
        points.append((x, y))
    return Annotations(points=points)


# Suffix -> what reads a file of outlines or points.
READERS = {
    ".xml": read_aperio_xml,
    ".geojson": read_geojson,
    ".json": read_geojson,
    ".csv": read_point_table,
    ".tsv": read_point_table,
    ".txt": read_point_table,
}
ARRAYS = (".npy", ".mat", *IMAGE_SUFFIXES)  # suffixes of instance maps


def read_annotations(path: Path) -> Annotations:
    """Outlines and points of one image. The suffix of the file chooses the reader, see READERS."""
    return READERS[path.suffix.lower()](path)


def read_array(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Instance map int32 [H, W] of an image file, .npy, or .mat with inst_map (HoVer-Net)."""
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return read_instances(path, shape)
    try:
        if suffix == ".mat":
            array = scipy.io.loadmat(path, variable_names=["inst_map"])["inst_map"]
        else:
            array = np.load(path)  # refuses pickled objects
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except KeyError:
        raise InputError(f"{path}: no variable inst_map in it") from None
    except Exception as error:  # a broken file raises almost anything
        raise InputError(f"{path}: not a readable {suffix} file ({reason(error)})") from None
    if not isinstance(array, np.ndarray) or array.shape != tuple(shape):
        actual = getattr(array, "shape", "no array")
        raise InputError(f"{path}: {actual}; expected an instance map of {tuple(shape)}")
    whole = array.dtype.kind in "iub" or (array.dtype.kind == "f" and (array % 1 == 0).all())
    if not whole or array.min() < 0 or array.max() > np.iinfo(np.int32).max:
        raise InputError(f"{path}: expected whole numbers from 0, one id per nucleus")
    return array.astype(np.int32)


def rasterise(outlines: list[Outline], shape: tuple[int, int]) -> np.ndarray:
    """Instance map int32 [H, W]: k + 1 where the middle of a pixel lies in outline k.

    Where outlines overlap the smaller nucleus is on top; ids are set, never added up.
    """
    nuclei = [_pixels(outline, shape) for outline in outlines]
    largest_first = sorted(range(len(nuclei)), key=lambda k: -len(nuclei[k]))
    instances = np.zeros(shape, np.int32)
    for k in largest_first:
        instances[nuclei[k][:, 0], nuclei[k][:, 1]] = k + 1
    return instances


def _pixels(outline: Outline, shape: tuple[int, int]) -> np.ndarray:
    """Pixels [N, 2] (row, column) whose middle an odd number of an outline's rings encloses."""
    pixels = np.zeros((0, 2), np.int64)
    for ring in outline:
        rows, cols = polygon(ring[:, 1] - 0.5, ring[:, 0] - 0.5, shape)
        pixels = np.concatenate([pixels, np.stack([rows, cols], 1)])
    if len(outline) > 1:
        pixels, times = np.unique(pixels, axis=0, return_counts=True)
        pixels = pixels[times % 2 == 1]
    return pixels


def centre(outline: Outline) -> tuple[float, float]:
    """Centroid (x, y) of the area of an outline's first ring; of its vertices if it has no area."""
    first = outline[0][0]
    x, y = (outline[0] - first).T  # near 0, so that nothing cancels
    cross = x * np.roll(y, -1) - np.roll(x, -1) * y
    area = cross.sum() / 2
    if abs(area) < 1e-9:
        return tuple(outline[0].mean(0).tolist())
    centre_x = ((x + np.roll(x, -1)) * cross).sum() / (6 * area)
    centre_y = ((y + np.roll(y, -1)) * cross).sum() / (6 * area)
    return float(centre_x + first[0]), float(centre_y + first[1])
