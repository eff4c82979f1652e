"""JSON of other tools: QuPath's GeoJSON, COCO, labelme, VIA (VGG Image Annotator) and HoVer-Net."""

import base64
import io
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
from PIL import Image

from code_common.annotations.choice import ALL, Choice
from code_common.annotations.geometry import (
    Annotations,
    Groups,
    check_size,
    count_pieces,
    ellipse_ring,
    error_of,
    filled,
    in_its_box,
    named_errors,
    place,
    ring,
)
from code_common.annotations.text import read_json, short, some_names
from code_common.errors import InputError
from code_common.files.names import plain_name

KINDS = "QuPath's GeoJSON, COCO, labelme, VIA and HoVer-Net"


def read_json_of_image(path: Path, image: str, choice: Choice = ALL) -> Annotations:
    """What a JSON file holds of one image, whatever tool wrote it.

    image: file name of the image, for the kinds that hold several. Raises InputError for a kind
    that is not known.
    """
    content = read_json(path)
    kind = kind_of(content)
    if kind == "labelme":
        annotations = _labelme(path, content, choice)
        return told_of_image(annotations, content.get("imagePath"), image)
    if kind == "HoVer-Net":
        return _hovernet(path, content, choice)
    if kind in ("COCO", "VIA"):
        return of_image(path, images_of_json(path, content, choice), image)
    return _geojson(path, content, choice)


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


def images_of_json(path: Path, content: object, choice: Choice) -> dict[str, Annotations] | None:
    """What a JSON file of several images holds, by the file name of the image; None: it is none."""
    kind = kind_of(content)
    if kind == "COCO":
        return _coco(path, content, choice)
    if kind == "VIA":
        return _via(path, content, choice)
    return None


def of_image(path: Path, by_name: dict[str, Annotations], image: str) -> Annotations:
    """The annotations of an image in a file of its own, which may name it by another path.

    A note names the other images that the file has annotations of.
    """
    same_stem = [name for name in by_name if image_stem(name) == image_stem(image)]
    if image in by_name or len(same_stem) == 1:
        own = image if image in by_name else same_stem[0]
        annotations = by_name[own]
        if annotations.error:
            raise annotations.error
        others = [name for name, other in by_name.items() if name != own and other.count()]
        if others:
            annotations.notes.append(f"not read, of other images: {some_names(others)}")
        return annotations
    if len(by_name) == 1:
        (name,) = by_name
        raise InputError(f"{path}: it is of the image {short(name, 80)}; expected {image}")
    raise InputError(f"{path}: none of its {len(by_name)} images is {image}")


def base_name(name: object) -> str:
    """The last part of a path that any system wrote, or of an address."""
    text = str(name)
    if re.match(r"[a-z]+://", text):
        text = unquote(urlsplit(text).path)
    return re.split(r"[/\\]", text)[-1]


def image_stem(name: object) -> str:
    """The name of an image without its folder and suffixes, in composed letters."""
    return plain_name(base_name(name))


def told_of_image(annotations: Annotations, named: object, image: str) -> Annotations:
    """The annotations, with a note if the file names another image than the one it is for."""
    if named and image_stem(named) != image_stem(image):
        annotations.notes.append(f"drawn on {short(base_name(named), 80)}, as the file says")
    return annotations


def one_for_each(path: Path, names: Iterable[object]) -> list[str]:
    """The file names of images. Raises InputError where two of them differ in their folders alone.

    The images of a data set lie in one folder: nothing would tell whose annotations they are.
    """
    files: dict[str, str] = {}
    for name in map(str, names):
        file = base_name(name)
        if file in files:
            raise InputError(
                f"{path}: two of its images have one file name "
                f"({short(files[file], 80)}, {short(name, 80)})"
            )
        files[file] = name
    return list(files)


def read_geojson(path: Path, choice: Choice = ALL) -> Annotations:
    """Objects of QuPath: a FeatureCollection, one Feature, or a list of Features."""
    return _geojson(path, read_json(path), choice)


