"""JSON of other tools: QuPath's GeoJSON, COCO, labelme, VIA (VGG Image Annotator) and HoVer-Net."""

import base64
import io
import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from code_common.errors import InputError, reason
from data.annotations.geometry import (
    Annotations,
    Polygon,
    check_size,
    ellipse_ring,
    named_errors,
    place,
    ring,
)
from data.annotations.text import class_left_out, read_json

KINDS = "QuPath's GeoJSON, COCO, labelme, VIA and HoVer-Net"
Classes = Sequence[str] | None  # names of the classes that are taken; None: all but Ignore*


def read_json_of_image(path: Path, image: str, classes: Classes = None) -> Annotations:
    """What a JSON file holds of one image, whatever tool wrote it.

    image: file name of the image, for the kinds that hold several. Raises InputError for a kind
    that is not known.
    """
    content = read_json(path)
    kind = kind_of(content)
    if kind == "labelme":
        return _labelme(path, content, classes)
    if kind == "HoVer-Net":
        return _hovernet(path, content, classes)
    if kind in ("COCO", "VIA"):
        return of_image(path, images_of_json(path, content, classes), image)
    return _geojson(path, content, classes)


def kind_of(content: object) -> str:
    """The tool that wrote a JSON file, by what it holds."""
    if isinstance(content, dict):
        if "images" in content and "annotations" in content:
            return "COCO"
        if "shapes" in content:
            return "labelme"
        if "nuc" in content:
            return "HoVer-Net"
        values = list(content.values())
        of_via = values and all(isinstance(v, dict) and "regions" in v for v in values)
        if "_via_img_metadata" in content or of_via:
            return "VIA"
    return "GeoJSON"


def images_of_json(path: Path, content: object, classes: Classes) -> dict[str, Annotations]:
    """What a JSON file of several images holds, by the file name of the image."""
    kind = kind_of(content)
    if kind == "COCO":
        return _coco(path, content, classes)
    if kind == "VIA":
        return _via(path, content, classes)
    raise InputError(f"{path}: not a file of several images; expected COCO, VIA or CVAT's XML")


def of_image(path: Path, by_name: dict[str, Annotations], image: str) -> Annotations:
    """The annotations of an image in a file of its own, which may name it by another path."""
    if image in by_name:
        return by_name[image]
    same_stem = [name for name in by_name if Path(name).stem == Path(image).stem]
    if len(same_stem) == 1:
        return by_name[same_stem[0]]
    if len(by_name) == 1:
        (name,) = by_name
        raise InputError(f"{path}: it is of the image {name[:80]}; expected {image}")
    raise InputError(f"{path}: none of its {len(by_name)} images is {image}")


def base_name(name: object) -> str:
    """The last part of a path that any system wrote."""
    return re.split(r"[/\\]", str(name))[-1]


def read_geojson(path: Path, classes: Classes = None) -> Annotations:
    """Objects of QuPath: a FeatureCollection, one Feature, or a list of Features."""
    return _geojson(path, read_json(path), classes)


def _geojson(path: Path, content: object, classes: Classes) -> Annotations:
    if isinstance(content, dict):
        if not ({"features", "geometry", "type"} & set(content)):
            keys = ", ".join(map(str, content))[:60] or "none"
            raise InputError(f"{path}: JSON of an unknown kind (keys: {keys}); read are {KINDS}")
        content = content.get("features", [content])
    if not isinstance(content, list):
        raise InputError(f"{path}: expected a GeoJSON FeatureCollection")
    if content and isinstance(content[0], dict) and "segmentation" in content[0]:
        raise InputError(f"{path}: COCO results without their images; expected a whole COCO file")
    annotations = Annotations()
    with named_errors(path, "GeoJSON"):
        for feature in content:
            is_feature = isinstance(feature, dict) and feature.get("type") == "Feature"
            _add_feature(
                path, feature if is_feature else {"geometry": feature}, classes, annotations
            )
    return annotations


