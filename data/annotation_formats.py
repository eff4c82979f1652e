"""Annotations of other tools: outlines, points and instance maps out of their files.

Coordinates are x to the right and y down in pixels from the top left corner of the image, whose
first pixel covers 0..1: the frame of QuPath and Aperio ImageScope. Where a tool counts from the
middle of the first pixel (napari), half a pixel is added on reading. Every reader raises
InputError, naming the file, and nothing else, whatever the file holds.
"""

import csv
import json
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import scipy.io
from skimage.draw import polygon

from code_common.errors import InputError, reason
from code_common.files.reading import IMAGE_SUFFIXES, read_instances

MAX_BYTES = 1 << 30  # of a text file: a slide's worth of outlines has less
Outline = list[np.ndarray]  # rings [K, 2] (x, y); a pixel is inside an odd number of them


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


def _ring(path: Path, vertices) -> np.ndarray | None:
    """A ring [K, 2] of finite numbers; None for less than three vertices, which enclose nothing."""
    try:
        ring = np.array([[float(v[0]), float(v[1])] for v in vertices], dtype=np.float64)
    except (TypeError, ValueError, IndexError, KeyError, OverflowError):
        raise InputError(f"{path}: an outline has a vertex that is no pair of numbers") from None
    if not (np.abs(ring) < 1e7).all():  # not for NaN either
        raise InputError(f"{path}: an outline has a vertex that is not finite or far away")
    return ring if len(ring) >= 3 else None


