"""XML of other tools: Aperio ImageScope, ASAP, CVAT and ImageJ's Cell Counter."""

import xml.etree.ElementTree as ET
from collections.abc import Hashable
from pathlib import Path

import numpy as np
from skimage.measure import points_in_poly

from code_common.annotations.choice import ALL, Choice
from code_common.annotations.geometry import (
    Annotations,
    Groups,
    box_ring,
    centre,
    check_size,
    ellipse_ring,
    error_of,
    largest_ring,
    named_errors,
    place,
    ring,
    signed_area,
)
from code_common.annotations.json_files import of_image, one_for_each, told_of_image
from code_common.annotations.text import read_xml, short
from code_common.errors import InputError

KINDS = "Aperio ImageScope, ASAP, CVAT and ImageJ's Cell Counter"


def read_xml_of_image(path: Path, image: str, choice: Choice = ALL) -> Annotations:
    """What an XML file holds of one image. image: its file name, for CVAT's files of several."""
    root = read_xml(path)
    tag = root.tag.rpartition("}")[2]
    if tag == "ASAP_Annotations":
        return _asap(path, root, choice)
    if tag == "CellCounter_Marker_File":
        # Counters of an open window name that.
        named = (root.findtext(".//Image_Filename") or "").removeprefix("Counter Window - ")
        return told_of_image(_cell_counter(path, root, choice), named, image)
    if tag == "annotations" and root.find("image") is not None:
        return of_image(path, _cvat(path, root, choice), image)
    if tag == "annotation" and root.find("object") is not None:
        raise InputError(f"{path}: boxes of Pascal VOC; read are {KINDS}")
    return _aperio(path, root, choice)


def images_of_xml(path: Path, choice: Choice = ALL) -> dict[str, Annotations] | None:
    """What CVAT's file of several images holds, by the image's file name; None: it is no such."""
    root = read_xml(path)
    if root.find("track") is not None:
        raise InputError(f"{path}: CVAT for video; export it as CVAT for images 1.1")
    if root.tag != "annotations" or root.find("image") is None:
        return None
    return _cvat(path, root, choice)


def read_aperio_xml(path: Path, choice: Choice = ALL) -> Annotations:
    """Outlines of Aperio ImageScope, the format of MoNuSeg: a Region has Vertices with X and Y.

    Rectangles and ellipses may be given by two corners. A negative region is cut out of the
    nucleus that it lies in.
    """
    return _aperio(path, read_xml(path), choice)


def _aperio(path: Path, root: ET.Element, choice: Choice) -> Annotations:
    annotations, negative = Annotations(), []
    layers = list(root.iter("Annotation"))
    regions = {region: _layer_names(layer) for layer in layers for region in _regions(layer)}
    if not regions:  # another nesting, or none
        regions = {region: [] for region in root.iter("Region")}
    if not regions and not (layers and root.find(".//Regions") is not None):
        raise InputError(
            f"{path}: no Region in it; expected Aperio ImageScope annotations (read are {KINDS})"
        )
    for region, names in regions.items():
        if not annotations.takes(choice, [*names, str(region.get("Text") or "")]):
            continue
        vertices = [
            (vertex.get("X"), vertex.get("Y"))
            for group in region.findall("Vertices")
            for vertex in group.findall("Vertex")
        ]
        outline = _aperio_shape(region.get("Type") or "0", ring(path, vertices))
        if outline is None:
            names = {"3": "arrow", "4": "ruler", "5": "pointer"}
            kind = short(region.get("Type") or "0", 20)
            annotations.left_out[names.get(kind, f"Region of Type {kind}")] += 1
        elif (region.get("NegativeROA") or "0") not in ("0", "false") and len(outline) >= 3:
            negative.append(outline)
        else:
            annotations.add_outline([[outline]])
    for hole in negative:
        _cut_out(hole, annotations)
    return annotations


def _layer_names(layer: ET.Element) -> list[str]:
    """The name of a layer, and of its attributes: MoNuSAC has its classes there."""
    attributes = [a.get("Name") for a in layer.findall("Attributes/Attribute")]
    return [str(layer.get("Name") or ""), *(a for a in attributes if a and a != "Description")]


def _regions(layer: ET.Element) -> list[ET.Element]:
    """The regions of a layer of ImageScope."""
    return [region for group in layer.findall("Regions") for region in group.findall("Region")]


def _aperio_shape(kind: str, vertices: np.ndarray) -> np.ndarray | None:
    """The outline [K, 2] of a region of ImageScope; None for what has no area."""
    if kind == "2" and 2 <= len(vertices) <= 4:
        (x0, y0), (x1, y1) = vertices.min(0), vertices.max(0)
        middle, radii = ((x0 + x1) / 2, (y0 + y1) / 2), ((x1 - x0) / 2, (y1 - y0) / 2)
        return np.array(ellipse_ring(*middle, *radii))
    if kind == "1" and len(vertices) == 2:
        return np.array(box_ring(*vertices.min(0), *vertices.max(0)))
    return vertices if kind in ("0", "1", "2") else None