def _add_feature(path: Path, feature: dict, classes: Classes, annotations: Annotations) -> None:
    """Add a QuPath object, unless its class or its kind is no nucleus. A cell gives its nucleus."""
    properties = feature.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    kind = str(properties.get("objectType", properties.get("object_type", ""))).lower()
    kind = kind.removeprefix("path").removesuffix("object")  # of older versions: PathCellObject
    why = class_left_out(_class_names(properties), classes)
    why = _NO_NUCLEI.get(kind, why)
    if why:
        annotations.left_out[why] += 1
        return
    nucleus = feature.get("nucleusGeometry", properties.get("nucleusGeometry"))
    if nucleus is None and kind == "cell":
        annotations.left_out["cell without a nucleus"] += 1
        return
    if nucleus is None and "geometry" not in feature:
        raise InputError(f"{path}: a feature without a geometry")
    _add_geometry(path, feature["geometry"] if nucleus is None else nucleus, kind, annotations)


# Objects of QuPath that are no nuclei, by their type.
_NO_NUCLEI = {
    "root": "root of the hierarchy",
    "tile": "tile of an image",
    "tma_core": "TMA core",
    "tma core": "TMA core",
    "tmacore": "TMA core",
}


def _class_names(properties: dict) -> list[str]:
    """The class of a QuPath object."""
    named = properties.get("classification", properties.get("class"))
    if isinstance(named, dict):
        parts = named.get("names")
        return (
            [": ".join(map(str, parts))]
            if isinstance(parts, list)
            else [str(named.get("name", ""))]
        )
    return [named] if isinstance(named, str) else []


def _add_geometry(path: Path, geometry: object, kind: str, annotations: Annotations) -> None:
    """Add the outlines or points of a GeoJSON geometry to the annotations."""
    if not isinstance(geometry, dict):
        raise InputError(f"{path}: a feature without a geometry")
    shape, coordinates = geometry.get("type"), geometry.get("coordinates")
    try:
        if shape == "GeometryCollection":
            for part in geometry["geometries"]:
                _add_geometry(path, part, kind, annotations)
        elif shape in ("Point", "MultiPoint"):
            places = [coordinates] if shape == "Point" else list(coordinates)
            annotations.points += [place(coordinate) for coordinate in places]
        elif shape in ("Polygon", "MultiPolygon"):
            parts = [coordinates] if shape == "Polygon" else list(coordinates)
            annotations.add_outline([[ring(path, r) for r in rings] for rings in parts], kind)
        elif shape in ("LineString", "MultiLineString"):
            annotations.left_out["line"] += 1
        else:
            raise InputError(
                f"{path}: a geometry of type {str(shape)[:40]}; expected Polygon, MultiPolygon, "
                "Point or MultiPoint"
            )
    except (TypeError, ValueError, KeyError, OverflowError):
        raise InputError(f"{path}: a {shape} with coordinates that are not numbers") from None


def read_coco(path: Path, classes: Classes = None) -> dict[str, Annotations]:
    """What a COCO file holds, by the file name of the image."""
    return _coco(path, read_json(path), classes)


def _coco(path: Path, content: object, classes: Classes) -> dict[str, Annotations]:
    with named_errors(path, "a COCO file"):
        categories = {c["id"]: str(c["name"]) for c in content.get("categories") or []}
        images = {image["id"]: image for image in content["images"]}
        names = {key: base_name(image["file_name"]) for key, image in images.items()}
        if len(set(names.values())) < len(names):
            raise InputError(f"{path}: two of its images have one file name")
        annotations = {name: Annotations() for name in names.values()}
        for key, image in images.items():
            if image.get("width") and image.get("height"):
                annotations[names[key]].shape = int(image["height"]), int(image["width"])
        for entry in content["annotations"]:
            of_image = annotations[names[entry["image_id"]]]
            category = categories.get(entry.get("category_id"), "")
            why = class_left_out([category], classes)
            if why:
                of_image.left_out[why] += 1
            else:
                _add_coco(path, entry, of_image)
    return annotations