def _geojson(path: Path, content: object, choice: Choice) -> Annotations:
    if isinstance(content, dict):
        if not ({"features", "geometry", "type"} & set(content)):
            keys = short(", ".join(map(str, content)), 60) or "none"
            raise InputError(f"{path}: JSON of an unknown kind (keys: {keys}); read are {KINDS}")
        content = content.get("features", [content])
    if not isinstance(content, list):
        raise InputError(f"{path}: expected a GeoJSON FeatureCollection")
    if content and isinstance(content[0], dict) and "segmentation" in content[0]:
        raise InputError(f"{path}: COCO results without their images; expected a whole COCO file")
    annotations = Annotations()
    with named_errors(path, "GeoJSON"):
        for feature in content:
            is_feature = isinstance(feature, dict) and (
                feature.get("type") == "Feature" or "geometry" in feature
            )
            _add_feature(
                path, feature if is_feature else {"geometry": feature}, choice, annotations
            )
    return annotations


def _add_feature(path: Path, feature: dict, choice: Choice, annotations: Annotations) -> None:
    """Add a QuPath object, unless its class or its kind is no nucleus. A cell gives its nucleus."""
    properties = feature.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    kind = str(properties.get("objectType", properties.get("object_type", ""))).lower()
    if not kind and str(feature.get("id")).endswith("Object"):  # QuPath 0.2: PathCellObject
        kind = feature["id"].lower()
    kind = kind.removeprefix("path").removesuffix("object")
    if kind in NO_NUCLEI:
        annotations.left_out[NO_NUCLEI[kind]] += 1
        return
    nucleus = feature.get("nucleusGeometry", properties.get("nucleusGeometry"))
    geometry = feature.get("geometry") if nucleus is None else nucleus
    number = _number_of_points(geometry)
    if not annotations.takes(choice, _class_names(properties), _plane(geometry), number):
        return
    if nucleus is None and kind == "cell":
        annotations.left_out["cell without a nucleus"] += 1
    elif geometry is None and "geometry" in feature:  # GeoJSON allows it
        annotations.left_out["feature without a geometry"] += 1
    else:
        _add_geometry(path, geometry, kind, annotations)


def _plane(geometry: object) -> tuple[int, ...]:
    """QuPath's plane of a stack: z, or z and t, from 1. It does not write the first one."""
    plane = geometry.get("plane") if isinstance(geometry, dict) else None
    plane = plane if isinstance(plane, dict) else {}
    z, t = int(plane.get("z") or 0) + 1, int(plane.get("t") or 0) + 1
    return (z, t) if t > 1 else (z,)


def _number_of_points(geometry: object) -> int:
    """How many points a GeoJSON geometry is; 1 for an outline."""
    if not isinstance(geometry, dict) or geometry.get("type") != "MultiPoint":
        return 1
    places = geometry.get("coordinates")
    return len(places) if isinstance(places, list) else 1


# Objects of QuPath that are no nuclei, by their type.
NO_NUCLEI = {
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
                f"{path}: a geometry of type {short(shape)}; expected Polygon, MultiPolygon, "
                "Point or MultiPoint"
            )
    except (TypeError, ValueError, KeyError, OverflowError):
        raise InputError(
            f"{path}: a {short(shape)} with coordinates that are not numbers"
        ) from None


def read_coco(path: Path, choice: Choice = ALL) -> dict[str, Annotations]:
    """What a COCO file holds, by the file name of the image."""
    return _coco(path, read_json(path), choice)


def _coco(path: Path, content: object, choice: Choice) -> dict[str, Annotations]:
    with named_errors(path, "a COCO file"):
        categories = {c["id"]: str(c["name"]) for c in content.get("categories") or []}
        images = {image["id"]: image for image in content["images"]}
        if len(images) < len(content["images"]):
            raise InputError(f"{path}: two of its images have one id")
        files = one_for_each(path, (image["file_name"] for image in images.values()))
        names = dict(zip(images, files, strict=True))
        annotations = {name: Annotations() for name in names.values()}
        for key, image in images.items():
            if image.get("width") and image.get("height"):
                annotations[names[key]].shape = int(image["height"]), int(image["width"])
        for entry in content["annotations"]:
            if entry["image_id"] not in names:
                raise InputError(
                    f"{path}: the annotation of id {short(entry.get('id'))} is of the image "
                    f"{short(repr(entry['image_id']))}, which is none of the file's images"
                )
            name = names[entry["image_id"]]
            if annotations[name].takes(choice, [categories.get(entry.get("category_id"), "")]):
                where = f"{path}: annotation {short(entry.get('id'))} of {short(name, 80)}"
                with error_of(annotations[name]), named_errors(where, "a COCO file"):
                    _add_coco(where, entry, annotations[name])
    return annotations