def _cut_out(hole: np.ndarray, annotations: Annotations) -> None:
    """Make a negative region a hole of the smallest outline that its middle lies in."""
    middle = [centre([[hole]])]
    around = [
        rings
        for outline in annotations.outlines
        for rings in outline
        if points_in_poly(middle, rings[0])[0]
    ]
    if around:
        smallest = min(around, key=lambda rings: abs(signed_area(largest_ring([rings]))))
        smallest.append(hole)
    else:
        annotations.left_out["negative region outside of all outlines"] += 1


def _asap(path: Path, root: ET.Element, choice: Choice) -> Annotations:
    """Annotations of ASAP; a group is a class."""
    annotations = Annotations()
    for item in root.iter("Annotation"):
        group, kind = str(item.get("PartOfGroup") or ""), str(item.get("Type") or "Polygon")
        found = item.findall("Coordinates/Coordinate")
        number = len(found) if kind == "PointSet" else 1
        if not annotations.takes(choice, ["" if group == "None" else group], number=number):
            continue
        with named_errors(path, "ASAP's XML"):
            found.sort(key=lambda c: float(c.get("Order") or 0))
            coordinates = [place((c.get("X"), c.get("Y"))) for c in found]
        if kind in ("Polygon", "Spline", "Rectangle"):
            annotations.add_outline([[ring(path, coordinates)]])
        elif kind in ("Dot", "PointSet"):
            annotations.points += coordinates
        else:
            annotations.left_out[f"annotation of type {short(kind, 20)}"] += 1
    return annotations


def _cvat(path: Path, root: ET.Element, choice: Choice) -> dict[str, Annotations]:
    """Shapes of 'CVAT for images', by the file name of the image."""
    by_name: dict[str, Annotations] = {}
    with named_errors(path, "CVAT's XML"):
        images = root.findall("image")
        names = one_for_each(path, (image.get("name") for image in images))
        for name, image in zip(names, images, strict=True):
            annotations, groups = Annotations(), Groups()
            by_name[name] = annotations
            if image.get("width") and image.get("height"):
                annotations.shape = int(image.get("height")), int(image.get("width"))
            for number, shape in enumerate(image, 1):
                if shape.tag == "tag":  # of the whole image
                    continue
                pairs = shape.get("points", "").strip("; ").split(";")
                several = len(pairs) if shape.tag == "points" else 1
                label, group = str(shape.get("label") or ""), shape.get("group_id") or "0"
                if annotations.takes(choice, [label], number=several):
                    where = f"{path}: {short(shape.tag, 20)} {number} of {short(name, 80)}"
                    key = (label, group) if group != "0" else number
                    with error_of(annotations), named_errors(where, "CVAT's XML"):
                        _add_cvat(where, shape, annotations, groups, key)
            groups.add_to(annotations)
    return by_name


def _add_cvat(
    where: str, shape: ET.Element, annotations: Annotations, groups: Groups, key: Hashable
) -> None:
    """Add a shape of CVAT to the annotations or, if it may be a part, to the groups."""

    def get(name: str) -> str:
        value = shape.get(name)
        if value is None:
            raise InputError(f"{where}: without {name}")
        return value

    if shape.tag in ("polygon", "points"):
        places = [place(pair.split(",")) for pair in get("points").split(";") if pair.strip()]
        if shape.tag == "points":
            annotations.points += places
        else:
            groups.add_outline(key, [ring(where, places)])
    elif shape.tag == "box":
        # A rotation goes around the middle, and no more than that is taken of a box.
        corners = place((get("xtl"), get("ytl"))), place((get("xbr"), get("ybr")))
        annotations.boxes.append((*corners[0], *corners[1]))
    elif shape.tag == "ellipse":
        middle, radii = place((get("cx"), get("cy"))), place((get("rx"), get("ry")))
        angle = np.deg2rad(float(shape.get("rotation") or 0))
        ellipse = ring(where, ellipse_ring(*middle, *radii, angle))
        groups.add_outline(key, [ellipse])
    elif shape.tag == "mask":
        runs = [int(run) for run in get("rle").split(",")]
        box = [int(get(name)) for name in ("left", "top", "width", "height")]
        groups.add_mask(key, _cvat_mask(where, np.array(runs), *box))
    else:
        annotations.left_out[f"shape of type {short(shape.tag, 20)}"] += 1


def _cvat_mask(
    where: str, runs: np.ndarray, left: int, top: int, width: int, height: int
) -> np.ndarray:
    """Pixels [N, 2] of a mask of CVAT: runs along the rows of its box, background first."""
    if (runs < 0).any() or runs.sum() != width * height or width < 1:
        raise InputError(f"{where}: a mask whose runs are not {width} x {height} pixels")
    check_size(where, width * height)
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
    return np.argwhere(inside) + [top, left]


def _cell_counter(path: Path, root: ET.Element, choice: Choice) -> Annotations:
    """Markers of ImageJ's Cell Counter, which name pixels; a type is a class."""
    annotations = Annotations()
    with named_errors(path, "Cell Counter's XML"):
        for kind in root.iter("Marker_Type"):
            names = [(kind.findtext(tag) or "").strip() for tag in ("Name", "Type")]
            for marker in kind.findall("Marker"):
                plane = int(marker.findtext("MarkerZ") or 1)
                if annotations.takes(choice, names, (plane,)):
                    x, y = place((marker.findtext("MarkerX"), marker.findtext("MarkerY")))
                    annotations.points.append((x + 0.5, y + 0.5))
    return annotations