def _add_coco(path: Path, entry: dict, annotations: Annotations) -> None:
    """Add an object of COCO: its polygons, its run-length mask, or its box."""
    parts = entry.get("segmentation")
    if isinstance(parts, dict):
        size = tuple(int(side) for side in parts["size"])
        if annotations.shape not in (None, size):
            raise InputError(
                f"{path}: a run-length mask of {size}; its image has {annotations.shape}"
            )
        annotations.shape = size
        annotations.masks.append(run_length_pixels(path, parts))
    elif parts:
        if not isinstance(parts[0], list):  # one polygon, without the list around it
            parts = [parts]
        annotations.add_outline(
            [[ring(path, np.reshape(part, (-1, 2)).tolist())] for part in parts]
        )
    elif entry.get("bbox"):
        left, top, width, height = (float(value) for value in entry["bbox"])
        place((left, top)), place((left + width, top + height))
        annotations.boxes.append((left, top, left + width, top + height))
    else:
        annotations.left_out["object without an outline or a box"] += 1


def run_length_pixels(path: Path, mask: dict) -> np.ndarray:
    """Pixels [N, 2] (row, column) of a run-length mask of COCO, which goes down the columns.

    Compressed masks (a text in place of numbers) are decoded by pycocotools.
    """
    rows, cols = (int(side) for side in mask["size"])
    counts = mask["counts"]
    if isinstance(counts, str | bytes):
        try:
            from pycocotools.mask import decode
        except ImportError:
            raise InputError(
                f"{path}: compressed run-length masks need pycocotools (pip install pycocotools)"
            ) from None
        try:
            text = counts.encode() if isinstance(counts, str) else counts
            return np.argwhere(decode({"size": [rows, cols], "counts": text}))
        except Exception as error:
            raise InputError(f"{path}: a broken run-length mask ({reason(error)})") from None
    runs = np.array(counts, np.int64)
    if (runs < 0).any() or runs.sum() != rows * cols or rows < 1 or cols < 1:
        raise InputError(f"{path}: a run-length mask whose runs are not {rows} x {cols} pixels")
    check_size(path, runs[1::2].sum())
    ends = np.cumsum(runs)
    inside = [np.arange(ends[k - 1], ends[k]) for k in range(1, len(runs), 2)]
    place_in_columns = np.concatenate([np.zeros(0, np.int64), *inside])
    return np.stack([place_in_columns % rows, place_in_columns // rows], 1)


def _labelme(path: Path, content: dict, classes: Classes) -> Annotations:
    """Shapes of labelme. Shapes of one label with one group_id are parts of one object."""
    annotations = Annotations()
    groups: dict[tuple, list[Polygon]] = {}
    with named_errors(path, "labelme's JSON"):
        if content.get("imageWidth") and content.get("imageHeight"):
            annotations.shape = int(content["imageHeight"]), int(content["imageWidth"])
        for number, shape in enumerate(content["shapes"]):
            label, kind = str(shape.get("label") or ""), shape.get("shape_type") or "polygon"
            why = class_left_out([label], classes)
            if why:
                annotations.left_out[why] += 1
                continue
            places = [place(p) for p in shape["points"]]
            group = shape.get("group_id")
            key = (label, group) if group is not None else (label, group, number)
            if kind == "polygon":
                groups.setdefault(key, []).append([ring(path, places)])
            elif kind == "circle":
                (x, y), edge = places
                radius = float(np.hypot(edge[0] - x, edge[1] - y))
                circle = ellipse_ring(x, y, radius, radius)
                groups.setdefault(key, []).append([ring(path, circle)])
            elif kind == "rectangle":
                (x0, y0), (x1, y1) = places[0], places[len(places) // 2]
                annotations.boxes.append((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)))
            elif kind in ("point", "points"):
                annotations.points += places
            elif kind == "mask":
                annotations.masks.append(_labelme_mask(path, places, shape["mask"]))
            else:
                annotations.left_out[f"shape of type {str(kind)[:20]}"] += 1
    for parts in groups.values():
        annotations.add_outline(parts)
    return annotations


def _labelme_mask(path: Path, places: list[tuple[float, float]], text: str) -> np.ndarray:
    """Pixels [N, 2] of a mask: a PNG as text, whose first pixel lies at the first place."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(text)), formats=("PNG",)) as image:
            mask = np.asarray(image)
    except Exception as error:  # a broken file raises almost anything
        raise InputError(f"{path}: a mask that is no PNG ({reason(error)})") from None
    return np.argwhere(mask.reshape(*mask.shape[:2], -1)[..., 0]) + [
        round(places[0][1]),
        round(places[0][0]),
    ]


def _via(path: Path, content: dict, classes: Classes) -> dict[str, Annotations]:
    """Regions of VIA, by the file name of the image."""
    by_name: dict[str, Annotations] = {}
    with named_errors(path, "VIA's JSON"):
        for image in content.get("_via_img_metadata", content).values():
            annotations = by_name.setdefault(base_name(image["filename"]), Annotations())
            regions = image["regions"]
            for region in regions.values() if isinstance(regions, dict) else regions:
                attributes = (region.get("region_attributes") or {}).values()
                why = class_left_out([a for a in attributes if isinstance(a, str)], classes)
                if why:
                    annotations.left_out[why] += 1
                else:
                    _add_via(path, region["shape_attributes"], annotations)
    return by_name


def _add_via(path: Path, shape: dict, annotations: Annotations) -> None:
    kind = shape["name"]
    if kind == "polygon":
        vertices = zip(shape["all_points_x"], shape["all_points_y"], strict=True)
        annotations.add_outline([[ring(path, vertices)]])
    elif kind in ("circle", "ellipse"):
        radii = (shape["r"], shape["r"]) if kind == "circle" else (shape["rx"], shape["ry"])
        angle = float(shape.get("theta", 0.0))
        vertices = ellipse_ring(*place((shape["cx"], shape["cy"])), *place(radii), angle)
        annotations.add_outline([[ring(path, vertices)]])
    elif kind == "rect":
        x, y = place((shape["x"], shape["y"]))
        width, height = place((shape["width"], shape["height"]))
        annotations.boxes.append((x, y, x + width, y + height))
    elif kind == "point":
        annotations.points.append(place((shape["cx"], shape["cy"])))
    else:
        annotations.left_out[f"region of type {str(kind)[:20]}"] += 1


def _hovernet(path: Path, content: dict, classes: Classes) -> Annotations:
    """The contour of each nucleus of HoVer-Net.

    Its contours go through the middles of the nucleus's outermost pixels, and its boxes [[row,
    column], [row, column]] end one pixel after them. Where a contour reaches the end of its box it
    is an outline like others.
    """
    annotations = Annotations()
    with named_errors(path, "HoVer-Net's JSON"):
        nuclei = content["nuc"]
        for nucleus in nuclei.values() if isinstance(nuclei, dict) else nuclei:
            named = nucleus.get("type")
            why = class_left_out([] if named is None else [str(named)], classes)
            if why:
                annotations.left_out[why] += 1
                continue
            vertices = ring(path, nucleus["contour"])
            box = nucleus.get("bbox")
            through_middles = False
            if box is not None and len(vertices):
                bottom, right = float(box[1][0]), float(box[1][1])
                through_middles = (vertices.max(0) <= [right - 1, bottom - 1]).all()
            if through_middles and (vertices >= 0).all():
                annotations.masks.append(_filled(path, vertices))
            else:
                annotations.add_outline([[vertices]])
    return annotations


def _filled(path: Path, vertices: np.ndarray) -> np.ndarray:
    """Pixels [N, 2] (row, column) within a contour [K, 2] (x, y) of pixels, and on it."""
    contour = np.rint(vertices).astype(np.int32)
    low = contour.min(0)
    check_size(path, float(np.prod(contour.max(0) - low + 1.0)))
    canvas = np.zeros((contour.max(0) - low + 1)[::-1], np.uint8)
    cv2.fillPoly(canvas, [contour - low], 1)
    return np.argwhere(canvas) + low[::-1]