def read_aperio_xml(path: Path) -> Annotations:
    """Outlines of Aperio ImageScope, as MoNuSeg has them: Regions of Vertices with X and Y."""
    text = _text(path)
    if re.search(r"<!\s*(DOCTYPE|ENTITY)", text, re.IGNORECASE):
        raise InputError(f"{path}: declares a document type or entities, which annotations do not")
    try:
        root = ET.fromstring(text)
    except (ET.ParseError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as XML ({error})") from None
    regions = list(root.iter("Region"))
    if not regions:
        raise InputError(f"{path}: no Region in it; expected Aperio ImageScope annotations")
    found = Annotations()
    for region in regions:
        vertices = [(v.get("X"), v.get("Y")) for v in region.iter("Vertex")]
        ring = _ring(path, vertices)
        if ring is not None:
            found.outlines.append([ring])
    return found


def _add_geometry(path: Path, geometry, found: Annotations) -> None:
    if not isinstance(geometry, dict):
        raise InputError(f"{path}: a feature without a geometry")
    kind, at = geometry.get("type"), geometry.get("coordinates")
    try:
        if kind == "Polygon":
            parts = [at]
        elif kind == "MultiPolygon":
            parts = list(at)
        elif kind in ("Point", "MultiPoint"):
            pairs = [at] if kind == "Point" else list(at)
            for x, y, *_ in pairs:
                x, y = float(x), float(y)
                if not (abs(x) < 1e7 and abs(y) < 1e7):
                    raise ValueError
                found.points.append((x, y))
            return
        elif kind == "GeometryCollection":
            for part in geometry["geometries"]:
                _add_geometry(path, part, found)
            return
        else:
            raise InputError(
                f"{path}: a geometry of type {str(kind)[:40]}; expected Polygon, MultiPolygon, "
                "Point or MultiPoint"
            )
        rings = [_ring(path, ring) for rings in parts for ring in rings]
    except (TypeError, ValueError, KeyError, OverflowError):
        raise InputError(f"{path}: coordinates of a {kind} that are none") from None
    rings = [ring for ring in rings if ring is not None]
    if rings:
        found.outlines.append(rings)


def read_geojson(path: Path) -> Annotations:
    """Objects of QuPath: a FeatureCollection, one Feature, or a list of Features."""
    content = _json(path)
    if isinstance(content, dict):
        content = content.get("features", [content])
    if not isinstance(content, list):
        raise InputError(f"{path}: expected a GeoJSON FeatureCollection")
    found = Annotations()
    try:
        for feature in content:
            ok = isinstance(feature, dict) and feature.get("type") == "Feature"
            _add_geometry(path, feature["geometry"] if ok else feature, found)
    except (KeyError, RecursionError):
        raise InputError(f"{path}: a feature without a geometry") from None
    return found


def _json(path: Path):
    try:
        return json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as JSON ({error})") from None


def read_coco(path: Path) -> dict[str, Annotations]:
    """Outlines of a COCO file by the file name of their image."""
    content = _json(path)
    try:
        names = {image["id"]: Path(image["file_name"]).name for image in content["images"]}
        found = {name: Annotations() for name in names.values()}
        for annotation in content["annotations"]:
            parts = annotation["segmentation"]
            if not isinstance(parts, list):
                raise InputError(f"{path}: run-length masks are not read; expected polygons")
            rings = [_ring(path, np.reshape(part, (-1, 2)).tolist()) for part in parts]
            rings = [ring for ring in rings if ring is not None]
            if rings:
                found[names[annotation["image_id"]]].outlines.append(rings)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        what = f"{type(error).__name__}: {reason(error)}"
        raise InputError(f"{path}: not a COCO file of outlines ({what})") from None
    return found


# Names of the columns of x and y, in lower case, and what is added to reach the corner's frame.
_COLUMNS = (("x", "y", 0.0), ("axis-1", "axis-0", 0.5), ("col", "row", 0.5))


def read_point_table(path: Path) -> Annotations:
    """Points of a table with a header: QuPath's x, y (TSV), napari's axis-0, axis-1, or row, col.

    x, y count from the corner of the first pixel, the others from its middle. Lines that begin
    with '#' are notes.
    """
    lines = [ln for ln in _text(path).splitlines() if ln.strip() and not ln.startswith("#")]
    if not lines:
        raise InputError(f"{path}: empty; expected a table of points with a header line")
    try:
        rows = list(csv.reader(lines, delimiter="\t" if "\t" in lines[0] else ","))
    except csv.Error as error:
        raise InputError(f"{path}: not readable as a table ({error})") from None
    header = [name.strip().lower() for name in rows[0]]
    known = [row for row in _COLUMNS if row[0] in header and row[1] in header]
    if not known:
        raise InputError(
            f"{path}: columns {', '.join(header)[:80]}; expected x,y or axis-0,axis-1 or row,col"
        )
    x_name, y_name, offset = known[0]
    i, j = header.index(x_name), header.index(y_name)
    points = []
    for number, row in enumerate(rows[1:], 2):
        try:
            x, y = float(row[i]) + offset, float(row[j]) + offset
        except (ValueError, IndexError):
            raise InputError(f"{path}: line {number} of the table has no coordinates") from None
        if not (abs(x) < 1e7 and abs(y) < 1e7):
            raise InputError(f"{path}: line {number} of the table is not finite or far away")
        points.append((x, y))
    return Annotations(points=points)


READERS = {
    ".xml": read_aperio_xml, ".geojson": read_geojson, ".json": read_geojson,
    ".csv": read_point_table, ".tsv": read_point_table, ".txt": read_point_table,
}  # fmt: skip
ARRAYS = (".npy", ".mat", *IMAGE_SUFFIXES)


def read_annotations(path: Path) -> Annotations:
    """Outlines and points of a file of one image, by its suffix (see READERS)."""
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
        found = getattr(array, "shape", "no array")
        raise InputError(f"{path}: {found}; expected an instance map of {tuple(shape)}")
    whole = array.dtype.kind in "iub" or (array.dtype.kind == "f" and (array % 1 == 0).all())
    if not whole or array.min() < 0 or array.max() > np.iinfo(np.int32).max:
        raise InputError(f"{path}: expected whole numbers from 0, one id per nucleus")
    return array.astype(np.int32)


def rasterise(outlines: list[Outline], shape: tuple[int, int]) -> np.ndarray:
    """Instance map int32 [H, W]: k + 1 where the middle of a pixel lies in outline k.

    Where outlines overlap the smaller nucleus is on top; ids are set, never added up.
    """
    masks = []
    for outline in outlines:
        pixels = np.zeros((0, 2), np.int64)
        for ring in outline:
            rows, cols = polygon(ring[:, 1] - 0.5, ring[:, 0] - 0.5, shape)
            pixels = np.concatenate([pixels, np.stack([rows, cols], 1)])
        if len(outline) > 1:
            pixels, times = np.unique(pixels, axis=0, return_counts=True)
            pixels = pixels[times % 2 == 1]
        masks.append(pixels)
    instances = np.zeros(shape, np.int32)
    for k in sorted(range(len(masks)), key=lambda k: -len(masks[k])):
        instances[masks[k][:, 0], masks[k][:, 1]] = k + 1
    return instances


def centre(outline: Outline) -> tuple[float, float]:
    """Centroid (x, y) of the area in an outline's first ring; of its vertices where it has none."""
    x, y = outline[0].T - outline[0][0][:, None]  # near 0: no cancellation
    cross = x * np.roll(y, -1) - np.roll(x, -1) * y
    area = cross.sum() / 2
    if abs(area) < 1e-9:
        return tuple(outline[0].mean(0).tolist())
    cx = ((x + np.roll(x, -1)) * cross).sum() / (6 * area)
    cy = ((y + np.roll(y, -1)) * cross).sum() / (6 * area)
    return float(cx + outline[0][0, 0]), float(cy + outline[0][0, 1])