def _add_coco(where: str, entry: dict, annotations: Annotations) -> None:
    """Add an object of COCO: its polygons, its run-length mask, or its box."""
    parts = entry.get("segmentation")
    if isinstance(parts, list):
        parts = [part for part in parts if part != []]  # as in exports of boxes
    if isinstance(parts, dict):
        size = tuple(int(side) for side in parts["size"])
        if annotations.shape not in (None, size):
            raise InputError(
                f"{where}: a run-length mask of {size}; its image has {annotations.shape}"
            )
        annotations.shape = size
        pixels = run_length_pixels(where, parts)
        if entry.get("iscrowd") and _is_crowd(pixels):
            annotations.left_out["crowd of objects"] += 1
        else:
            annotations.add_mask(pixels)
    elif parts:
        if not isinstance(parts[0], list):  # one polygon, without the list around it
            parts = [parts]
        odd = next((len(part) for part in parts if len(part) % 2), 0)
        if odd:
            raise InputError(f"{where}: a polygon of {odd} numbers; expected x, y of each vertex")
        annotations.add_outline(
            [[ring(where, np.reshape(part, (-1, 2)).tolist())] for part in parts]
        )
    elif entry.get("keypoints"):
        annotations.left_out["object of keypoints"] += 1
    elif entry.get("bbox"):
        left, top, width, height = (float(value) for value in entry["bbox"])
        place((left, top)), place((left + width, top + height))
        annotations.boxes.append((left, top, left + width, top + height))
    else:
        annotations.left_out["object without an outline or a box"] += 1


def _is_crowd(pixels: np.ndarray) -> bool:
    """Whether pixels [N, 2] are several objects, specks aside.

    iscrowd alone does not say so: many tools give it to every run-length mask.
    """
    return len(pixels) > 0 and count_pieces(in_its_box(pixels)) > 1


def run_length_pixels(where: Path | str, mask: dict) -> np.ndarray:
    """Pixels [N, 2] (row, column) of a run-length mask of COCO, which goes down the columns.

    Its counts are numbers, or a text that packs them. Raises InputError where they do not add up.
    """
    rows, cols = (int(side) for side in mask["size"])
    counts = mask["counts"]
    runs = np.array(_unpacked(counts) if isinstance(counts, str) else counts, np.int64)
    if (runs < 0).any() or runs.sum() != rows * cols or rows < 1 or cols < 1:
        raise InputError(f"{where}: a run-length mask whose runs are not {rows} x {cols} pixels")
    check_size(where, runs[1::2].sum())
    ends = np.cumsum(runs)
    inside = [np.arange(ends[k - 1], ends[k]) for k in range(1, len(runs), 2)]
    place_in_columns = np.concatenate([np.zeros(0, np.int64), *inside])
    return np.stack([place_in_columns % rows, place_in_columns // rows], 1)


def _unpacked(text: str) -> list[int]:
    """The counts that COCO packs in a text.

    A letter holds 5 bits of a number, the lowest first, and a flag that more follow. From the
    fourth on, a number is the difference to the one two before. pycocotools decodes a broken text,
    too, to whatever stood in the memory.
    """
    counts: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 30:
            raise ValueError("a letter that is none of a run-length mask")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:  # negative
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("a run-length mask that is cut off")
    return counts


def _labelme(path: Path, content: dict, choice: Choice) -> Annotations:
    """Shapes of labelme. Shapes of one label with one group_id are parts of one object."""
    annotations, groups = Annotations(), Groups()
    with named_errors(path, "labelme's JSON"):
        if content.get("imageWidth") and content.get("imageHeight"):
            annotations.shape = int(content["imageHeight"]), int(content["imageWidth"])
        for number, shape in enumerate(content["shapes"]):
            label, kind = str(shape.get("label") or ""), shape.get("shape_type") or "polygon"
            several = len(shape["points"]) if kind == "points" else 1
            if not annotations.takes(choice, [label], number=several):
                continue
            places = [place(p) for p in shape["points"]]
            group = shape.get("group_id")
            key = (label, group) if group is not None else (label, group, number)
            if kind == "polygon":
                groups.add_outline(key, [ring(path, places)])
            elif kind == "circle":
                (x, y), edge = places
                radius = float(np.hypot(edge[0] - x, edge[1] - y))
                circle = ellipse_ring(x, y, radius, radius)
                groups.add_outline(key, [ring(path, circle)])
            elif kind == "rectangle":
                (x0, y0), (x1, y1) = places[0], places[len(places) // 2]
                annotations.boxes.append((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)))
            elif kind in ("point", "points"):
                annotations.points += places
            elif kind == "mask":
                mask = _labelme_mask(path, places, shape["mask"])
                groups.add_mask(key, mask)
            else:
                annotations.left_out[f"shape of type {short(kind, 20)}"] += 1
    groups.add_to(annotations)
    return annotations


def _labelme_mask(path: Path, places: list[tuple[float, float]], text: str) -> np.ndarray:
    """Pixels [N, 2] of a mask: a PNG as text, whose first pixel lies at the first place."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(text)), formats=("PNG",)) as image:
            mask = np.asarray(image)
    except Exception:  # a broken file raises almost anything
        raise InputError(f"{path}: a mask that is no PNG") from None
    return np.argwhere(mask.reshape(*mask.shape[:2], -1)[..., 0]) + [
        round(places[0][1]),
        round(places[0][0]),
    ]


def _via(path: Path, content: dict, choice: Choice) -> dict[str, Annotations]:
    """Regions of VIA, by the file name of the image."""
    by_name: dict[str, Annotations] = {}
    with named_errors(path, "VIA's JSON"):
        images = list(content.get("_via_img_metadata", content).values())
        names = one_for_each(path, (image["filename"] for image in images))
        for name, image in zip(names, images, strict=True):
            annotations = by_name[name] = Annotations()
            regions = image["regions"]
            regions = regions.values() if isinstance(regions, dict) else regions
            for number, region in enumerate(regions, 1):
                classes = _via_classes(region.get("region_attributes") or {})
                if annotations.takes(choice, classes):
                    where = f"{path}: region {number} of {short(name, 80)}"
                    with error_of(annotations), named_errors(where, "VIA's JSON"):
                        _add_via(where, region["shape_attributes"], annotations)
    return by_name


def _via_classes(attributes: dict) -> list[str]:
    """Texts that were written or chosen, and boxes that were ticked."""
    ticked = [key for a in attributes.values() if isinstance(a, dict) for key in a if a[key]]
    return [a for a in attributes.values() if isinstance(a, str)] + ticked


def _add_via(where: str, shape: dict, annotations: Annotations) -> None:
    kind = shape["name"]
    if kind == "polygon":
        vertices = zip(shape["all_points_x"], shape["all_points_y"], strict=True)
        annotations.add_outline([[ring(where, vertices)]])
    elif kind in ("circle", "ellipse"):
        radii = (shape["r"], shape["r"]) if kind == "circle" else (shape["rx"], shape["ry"])
        angle, _ = place((shape.get("theta", 0.0), 0))  # it is finite, too
        vertices = ellipse_ring(*place((shape["cx"], shape["cy"])), *place(radii), angle)
        annotations.add_outline([[ring(where, vertices)]])
    elif kind == "rect":
        x, y = place((shape["x"], shape["y"]))
        width, height = place((shape["width"], shape["height"]))
        annotations.boxes.append((x, y, x + width, y + height))
    elif kind == "point":
        annotations.points.append(place((shape["cx"], shape["cy"])))
    else:
        annotations.left_out[f"region of type {short(kind, 20)}"] += 1


def _hovernet(path: Path, content: dict, choice: Choice) -> Annotations:
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
            if not annotations.takes(choice, [] if named is None else [str(named)]):
                continue
            vertices = ring(path, nucleus["contour"])
            box = nucleus.get("bbox")
            through_middles = False
            if box is not None and len(vertices):
                bottom, right = float(box[1][0]), float(box[1][1])
                through_middles = (vertices.max(0) <= [right - 1, bottom - 1]).all()
            if through_middles and (vertices >= 0).all():
                annotations.masks.append(filled(path, vertices))
            else:
                annotations.add_outline([[vertices]])
    return annotations
