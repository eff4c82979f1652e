"""Files of many tools: what each gives as masks and as points, or the line that refuses it."""

import base64
import errno
import gzip
import io
import json
import os
import shutil
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.measure import label as connected_parts

from code_common.annotations.formats import draw, outline_pixels, read_annotations, without_regions
from code_common.annotations.json_files import run_length_pixels
from code_common.annotations.labels import counted
from code_common.errors import InputError
from code_common.files.images import read_label
from code_common.files.writing import write_instances, write_png
from data.import_labels import main, parse_arguments

SHAPE = (60, 80)
# Three nuclei: column, row of the first pixel, width, height.
BOXES = [(10, 10, 8, 6), (30, 12, 6, 6), (50, 40, 10, 8)]
AREAS = [48, 36, 80]
MIDDLES = [(13, 14), (15, 33), (44, 55)]  # row, column


def corners(box):
    x, y, width, height = box
    return [[x, y], [x + width, y], [x + width, y + height], [x, y + height]]


def instances(boxes=BOXES):
    array = np.zeros(SHAPE, np.uint16)
    for k, (x, y, width, height) in enumerate(boxes, 1):
        array[y : y + height, x : x + width] = k
    return array


def feature(vertices, kind="detection", name=None, **more):
    properties = {"objectType": kind, **({"classification": {"name": name}} if name else {})}
    geometry = {"type": "Polygon", "coordinates": [[*vertices, vertices[0]]]}
    return {"type": "Feature", "geometry": geometry, "properties": properties, **more}


def geojson(*features):
    return {"type": "FeatureCollection", "features": list(features)}


NUCLEI = [feature(corners(box)) for box in BOXES]
HAND_DRAWN = [feature(corners(box), "annotation") for box in BOXES]
TILE = corners((0, 0, 80, 60))
PART = corners((5, 5, 60, 50))  # holds all nuclei


def wide(box):
    x, y, width, height = box
    return (x - 4, y - 2, width + 4, height + 4)


CELLS = [
    feature(
        corners(wide(box)),
        "cell",
        nucleusGeometry={"type": "Polygon", "coordinates": [corners(box)]},
    )
    for box in BOXES
]


def region(vertices, **more):
    attributes = "".join(f' {name}="{value}"' for name, value in more.items())
    inner = "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in vertices)
    return f"<Region{attributes}><Vertices>{inner}</Vertices></Region>"


def aperio(*regions, name="nuclei"):
    inner = "".join(regions)
    return (
        f'<Annotations><Annotation Name="{name}"><Regions>{inner}</Regions></Annotation>'
        "</Annotations>"
    )


APERIO = [region(corners(box), Type=0) for box in BOXES]


def two_corners(box):
    x, y, width, height = box
    return [[x, y], [x + width, y + height]]


def coco(*annotations, name="a.png", shape=SHAPE, categories=()):
    image = {"id": 3, "file_name": name, "height": shape[0], "width": shape[1]}
    entries = [{"id": k, "image_id": 3, **entry} for k, entry in enumerate(annotations)]
    return {"images": [image], "annotations": entries, "categories": list(categories)}


def polygons(*boxes):
    return {"segmentation": [[c for corner in corners(box) for c in corner] for box in boxes]}


def run_lengths(mask):
    """COCO's run-length mask of a map [H, W], background first, down the columns."""
    flat = np.concatenate([[0], mask.astype(int).T.ravel(), [2]])
    changes = np.flatnonzero(np.diff(flat))
    counts = np.diff(np.concatenate([[0], changes]))
    return {"segmentation": {"size": list(SHAPE), "counts": counts.tolist()}}


def png_text(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def labelme(*shapes):
    return {"version": "5", "shapes": list(shapes), "imageHeight": 60, "imageWidth": 80}


def shape(kind, points, label="nucleus", **more):
    return {"label": label, "points": points, "shape_type": kind, **more}


def via(*shapes):
    regions = [{"shape_attributes": s, "region_attributes": {"kind": "n"}} for s in shapes]
    return {"a.png12": {"filename": "a.png", "size": 12, "regions": regions}}


def via_polygon(box):
    x, y = np.array(corners(box)).T.tolist()
    return {"name": "polygon", "all_points_x": x, "all_points_y": y}


def hovernet(last):
    """last: 0 for outlines, 1 for contours through the middles of the outermost pixels."""
    nuclei = {}
    for k, (x, y, width, height) in enumerate(BOXES):
        contour = corners((x, y, width - last, height - last))
        bounds = [[y, x], [y + height, x + width]]
        nuclei[str(k)] = {"bbox": bounds, "contour": contour, "type": k % 2}
    return {"mag": 40, "nuc": nuclei}


def asap(*annotations):
    items = ""
    for kind, group, vertices in annotations:
        inner = "".join(
            f'<Coordinate Order="{k}" X="{x}" Y="{y}"/>' for k, (x, y) in enumerate(vertices)
        )
        items += f'<Annotation Type="{kind}" PartOfGroup="{group}"><Coordinates>{inner}'
        items += "</Coordinates></Annotation>"
    return f"<ASAP_Annotations><Annotations>{items}</Annotations></ASAP_Annotations>"


def cvat(*shapes, name="set/a.png"):
    inner = "".join(shapes)
    image = f'<image id="0" name="{name}" width="80" height="60">{inner}</image>'
    return f"<annotations><version>1.1</version><meta/>{image}</annotations>"


def cvat_polygon(box):
    pairs = ";".join(f"{x},{y}" for x, y in corners(box))
    return f'<polygon label="nucleus" points="{pairs}"/>'


def markers(*kinds):
    items = ""
    for number, places in enumerate(kinds, 1):
        inner = "".join(
            f"<Marker><MarkerX>{x}</MarkerX><MarkerY>{y}</MarkerY><MarkerZ>1</MarkerZ></Marker>"
            for y, x in places
        )
        items += f"<Marker_Type><Type>{number}</Type>{inner}</Marker_Type>"
    return f"<CellCounter_Marker_File><Marker_Data>{items}</Marker_Data></CellCounter_Marker_File>"


def napari(axes, places=MIDDLES):
    header = ",".join(["index", *(f"axis-{k}" for k in range(axes))])
    lines = [
        ",".join(map(str, [k, *[7.0] * (axes - 2), row, col]))
        for k, (row, col) in enumerate(places)
    ]
    return "\n".join([header, *lines]) + "\n"


def napari_shapes(kind, order=(0, 1, 2, 3)):
    lines = ["index,shape-type,vertex-index,axis-0,axis-1"]
    for k, box in enumerate(BOXES):
        for v in order:
            x, y = corners(box)[v]
            lines.append(f"{k},{kind},{v},{y - 0.5},{x - 0.5}")
    return "\n".join(lines) + "\n"


TABLE = "x,y\n14.5,13.5\n33.5,15.5\n55.5,44.5\n"


def place(folder, name, content):
    """Write a file of any kind; returns its path."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    else:
        path.write_text(json.dumps(content))
    return path


@pytest.fixture
def data(tmp_path):
    """A data set of the tile a."""
    write_png(tmp_path / "images" / "a.png", np.zeros((*SHAPE, 3), np.uint8))
    return tmp_path


def import_labels(kind, data, source, *more):
    """Run the script in this process."""
    main(parse_arguments([kind, "--data-dir", str(data), "--source", str(source), *map(str, more)]))


def areas(data, name="a"):
    """The areas of the nuclei of a tile, in the order of their ids."""
    label = read_label(data / "labels_instance" / f"{name}_label.tif", SHAPE)
    return np.bincount(label.ravel())[1:].tolist()


def places(data, name="a"):
    """The points of a tile (row, column)."""
    label = read_label(data / "labels_point" / f"{name}_label_point.png", SHAPE)
    return [tuple(p) for p in np.argwhere(label).tolist()]


def packed(files):
    """A .zip of files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


OUTLINES = {
    "QuPath detections": ("a.geojson", geojson(*NUCLEI), ""),
    "QuPath, drawn by hand": ("a.geojson", geojson(*HAND_DRAWN), ""),
    "QuPath cells": ("a.geojson", geojson(*CELLS), ""),
    "QuPath, a cell without nucleus": (
        "a.geojson",
        geojson(*CELLS, feature(TILE, "cell")),
        "1 cell without a nucleus",
    ),
    "QuPath, the tile": (
        "a.geojson",
        geojson(feature(TILE, "annotation"), *NUCLEI),
        "1 region (annotation that covers the tile)",
    ),
    "QuPath, a region": (
        "a.geojson",
        geojson(feature(PART, "annotation"), *NUCLEI),
        "1 region (annotation that holds 3 others)",
    ),
    "QuPath, a region beside": (
        "a.geojson",
        geojson(*NUCLEI, feature(corners((0, 30, 40, 30)), "annotation")),
        "1 region (annotation among detections)",
    ),
    "a region of no kind": (
        "a.geojson",
        geojson(*[{**f, "properties": {}} for f in (feature(PART), *NUCLEI)]),
        "1 region (outline that holds 3 others)",
    ),
    "QuPath, Ignore*": (
        "a.geojson",
        geojson(*NUCLEI, feature(corners((70, 5, 6, 6)), name="Ignore*")),
        "1 object of class Ignore*",
    ),
    "QuPath, a line": (
        "a.geojson",
        geojson(*NUCLEI, {"type": "LineString", "coordinates": [[1, 1], [9, 9]]}),
        "1 line",
    ),
    "ImageScope": ("a.xml", aperio(*APERIO), ""),
    "ImageScope, rectangles of two corners": (
        "a.xml",
        aperio(*[region(two_corners(box), Type=1) for box in BOXES]),
        "",
    ),
    "ImageScope, an arrow and an unknown type": (
        "a.xml",
        aperio(*APERIO, region([[1, 1], [5, 5]], Type=3), region([[1, 1], [5, 5]], Type=9)),
        "1 arrow, 1 Region of Type 9",
    ),
    "ImageScope, a negative region beside": (
        "a.xml",
        aperio(*APERIO, region(corners((70, 5, 6, 6)), Type=0, NegativeROA=1)),
        "1 negative region outside of all outlines",
    ),
    "COCO": ("a.json", coco(*[polygons(box) for box in BOXES]), ""),
    "COCO, another path": ("a.json", coco(*[polygons(b) for b in BOXES], name="d\\a.jpg"), ""),
    "COCO, runs": ("a.json", coco(*[run_lengths(instances() == k) for k in (1, 2, 3)]), ""),
    "COCO, nothing": (
        "a.json",
        coco(*[polygons(box) for box in BOXES], {"segmentation": [], "bbox": []}),
        "1 object without an outline or a box",
    ),
    "labelme": ("a.json", labelme(*[shape("polygon", corners(box)) for box in BOXES]), ""),
    "labelme, masks": (
        "a.json",
        labelme(
            *[
                shape(
                    "mask",
                    [[x, y], [x + w - 1, y + h - 1]],
                    mask=png_text(np.full((h, w), 255, np.uint8)),
                )
                for x, y, w, h in BOXES
            ]
        ),
        "",
    ),
    "labelme, a line": (
        "a.json",
        labelme(
            *[shape("polygon", corners(box)) for box in BOXES],
            shape("linestrip", [[1, 1], [2, 2]]),
        ),
        "1 shape of type linestrip",
    ),
    "VIA": ("a.json", via(*[via_polygon(box) for box in BOXES]), ""),
    "VIA, a project": (
        "a.json",
        {"_via_img_metadata": via(*[via_polygon(box) for box in BOXES]), "_via_settings": {}},
        "",
    ),
    "HoVer-Net, outlines": ("a.json", hovernet(0), ""),
    "HoVer-Net, contours": ("a.json", hovernet(1), ""),
    "ASAP": (
        "a.xml",
        asap(*[("Polygon", "None", corners(b)) for b in BOXES], ("Measurement", "n", [[1, 2]])),
        "1 annotation of type Measurement",
    ),
    "CVAT": (
        "a.xml",
        cvat(*map(cvat_polygon, BOXES), '<polyline label="l" points="1,1;2,2"/>'),
        "1 shape of type polyline",
    ),
    "CVAT, masks": (
        "a.xml",
        cvat(
            *[
                f'<mask label="n" rle="0, {w * h}" left="{x}" top="{y}" width="{w}" height="{h}"/>'
                for x, y, w, h in BOXES
            ]
        ),
        "",
    ),
    "QuPath, packed": ("a.geojson.gz", gzip.compress(json.dumps(geojson(*NUCLEI)).encode()), ""),
    "QuPath, no geometry": (
        "a.geojson",
        geojson(*NUCLEI, {"type": "Feature", "geometry": None, "properties": {}}),
        "1 feature without a geometry",
    ),
    "QuPath, a core and the root": (
        "a.geojson",
        geojson(*NUCLEI, feature(TILE, "tmaCore"), feature(TILE, "PathRootObject")),
        "1 TMA core, 1 root of the hierarchy",
    ),
    "QuPath 0.2": (
        "a.geojson",
        [
            *[{**cell, "id": "PathCellObject", "properties": {}} for cell in CELLS],
            *[
                {**feature(PART), "id": kind, "properties": {}}
                for kind in ("PathTileObject", "PathCellObject", "TMACoreObject")
            ],
        ],
        "1 tile of an image, 1 cell without a nucleus, 1 TMA core",
    ),
    "features that are not called so": (
        "a.geojson",
        geojson(*[{"geometry": nucleus["geometry"]} for nucleus in NUCLEI]),
        "",
    ),
    "QuPath, packed by macOS": (
        "a.geojson.zip",
        packed({"a.geojson": json.dumps(geojson(*NUCLEI)), "__MACOSX/._a.geojson": b"x"}),
        "",
    ),
    "an archive with files of macOS": (
        "a.zip",
        packed({"d/a.geojson": json.dumps(geojson(*NUCLEI)), "d/._a.geojson": b"x"}),
        "",
    ),
    "COCO, a mask of the tile": (
        "a.json",
        coco(*map(polygons, BOXES), run_lengths(instances() == 0)),
        "1 region (mask that covers the tile)",
    ),
    "a tissue of many rings": (
        "a.geojson",
        geojson(
            *NUCLEI,
            {"type": "MultiPolygon", "coordinates": [[corners((70, 50, 3, 3))]] * 1001},
        ),
        "1 region (outline of more than 1000 rings)",
    ),
    "COCO, a crowd": (
        "a.json",
        coco(
            *[{**run_lengths(instances() == k), "iscrowd": 1} for k in (1, 2, 3)],
            {**run_lengths(instances() > 0), "iscrowd": 1},
        ),
        "1 crowd of objects",
    ),
    "COCO, an empty mask": (
        "a.json",
        coco(*map(polygons, BOXES), {"segmentation": {"size": list(SHAPE), "counts": [4800]}}),
        "1 empty mask",
    ),
    "labelme, an empty mask": (
        "a.json",
        labelme(
            *[shape("polygon", corners(box)) for box in BOXES],
            shape("mask", [[1, 1], [4, 4]], mask=png_text(np.zeros((4, 4), np.uint8))),
        ),
        "1 empty mask",
    ),
    "CVAT, an empty mask": (
        "a.xml",
        cvat(
            *map(cvat_polygon, BOXES),
            '<mask label="n" rle="16" left="1" top="1" width="4" height="4"/>',
        ),
        "1 empty mask",
    ),
    "COCO, an address": (
        "a.json",
        coco(*[polygons(b) for b in BOXES], name="https://h/d/a.png?key=%2F1"),
        "",
    ),
    "Cellpose outlines": (
        "a_cp_outlines.txt",
        "".join(
            ",".join(f"{x},{y}" for x, y in corners((x0, y0, w - 1, h - 1))) + "\n"
            for x0, y0, w, h in BOXES
        )
        + "\n",
        "1 outline of fewer than three vertices",
    ),
    "napari shapes": ("a.csv", napari_shapes("polygon"), ""),
    "napari shapes, lines in another order": ("a.csv", napari_shapes("polygon", (2, 0, 1, 3)), ""),
    "napari rectangles": ("a.csv", napari_shapes("rectangle"), ""),
    "a byte order mark": (
        "a.geojson",
        b"\xef\xbb\xbf" + json.dumps(geojson(*NUCLEI)).encode(),
        "",
    ),
    "UTF-16 of PowerShell": ("a.geojson", json.dumps(geojson(*NUCLEI)).encode("utf-16"), ""),
    "XML in Latin-1": (
        "a.xml",
        ('<?xml version="1.0" encoding="ISO-8859-1"?>' + aperio(*APERIO, name="Kärne")).encode(
            "latin-1"
        ),
        "",
    ),
}


@pytest.mark.parametrize("what", OUTLINES)
def test_outlines_of_every_tool(data, capsys, what):
    """The same three nuclei as masks and as points; what is no nucleus is said."""
    name, content, left_out = OUTLINES[what]
    place(data / "from", name, content)
    ending = f"; left out: {left_out}\n" if left_out else "\n"
    import_labels("masks", data, data / "from")
    assert capsys.readouterr().out == f"a: 3 nuclei from {name}{ending}"
    assert areas(data) == AREAS
    import_labels("points", data, data / "from")
    assert capsys.readouterr().out == f"a: 3 points from {name}{ending}"
    assert places(data) == MIDDLES


POINTS = {  # name, content, what is told
    "QuPath": ("a.tsv", "x\ty\tclass\n14.5\t13.5\tT\n33.5\t15.5\t\n55.5\t44.5\t\n", ""),
    "x, y": ("a.csv", TABLE, ""),
    "Windows line ends and a mark": (
        "a.CSV",
        b"\xef\xbb\xbf" + TABLE.replace("\n", "\r\n").encode(),
        "",
    ),
    "semicolons and decimal commas": ("a.csv", TABLE.replace(",", ";").replace(".", ","), ""),
    "Excel's separator": ("a.csv", "sep=;\n" + TABLE.replace(",", ";"), ""),
    "tabs and decimal commas": (
        "a.tsv",
        TABLE.replace(",", "\t").replace(".", ","),
        "",
    ),
    "line ends of old": ("a.csv", TABLE.replace("\n", "\r"), ""),
    "labels of ImageJ": (
        "a.csv",
        " ,Label,X,Y\n1,a.tif,14.5,13.5\n2,a.tif:0001,33.5,15.5\n3,a.tif,55.5,44.5\n"
        "4,other.tif,1,1\n",
        "left out: 1 object of another image; x, y of ImageJ are read as pixels; with a scale they "
        "are not",
    ),
    "labels that are numbers": ("a.csv", "label,x,y\n1,14.5,13.5\n2,33.5,15.5\n2,55.5,44.5\n", ""),
    "both orders alike": ("a.csv", "row,col,x,y\n13,14,14.5,13.5\n15,33,33,15\n44,55,55,44\n", ""),
    "blank rows of Excel": ("a.csv", TABLE.replace("\n", ",\n,,\n\n"), ""),
    "names with commas and line breaks": (
        "a.csv",
        'name,X , y\n"a, b",14.5,13.5\n"c\nd",3.35e1,15.5\ne,55.5,44.5\n',
        "",
    ),
    "notes and colours": (
        "a.csv",
        "# seen\ncolour,x,y\n# by two, then three\n#ff0000,14.5,13.5\n#fff,33.5,15.5\n,55.5,44.5\n",
        "not read: 1 line that begins with #",
    ),
    "QuPath, measurements": (
        "a.tsv",
        "Image\tObject type\tName\tClassification\tCentroid X px\tCentroid Y px\n"
        + "".join(f"a.png\tDetection\t\tT\t{c + 0.5}\t{r + 0.5}\n" for r, c in MIDDLES)
        + "a.png\tAnnotation\t\t\t40\t30\nb.png\tDetection\t\tT\t5\t5\n",
        "left out: 1 annotation among detections, 1 object of another image",
    ),
    "QuPath, points of the points tool": (
        "a.tsv",
        "Image\tObject type\tROI\tCentroid X px\tCentroid Y px\tNum points\n"
        + "".join(f"a.png\tAnnotation\tPoints\t{c + 0.5}\t{r + 0.5}\t1\n" for r, c in MIDDLES)
        + "a.png\tAnnotation\tPoints\t40\t30\t25\na.png\tAnnotation\tPolyline\t9\t9\t\n"
        + "a.png\tTile\tRectangle\t5\t5\t\n",
        "left out: 1 annotation of several points (only as GeoJSON), 1 line, 1 tile of an image",
    ),
    "QuPath, an unknown number of points": (
        "a.tsv",
        "ROI\tCentroid X px\tCentroid Y px\n"
        + "".join(f"Ellipse\t{c + 0.5}\t{r + 0.5}\n" for r, c in MIDDLES)
        + "Points\t40\t30\nPoints\t41\t9\n",
        "left out: 2 annotations of several points (only as GeoJSON)",
    ),
    "measurements of this project": (
        "a.csv",
        "id,x,y,area,eccentricity\n" + "".join(f"1,{c}.5,{r}.5,9,0\n" for r, c in MIDDLES),
        "",
    ),
    "this project's outlines": ("a_nuclei.geojson", geojson(*NUCLEI), ""),
    "a flat stack": ("a.csv", "z,y,x\n" + "".join(f"0,{r}.5,{c}.5\n" for r, c in MIDDLES), ""),
    "an empty column z": ("a.csv", TABLE.replace("\n", ",\n").replace("y,", "y,z"), ""),
    "quotes": ("a.csv", 'n,x,y\n"a ""b"", c",14.5,13.5\n5",33,15\n"",55,44\n', ""),
    "COCO, boxes with empty polygons": (
        "a.json",
        coco(*[{"segmentation": [[]], "bbox": list(box)} for box in BOXES]),
        "",
    ),
    "Cell Counter, its own name": ("CellCounter_a.xml", markers(MIDDLES), ""),
    "CVAT, a turned box": (
        "a.xml",
        cvat(
            '<points label="n" points="14.5,13.5;33.5,15.5"/>',
            '<box label="n" rotation="30" xtl="50.5" ytl="40.5" xbr="60.5" ybr="48.5"/>',
        ),
        "1 of them is the middle of an outline or box",
    ),
    "an outline whose middle lies outside": (
        "a.geojson",
        geojson(*NUCLEI, feature(corners((-9, 5, 11, 9)))),
        "left out: 1 object (middle outside of the image)",
    ),
    "twice the same": (
        "a.geojson",
        geojson(*NUCLEI, NUCLEI[1]),
        "left out: 1 point (in the pixel of another)",
    ),
    "napari": ("a.csv", napari(2), ""),
    "napari, a stack": ("a.csv", napari(3), ""),
    "napari, five axes": ("a.csv", napari(5), ""),
    "napari, columns in another order": (
        "a.csv",
        "axis-1,axis-0\n14,13\n33,15\n55,44\n",
        "",
    ),
    "Cell Counter": ("a.xml", markers(MIDDLES[:2], MIDDLES[2:]), ""),
    "COCO boxes": (
        "a.json",
        coco(*[{"segmentation": [], "bbox": list(box)} for box in BOXES]),
        "",
    ),
    "COCO, boxes and an outline": (
        "a.json",
        coco(*[{"bbox": list(box)} for box in BOXES[:2]], polygons(BOXES[2])),
        "",
    ),
    "labelme": (
        "a.json",
        labelme(
            shape("point", [[14.5, 13.5]]),
            shape("rectangle", [[36, 18], [30, 12]]),
            shape("circle", [[55.5, 44.5], [58.5, 44.5]]),
        ),
        "2 of them are the middles of outlines or boxes",
    ),
    "VIA": (
        "a.json",
        via(
            {"name": "point", "cx": 14.5, "cy": 13.5},
            {"name": "rect", "x": 30, "y": 12, "width": 6, "height": 6},
            {"name": "ellipse", "cx": 55.5, "cy": 44.5, "rx": 5, "ry": 3},
            {"name": "polyline", "all_points_x": [1, 2], "all_points_y": [1, 2]},
        ),
        "left out: 1 region of type polyline; 2 of them are the middles of outlines or boxes",
    ),
    "ASAP": (
        "a.xml",
        asap(("Dot", "None", [[14.5, 13.5]]), ("PointSet", "n", [[33.5, 15.5], [55.5, 44.5]])),
        "",
    ),
    "CVAT": (
        "a.xml",
        cvat(
            '<points label="n" points="14.5,13.5;33.5,15.5"/>',
            '<ellipse label="n" cx="55.5" cy="44.5" rx="5" ry="3"/>',
        ),
        "1 of them is the middle of an outline or box",
    ),
    "a region around points": (
        "a.geojson",
        geojson(
            feature(PART, "annotation"),
            {"type": "MultiPoint", "coordinates": [[14.5, 13.5], [33.5, 15.5], [55.5, 44.5]]},
        ),
        "left out: 1 region (annotation that holds 3 others)",
    ),
}


@pytest.mark.parametrize("what", POINTS)
def test_points_of_every_tool(data, capsys, what):
    name, content, told = POINTS[what]
    place(data / "from", name, content)
    import_labels("points", data, data / "from")
    ending = f"; {told}\n" if told else "\n"
    assert capsys.readouterr().out == f"a: 3 points from {name}{ending}"
    expected = [tuple(p) for p in MIDDLES]
    assert np.abs(np.array(places(data)) - expected).max() <= (1 if "boxes" in what else 0)


@pytest.mark.parametrize("kind", ["masks", "points"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.geojson", geojson()),
        ("a.geojson", []),
        ("a.json", coco()),
        ("a.json", labelme()),
        ("a.json", via()),
        ("a.json", {"nuc": {}}),
        ("a.xml", aperio()),
        ("a.xml", asap()),
        ("a.xml", cvat()),
        ("a.xml", markers()),
        ("a.csv", "x,y\n"),
    ],
)
def test_a_file_without_objects_is_a_tile_without_nuclei(data, capsys, kind, name, content):
    place(data / "from", name, content)
    import_labels(kind, data, data / "from")
    assert f"a: 0 {'nuclei' if kind == 'masks' else 'points'}" in capsys.readouterr().out
    assert (areas if kind == "masks" else places)(data) == []


def as_bytes(save):
    buffer = io.BytesIO()
    save(buffer)
    return buffer.getvalue()


def tiff(array, **more):
    return as_bytes(lambda file: tifffile.imwrite(file, array, **more))


def picture(array, suffix, palette=None, **more):
    image = Image.fromarray(array)
    if palette is not None:
        image = Image.fromarray(array.astype(np.uint8), "P")
        image.putpalette(palette)
    return as_bytes(lambda file: image.save(file, format=suffix, **more))


def mat(array):
    return as_bytes(lambda file: scipy.io.savemat(file, {"inst_map": array}))


def npy(array):
    return as_bytes(lambda file: np.save(file, array))


MAP = instances()
SMALL = MAP.astype(np.uint8)
COLOURS = [0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255]
SAME_GREYS = [0, 0, 0, 90, 90, 90, 90, 90, 90, 200, 200, 200]
MAPS = {
    "npy": ("a.npy", npy(MAP)),
    "npy of floats": ("a.npy", npy(MAP.astype(float))),
    "mat": ("a.mat", mat(MAP.astype(float))),
    "TIFF of 16 bits": ("a.tif", tiff(MAP)),
    "TIFF in big-endian order": ("a.tif", tiff(MAP.astype(">u2"), byteorder=">")),
    "TIFF of floats": ("a.tif", tiff(MAP.astype(np.float32))),
    "TIFF, MINISWHITE": ("a.tif", tiff(SMALL, photometric="miniswhite")),
    "TIFF of ImageJ": ("a.tif", tiff(MAP, imagej=True)),
    "TIFF of 64 bits": ("a.tif", tiff(MAP.astype(np.int64))),
    "TIFF with a palette": (
        "a.tif",
        tiff(
            SMALL,
            photometric="palette",
            colormap=np.random.default_rng(0).integers(0, 65535, (3, 256), np.uint16),
        ),
    ),
    "PNG with a palette": ("a.png", picture(MAP, "PNG", COLOURS)),
    "PNG with equal greys": ("a.png", picture(MAP, "PNG", SAME_GREYS)),
    "PNG of three equal channels": ("a.png", picture(np.stack([SMALL] * 3, 2), "PNG")),
    "Cellpose": ("a_cp_masks.png", picture(SMALL, "PNG")),
    "Cellpose, TIFF": ("a_masks.TIF", tiff(MAP)),
    "QuPath": ("a_mask.png", picture(SMALL, "PNG")),
    "with the image's suffix": ("a.png_labels.tif", tiff(MAP)),
}


@pytest.mark.parametrize("what", MAPS)
def test_maps_keep_the_ids_that_are_stored(data, capsys, what):
    name, content = MAPS[what]
    place(data / "from", name, content)
    import_labels("masks", data, data / "from")
    assert capsys.readouterr().out == f"a: 3 nuclei from {name}\n"
    assert (read_label(data / "labels_instance" / "a_label.tif", SHAPE) == MAP).all()


def test_one_mask_for_each_nucleus(data, capsys):
    """The layout of the Data Science Bowl 2018."""
    for k in (1, 2, 3):
        write_png(data / "from/a/masks" / f"{k}.png", (MAP == k).astype(np.uint8) * 255)
    write_png(data / "from/a/images/a.png", SMALL)
    import_labels("masks", data, data / "from")
    import_labels("points", data, data / "from")
    assert "a: 3 nuclei from a/masks\n" in capsys.readouterr().out
    assert areas(data) == AREAS and places(data) == MIDDLES


CLASSES = np.where(instances([*BOXES, (70, 5, 6, 6), (5, 50, 6, 6)]) > 0, 1, 0)
CLASSES[:20, 25:] *= 2
CROWDED = instances([(2, 2, 30, 50), (40, 5, 30, 20)])
CROWDED[CROWDED == 0] = 9
LEVELS = np.hypot(*(np.mgrid[: SHAPE[0], : SHAPE[1]] - np.array([[[30]], [[40]]])))
FEW_LEVELS = np.random.default_rng(0).integers(1, 5, SHAPE) * (np.indices(SHAPE) % 4 == 0).all(0)
FEW_LEVELS[LEVELS < 12] = 9
SQUARES = (np.indices(SHAPE) % 6 < 4).all(0)  # 140 nuclei
WRAPPED = connected_parts(SQUARES) % 50 * SQUARES  # as if of fewer bits
PICTURE = "it looks like a picture, or a map of probabilities or classes"
REFUSED = {
    "a picture": (
        "masks",
        "a.png",
        picture(np.random.default_rng(0).integers(90, 200, SHAPE).astype(np.uint8), "PNG"),
        PICTURE,
    ),
    "probabilities": ("masks", "a.tif", tiff(((50 - LEVELS) * 1310).astype(np.uint16)), PICTURE),
    "a few levels": ("masks", "a.npy", npy(FEW_LEVELS), PICTURE),
    "ids of too few bits": ("masks", "a.npy", npy(WRAPPED), f"{PICTURE} (138 components share 49"),
    "bool": ("masks", "a.npy", npy(MAP > 0), "a binary mask (3 components share the value 1)"),
    "0, 1 in .mat": ("masks", "a.mat", mat((MAP > 0) * 1.0), "a binary mask (3 components"),
    "0, 255": ("masks", "a.png", picture((SMALL > 0) * np.uint8(255), "PNG"), "a binary mask"),
    "classes": ("masks", "a.npy", npy(CLASSES), "a map of classes (5 components share the values"),
    "JPEG": ("masks", "a.jpg", picture(SMALL, "JPEG"), "JPEG may change values"),
    "JPEG called PNG": ("masks", "a.png", picture(SMALL, "JPEG"), "JPEG may change values"),
    "colours": (
        "masks",
        "a.png",
        picture(np.stack([SMALL, SMALL * 2, SMALL], 2), "PNG"),
        "a colour image",
    ),
    "large ids": ("masks", "a.npy", npy(MAP.astype(np.int64) << 31), "from 0 to 2147483647"),
    "no whole numbers": ("masks", "a.npy", npy(MAP * 0.3), "whole numbers"),
    "pages": ("masks", "a.tif", tiff(np.stack([MAP] * 5), photometric="minisblack"), "page 1 of 5"),
    "an orientation": (
        "masks",
        "a.tif",
        tiff(MAP, extratags=[(274, 3, 1, 3, False)]),
        "orientation tag (3)",
    ),
    "another size": ("masks", "a.tif", tiff(MAP.T.copy()), "(it looks rotated)"),
    "background 1": ("masks", "a.tif", tiff(MAP + 1), "id 1 covers 97% of it; the background"),
    "background 9 among many": ("masks", "a.npy", npy(CROWDED), "id 9 covers 56% of it"),
    "inverted masks": (
        "points",
        "a/masks/1.png",
        picture((MAP != 1) * np.uint8(255), "PNG"),
        "1.png: 99% of it is not 0; expected one nucleus",
    ),
    "Cellpose": (
        "masks",
        "a_seg.npy",
        as_bytes(lambda file: np.save(file, {"masks": MAP})),
        "a pickle of Cellpose",
    ),
    "COCO boxes as masks": (
        "masks",
        "a.json",
        coco(polygons(BOXES[0]), *[{"bbox": list(box)} for box in BOXES[1:]]),
        "2 of 3 objects are boxes",
    ),
    "points as masks": ("masks", "a.csv", TABLE, "3 points, no outline in it"),
    "outside": (
        "masks",
        "a.geojson",
        geojson(feature(corners((500, 500, 9, 9)))),
        "1 of 1 objects lie outside of its image of 80 x 60, the first at (500, 500)",
    ),
    "outlines of another scale": (
        "masks",
        "a.geojson",
        geojson(*[feature(corners([4 * side for side in box])) for box in BOXES]),
        "2 of 3 objects lie outside of its image of 80 x 60, the first at (120, 48)",
    ),
    "masks of another place": (
        "points",
        "a.json",
        labelme(shape("mask", [[90, 10], [91, 11]], mask=png_text(np.ones((2, 2), np.uint8)))),
        "1 of 1 objects lie outside",
    ),
    "boxes of another scale": (
        "points",
        "a.json",
        coco(polygons(BOXES[0]), {"bbox": [10, 100, 8, 6]}),
        "1 of 2 objects lie outside of its image of 80 x 60, the first at (10, 100)",
    ),
    "nothing but a region": (
        "points",
        "a.geojson",
        geojson(feature(TILE, "annotation")),
        "no point in it; it holds 1 region",
    ),
    "nothing but lines": (
        "points",
        "a.geojson",
        geojson({"type": "LineString", "coordinates": [[1, 1], [9, 9]]}),
        "it holds 1 line",
    ),
    "planes": (
        "points",
        "a.csv",
        "axis-0,axis-1,axis-2\n0,5,5\n1,20,20\n",
        "2 planes of a stack (1, 2)",
    ),
    "COCO of another size": (
        "masks",
        "a.json",
        coco(polygons(BOXES[0]), shape=(600, 800)),
        "drawn on an image of 800 x 600, but it has 80 x 60",
    ),
    "COCO of an image that it lacks": (
        "masks",
        "a.json",
        coco({**polygons(BOXES[0]), "image_id": "3", "id": 7}),
        "the annotation of id 7 is of the image '3', which is none of the file's images",
    ),
    "COCO of another image": ("masks", "a.json", coco(name="b.png"), "of the image b.png"),
    "COCO results": (
        "masks",
        "a.json",
        [{"image_id": 1, **polygons(BOXES[0])}],
        "COCO results without their images",
    ),
    "runs too short": (
        "masks",
        "a.json",
        coco({"segmentation": {"size": list(SHAPE), "counts": [3, 4]}}),
        "runs are not 60 x 80",
    ),
    "a key twice": (
        "masks",
        "a.geojson",
        '{"type": "FeatureCollection", "features": [1], "features": []}',
        "'features' stands there twice",
    ),
    "a unit of microns": (
        "points",
        "a.csv",
        "x,y,unit\n14.5,13.5,micron\n",
        "coordinates in micron",
    ),
    "microns of QuPath": (
        "points",
        "a.tsv",
        "Image\tCentroid X µm\tCentroid Y µm\na.png\t3\t4\n",
        "coordinates in microns; expected pixels",
    ),
    "microns of others": ("points", "a.csv", "x (um),y (um)\n3,4\n", "in microns"),
    "a thousand or a fraction": ("points", "a.tsv", "x\ty\n1,234\t13\n", "line 2 of the table"),
    "other images": (
        "points",
        "a.csv",
        "image,x,y\nb.png,3,4\nc.png,3,4\n",
        "it is of b.png and 1 more; expected a.png",
    ),
    "row names of R": ("points", "a.csv", "x,y\n1,14.5,13.5\n2,33,15\n", "line 2 has more cells"),
    "commas for two things": ("points", "a.csv", "x,y\n10,5,20,5\n", "line 2 has more cells"),
    "columns twice": ("points", "a.csv", "x,y,x,y\n1,2,30,40\n", "the column x stands twice"),
    "boxes in a table": ("points", "a.csv", "class,x,y,width,height\nT,1,2,9,9\n", "boxes, whose"),
    "shares": ("points", "a.csv", "x,y\n0.25,0.5\n0.7,0.1\n", "coordinates from 0 to 1"),
    "shares, from the middle": ("points", "a.csv", "row,col\n0.25,0.5\n0.7,0.1\n", "from 0 to 1"),
    "shares in COCO": (
        "points",
        "a.json",
        coco(*[polygons(np.array(box) / 80) for box in BOXES]),
        "coordinates from 0 to 1; expected pixels",
    ),
    "shares in boxes of COCO": (
        "points",
        "a.json",
        coco(*[{"bbox": (np.array(box) / 80).tolist()} for box in BOXES]),
        "coordinates from 0 to 1",
    ),
    "shares in GeoJSON": (
        "points",
        "a.geojson",
        {"type": "MultiPoint", "coordinates": [[0.2, 0.3], [0.7, 1]]},
        "coordinates from 0 to 1",
    ),
    "shares in labelme": (
        "points",
        "a.json",
        labelme(shape("point", [[0.2, 0.3]]), shape("circle", [[0.5, 0.5], [0.6, 0.5]])),
        "coordinates from 0 to 1",
    ),
    "shares in CVAT": (
        "masks",
        "a.xml",
        cvat(*[cvat_polygon((np.array(box) / 80).tolist()) for box in BOXES]),
        "coordinates from 0 to 1",
    ),
    "a quote that is not closed": (
        "points",
        "a.csv",
        'x,y,note\n10,20,"5 um\n30,40,b\n50,40,c\n',
        "not readable as a table from line 2 on",
    ),
    "corners of boxes": ("points", "a.csv", "x,y,x2,y2\n1,2,9,9\n", "boxes, whose x, y"),
    "corners of boxes, named otherwise": (
        "points",
        "a.csv",
        "x,y,Xmax,Ymax\n1,2,9,9\n",
        "boxes, whose x, y",
    ),
    "vertices in a table": (
        "points",
        "a.csv",
        "nucleus,vertex,x,y\n1,0,10,10\n1,1,20,10\n",
        "vertices of outlines; expected a line for each point",
    ),
    "planes in a column z": (
        "points",
        "a.csv",
        "z,y,x\n0,5,5\n3,20,20\n",
        "2 planes of a stack (1, 4)",
    ),
    "several points of QuPath": (
        "points",
        "a.tsv",
        "ROI\tCentroid X px\tCentroid Y px\tNum points\nPoints\t40\t30\t25\n",
        "no point in it; it holds 1 annotation of several points (only as GeoJSON)",
    ),
    "two layers of napari in one table": (
        "masks",
        "a.csv",
        napari_shapes("polygon") + napari_shapes("polygon").partition("\n")[2],
        "line 14: the shape 0 has the vertex 0 twice",
    ),
    "two shapes of napari with one index": (
        "masks",
        "a.csv",
        napari_shapes("polygon").replace("0,polygon,3", "0,ellipse,3"),
        "shapes of two types have the index 0",
    ),
    "COCO, an odd polygon": (
        "masks",
        "a.json",
        coco(polygons(BOXES[0]), {"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}),
        "annotation 1 of a.png: a polygon of 7 numbers",
    ),
    "COCO, a vertex that is none": (
        "masks",
        "a.json",
        coco(polygons(BOXES[0]), {"segmentation": [[1, 2, 3, 4, 5, "x"]]}),
        "annotation 1 of a.png: an outline has a vertex",
    ),
    "VIA, a region without a shape": (
        "masks",
        "a.json",
        via(via_polygon(BOXES[0]), {"name": "circle", "cx": 5}),
        "region 2 of a.png: not readable as VIA's JSON (KeyError: 'r')",
    ),
    "CVAT, a mask without runs": (
        "masks",
        "a.xml",
        cvat(cvat_polygon(BOXES[0]), '<mask label="n" left="1" top="1" width="4" height="4"/>'),
        "mask 2 of a.png: without rle",
    ),
    "two places": (
        "points",
        "a.csv",
        "row,col,x,y\n13,14,14,13\n20,10,99,98\n",
        "line 3: x, y and",
    ),
    "microns beside pixels": (
        "points",
        "a.csv",
        "x,y,x_px,y_px\n3.5,3.25,14,13\n",
        "line 2: x, y and x_px, y_px are of two places",
    ),
    "microns beside pixels of QuPath": (
        "points",
        "a.tsv",
        "X\tY\tCentroid X px\tCentroid Y px\n14\t13\t14\t13\n20\t10\t40\t20\n",
        "line 3: x, y and centroid x px, centroid y px are of two places",
    ),
    "axes of napari beside others": (
        "points",
        "a.csv",
        "axis-0,axis-1,x,y\n13,14,13.5,14.5\n20,70,20.5,70.5\n",
        "line 3: axis-1, axis-0 and x, y are of two places",
    ),
    "x and y swapped": ("points", "a.csv", "x,y\n13,14\n40,70\n", "are x and y swapped?"),
    "a point outside": ("points", "a.csv", "x,y\n13,14\n4,700\n", "1 of 2 points lie outside"),
    "UTF-16 without a mark": ("points", "a.csv", TABLE.encode("utf-16-le"), "UTF-16"),
    "a table of VIA": ("masks", "a.csv", "#filename,region_shape_attributes\na.png,{}\n", "VIA"),
    "two texts in one archive": (
        "masks",
        "a.zip",
        packed({"a.geojson": "{}", "b.geojson": "{}"}),
        "2 text files in it",
    ),
    "a packed file cut off": (
        "masks",
        "a.geojson.gz",
        gzip.compress(json.dumps(geojson(*NUCLEI)).encode())[:60],
        "not a readable text file",
    ),
    "unread masks": ("masks", "a/masks/1.gif", b"GIF", "no image; expected one mask"),
    "unknown JSON": ("masks", "a.json", {"cells": []}, "unknown kind (keys: cells)"),
    "Pascal VOC": ("points", "a.xml", "<annotation><object/></annotation>", "Pascal VOC"),
    "ROIs that are none": ("points", "a.roi", b"nothing", "a.roi"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_is_named_in_one_line(data, what):
    kind, name, content, message = REFUSED[what]
    path = place(data / "from", name, content)
    with pytest.raises(InputError) as error:
        import_labels(kind, data, data / "from")
    assert message in str(error.value) and str(path) in str(error.value)
    assert "\n" not in str(error.value) and not list(data.glob("labels_*/*"))


def test_a_negative_region_is_cut_out(data):
    outer, hole = corners((10, 10, 20, 20)), corners((15, 15, 5, 5))
    place(data / "from", "a.xml", aperio(region(hole, NegativeROA=1), region(outer, Type=0)))
    import_labels("masks", data, data / "from")
    assert areas(data) == [400 - 25]


def test_a_middle_on_an_edge_belongs_to_one_side(data):
    """Right and lower edges count: nuclei side by side share no pixel, and none is left over."""
    boxes = [(10.5, 10.5, 8, 6), (18.5, 10.5, 4, 6), (10.5, 16.5, 12, 3)]
    place(data / "from", "a.geojson", geojson(*[feature(corners(box)) for box in boxes]))
    import_labels("masks", data, data / "from")
    assert areas(data) == [48, 24, 36]
    triangles = [[[30, 30], [40, 30], [40, 40]], [[30, 30], [40, 40], [30, 40]]]
    sizes = [len(outline_pixels([[np.array(t, float)]], SHAPE)) for t in triangles]
    assert sum(sizes) == 100


APART = [(10, 10, 8, 6), (50, 40, 10, 8)]
IN_PIECES = {
    "QuPath": (
        "a.geojson",
        geojson(
            feature(corners(BOXES[1])),
            {"type": "MultiPolygon", "coordinates": [[corners(box)] for box in APART]},
        ),
    ),
    "COCO": ("a.json", coco(polygons(BOXES[1]), polygons(*APART))),
    "COCO, runs": (
        "a.json",
        coco(polygons(BOXES[1]), run_lengths(instances(APART) > 0)),
    ),
}


@pytest.mark.parametrize("what", IN_PIECES)
def test_nuclei_in_several_pieces_are_counted(data, capsys, what):
    """As it is for maps: one outline or mask may be all nuclei of a tile."""
    place(data / "from", *IN_PIECES[what])
    name = IN_PIECES[what][0]
    import_labels("masks", data, data / "from")
    assert capsys.readouterr().out == f"a: 2 nuclei from {name}; 1 lies in several pieces\n"
    import_labels("points", data, data / "from")
    assert capsys.readouterr().out == f"a: 2 points from {name}; 1 lies in several pieces\n"


def test_a_single_point_may_lie_in_the_first_pixel(data):
    place(data / "from", "a.csv", "x,y\n0.5,0.5\n")
    import_labels("points", data, data / "from")
    assert places(data) == [(0, 0)]


def two_images(name):
    """Annotations of a.png and b.png in a file of several images."""
    if name.endswith(".xml"):
        other = f'<image id="1" name="b.png">{cvat_polygon(BOXES[1])}</image></annotations>'
        return cvat(cvat_polygon(BOXES[0])).replace("</annotations>", other)
    content = coco(polygons(BOXES[0]), {**polygons(BOXES[1]), "image_id": 4})
    content["images"] += [{"id": 4, "file_name": "b.png"}, {"id": 5, "file_name": "c.png"}]
    return content


@pytest.mark.parametrize("name", ["a.json", "a.xml"])
def test_other_images_in_the_file_of_one_are_named(data, capsys, name):
    write_png(data / "images" / "b.png", np.zeros((*SHAPE, 3), np.uint8))
    path = place(data / "from", name, two_images(name))
    for source in (path, data / "from"):
        import_labels("masks", data, source, "--overwrite")
        first = capsys.readouterr().out.splitlines()[0]
        assert first == f"a: 1 nucleus from {name}; not read, of other images: 1 (b.png)"


def test_an_empty_file_beside_a_full_map_is_not_taken(data):
    """The label would say that the image has no nuclei."""
    place(data / "from", "a.geojson", geojson())
    place(data / "from", "a_mask.tif", tiff(MAP))
    with pytest.raises(InputError, match="a.geojson and a_mask.tif hold different nuclei"):
        import_labels("masks", data, data / "from")
    assert not list(data.glob("labels_*/*"))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            '<mask label="n" rle="3, 4, 9" left="9" top="9" width="4" height="3"/>',
            "runs are not 4 x 3",
        ),
        ('<polygon label="n" points="1,1;2,2e999;3,1"/>', "far away"),
        ('<ellipse label="n" cx="9" cy="9" rx="-4" ry="4"/>', "a radius of -4"),
    ],
)
def test_a_wrong_shape_of_one_image_does_not_stop_the_others(data, capsys, wrong, said):
    """A part of an outline was noted before it was read, and the file ended in an IndexError."""
    write_png(data / "images" / "b.png", np.zeros((*SHAPE, 3), np.uint8))
    other = f'<image id="1" name="b.png">{wrong}</image></annotations>'
    content = cvat(cvat_polygon(BOXES[0])).replace("</annotations>", other)
    with pytest.raises(InputError, match=said) as error:
        import_labels("masks", data, place(data, "all.xml", content))
    assert "b.png" in str(error.value) and "\n" not in str(error.value)
    assert "a: 1 nucleus from all.xml" in capsys.readouterr().out


def test_shares_in_a_file_of_all_images_name_the_image(data):
    write_png(data / "images" / "c.png", np.zeros((*SHAPE, 3), np.uint8))
    content = two_images("all.json")
    content["annotations"] += [{"image_id": 5, **polygons(np.array(b) / 80)} for b in BOXES]
    with pytest.raises(InputError, match="all.json, c.png: coordinates from 0 to 1"):
        import_labels("masks", data, place(data, "all.json", content))


def test_a_plain_map_that_is_passed_over_is_named(data, capsys):
    """It may be the image, but the image has another name."""
    place(data / "from", "a.csv", TABLE)
    write_instances(data / "from" / "a.tif", MAP)
    write_png(data / "from" / "a.png", np.zeros((*SHAPE, 3), np.uint8))
    with pytest.raises(InputError, match="a.csv: 3 points, no outline in it"):
        import_labels("masks", data, data / "from")
    said = "not read, beside other files of their image: 1 (a.tif)\n"
    assert capsys.readouterr().out == said


def test_a_map_of_this_project_is_taken_before_its_outlines(data, capsys):
    write_instances(data / "from" / "a_instances.tif", MAP)
    place(data / "from", "a_nuclei.geojson", geojson(*NUCLEI))
    import_labels("masks", data, data / "from")
    assert "a: 3 nuclei from a_instances.tif\n" in capsys.readouterr().out


TABLE_OF_DETECTIONS = "row,col\n" + "".join(f"{row},{col}\n" for row, col in MIDDLES)
DETECTIONS = [
    {"type": "Feature", "geometry": {"type": "Point", "coordinates": [col + 0.52, row + 0.48]}}
    for row, col in MIDDLES
]
MOVED = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [70, 20]}}
TWINS = {  # kind, what is taken, the other file, what was changed in it
    "detections, one more": (
        "points",
        ("a_points.csv", TABLE_OF_DETECTIONS),
        ("a_points.geojson", geojson(*DETECTIONS)),
        geojson(*DETECTIONS, MOVED),
    ),
    "detections, one moved": (
        "points",
        ("a_points.csv", TABLE_OF_DETECTIONS),
        ("a_points.geojson", geojson(*DETECTIONS)),
        geojson(*DETECTIONS[:2], MOVED),
    ),
    "detections, none": (
        "points",
        ("a_points.csv", TABLE_OF_DETECTIONS),
        ("a_points.geojson", geojson(*DETECTIONS)),
        geojson(),
    ),
    "nuclei": (
        "masks",
        ("a_instances.tif", tiff(MAP)),
        ("a_nuclei.geojson", geojson(*NUCLEI)),
        geojson(*NUCLEI[:2]),
    ),
    "a map of other outlines": (
        "masks",
        ("a.xml", aperio(*APERIO)),
        ("a_mask.tif", tiff(MAP)),
        tiff(MAP * (MAP < 3)),
    ),
    "a map without the region": (
        "masks",
        ("a.geojson", geojson(feature(TILE, "annotation"), *NUCLEI)),
        ("a_mask.tif", tiff(MAP)),
        tiff(MAP * (MAP < 3)),
    ),
    "nuclei, none": (
        "masks",
        ("a_instances.tif", tiff(MAP)),
        ("a_nuclei.geojson", geojson(*NUCLEI)),
        geojson(),
    ),
    "as many nuclei elsewhere": (
        "masks",
        ("a.geojson", geojson(*NUCLEI)),
        ("a_mask.tif", tiff(MAP)),
        tiff(np.roll(MAP, 8, 1)),
    ),
}


@pytest.mark.parametrize("what", TWINS)
def test_a_file_that_is_passed_over_holds_the_same(data, capsys, what):
    """It may be the one that the user has corrected."""
    kind, first, (name, content), corrected = TWINS[what]
    place(data / "from", *first)
    place(data / "from", name, content)
    import_labels(kind, data, data / "from")
    assert f"beside other files of their image: 1 ({name})\n" in capsys.readouterr().out
    place(data / "from", name, corrected)
    import_labels(kind, data, data / "from")  # the label that is there is kept
    assert "kept" in capsys.readouterr().out
    write_png(data / "images" / "b.png", np.zeros((*SHAPE, 3), np.uint8))
    place(data / "from", f"b{Path(first[0]).suffix}", first[1])
    with pytest.raises(InputError) as error:
        import_labels(kind, data, data / "from", "--overwrite")
    assert f"{first[0]} and {name} hold different nuclei of one image; keep" in str(error.value)
    assert str(error.value).endswith("of earlier stays") and "\n" not in str(error.value)
    assert "b: 3 " in capsys.readouterr().out


def test_points_come_before_a_map_that_holds_none(data, capsys):
    place(data / "from", "a_instances.tif", tiff(MAP))
    place(data / "from", "a_nuclei.geojson", geojson(*NUCLEI))
    place(data / "from", "a_nuclei.csv", TABLE)
    import_labels("points", data, data / "from")
    assert capsys.readouterr().out.splitlines() == [
        "a: 3 points from a_nuclei.geojson",
        "not read, beside other files of their image: 2 (a_instances.tif, a_nuclei.csv)",
    ]
    for path in (data / "from").glob("a_nuclei*"):
        path.unlink()
    with pytest.raises(InputError, match="a_instances.tif: expected a table, GeoJSON or XML"):
        import_labels("points", data, data / "from", "--overwrite")


@pytest.mark.parametrize("copied", [False, True])
def test_annotations_beside_the_images(data, capsys, copied):
    """As labelme writes them. An image without any is not its own annotation."""
    write_png(data / "images" / "b.png", np.full((*SHAPE, 3), 9, np.uint8))
    source = data / "images"
    if copied:
        source = shutil.copytree(source, data / "from")
    place(source, "a.json", labelme(*[shape("polygon", corners(box)) for box in BOXES]))
    import_labels("masks", data, source)
    assert capsys.readouterr().out.splitlines() == [
        "a: 3 nuclei from a.json",
        f"b: nothing in {source}",
    ]


@pytest.mark.parametrize("more", [(), ("--overwrite",)])
def test_a_label_that_cannot_be_written_does_not_stop_the_others(data, capsys, more):
    """A folder in its place, and a name that is too long."""
    long = "L" * 245
    for name in ("b", long):
        write_png(data / "images" / f"{name}.png", np.zeros((*SHAPE, 3), np.uint8))
    for name in ("a", "b", long):
        place(data / "from", f"{name}.csv", TABLE)
    (data / "labels_point" / "a_label_point.png").mkdir(parents=True)
    with pytest.raises(InputError) as error:
        import_labels("points", data, data / "from", *more)
    long_name, folder = sorted(str(error.value).split("\nerror: "))
    assert "LLL" in long_name and "name too long" in long_name
    assert "a_label_point.png: no file; expected a label" in folder
    assert places(data, "b") == MIDDLES and "b: 3 points from b.csv" in capsys.readouterr().out


def test_a_full_disk_stops_the_import(data, monkeypatch):
    """Unlike what is wrong with one label."""
    place(data / "from", "a.csv", TABLE)
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr("data.import_labels.write_png", lambda *_: (_ for _ in ()).throw(full))
    with pytest.raises(OSError, match="No space left"):
        import_labels("points", data, data / "from")


@pytest.mark.parametrize("what", ["ImageScope", "napari", "VIA", "CVAT"])
def test_ellipses(data, what):
    """Radii 12 and 9: the area of the ellipse, and its middle."""
    content = {
        "ImageScope": ("a.xml", aperio(region([[20, 20], [44, 38]], Type=2))),
        "napari": (
            "a.csv",
            "index,shape-type,vertex-index,axis-0,axis-1\n"
            "0,ellipse,0,19.5,19.5\n0,ellipse,1,19.5,43.5\n"
            "0,ellipse,2,37.5,43.5\n0,ellipse,3,37.5,19.5\n",
        ),
        "VIA": ("a.json", via({"name": "ellipse", "cx": 32, "cy": 29, "rx": 12, "ry": 9})),
        "CVAT": (
            "a.xml",
            cvat('<ellipse label="n" cx="32" cy="29" rx="9" ry="12" rotation="90"/>'),
        ),
    }[what]
    place(data / "from", *content)
    import_labels("masks", data, data / "from")
    assert areas(data)[0] == pytest.approx(np.pi * 12 * 9, rel=0.02)
    import_labels("points", data, data / "from")
    ((row, col),) = places(data)
    assert row in (28, 29) and col in (31, 32)


PARTS = (10, 10, 20, 10), (20, 10, 20, 10)
PART_MASKS = [
    shape("mask", two_corners(p), mask=png_text(np.ones((10, 20), np.uint8)), group_id=1)
    for p in PARTS
]
CVAT_MASKS = [
    f'<mask label="n" group_id="7" rle="0, 200" left="{x}" top="{y}" width="{w}" height="{h}"/>'
    for x, y, w, h in PARTS
]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", coco(polygons(*PARTS))),
        ("a.json", labelme(*[shape("polygon", corners(p), group_id=1) for p in PARTS])),
        ("a.json", labelme(*PART_MASKS)),
        ("a.xml", cvat(*[cvat_polygon(p).replace("/>", ' group_id="7"/>') for p in PARTS])),
        ("a.xml", cvat(*CVAT_MASKS)),
    ],
)
def test_parts_of_a_nucleus_are_joined(data, capsys, name, content):
    """Two parts of 200 pixels with 100 in common: no hole where they overlap."""
    place(data / "from", name, content)
    import_labels("masks", data, data / "from")
    assert areas(data) == [300]
    said = "" if "images" in content else "; 2 shapes that share a group_id are 1 nucleus"
    assert capsys.readouterr().out == f"a: 1 nucleus from {name}{said}\n"


@pytest.mark.parametrize("more", ["", ' group_id="0"', ' group_id="{}"'])
def test_shapes_of_cvat_are_joined_only_in_one_group_of_one_label(data, more):
    shapes = [
        cvat_polygon(box)
        .replace("/>", more.format(5) + "/>")
        .replace("nucleus", f"n{k}" * ("{" in more))
        for k, box in enumerate(BOXES)
    ]
    place(data / "from", "a.xml", cvat(*shapes))
    import_labels("masks", data, data / "from")
    assert areas(data) == AREAS


BENT = [[20, 20], [40, 20], [40, 24], [24, 24], [24, 36], [40, 36], [40, 40], [20, 40]]
BENT_MAP = np.zeros(SHAPE, np.uint8)
BENT_MAP[20:40, 20:24] = BENT_MAP[20:24, 20:40] = BENT_MAP[36:40, 20:40] = 1
BENT_FILES = {
    "an outline": ("a.geojson", geojson(feature(BENT))),
    "a nucleus with a hole": (
        "a.geojson",
        {"type": "Polygon", "coordinates": [corners((20, 20, 20, 20)), corners((24, 24, 12, 12))]},
    ),
    "runs of COCO": ("a.json", coco(run_lengths(BENT_MAP))),
    "an image": ("a/masks/1.png", picture(BENT_MAP, "PNG")),
}


@pytest.mark.parametrize("what", BENT_FILES)
def test_the_point_of_a_bent_nucleus_lies_on_it(data, what):
    """The centre lies beside it: the nearest of its pixels is taken."""
    place(data / "from", *BENT_FILES[what])
    import_labels("points", data, data / "from")
    ((row, col),) = places(data)
    assert BENT_MAP[row, col] or what == "a nucleus with a hole"
    assert col in (23, 36) or row in (23, 36)


def test_shapes_of_one_group_are_counted(data, capsys):
    shapes = [shape("polygon", corners(box), group_id=0) for box in BOXES]
    place(data / "from", "a.json", labelme(*shapes))
    import_labels("masks", data, data / "from")
    said = "3 shapes that share a group_id are 1 nucleus; 1 lies in several pieces"
    assert capsys.readouterr().out == f"a: 1 nucleus from a.json; {said}\n"


@pytest.mark.parametrize(
    ("named", "note"),
    [("..\\b.png", "; drawn on b.png, as the file says"), ("in/a.jpg", ""), ("a.ome.tif", "")],
)
@pytest.mark.parametrize(
    "tool", ["labelme", "Cell Counter", "table", "table without suffixes", "table of slides"]
)
def test_a_file_that_names_another_image_is_told(data, capsys, tool, named, note):
    name, content = "a.json", {**labelme(shape("point", [[5, 5]])), "imagePath": named}
    if tool == "Cell Counter":
        properties = (
            f"<Image_Properties><Image_Filename>{named}</Image_Filename></Image_Properties>"
        )
        name, content = "a.xml", markers([(5, 5)]).replace("<Marker_Data>", properties, 1)
        content = content.replace("</Image_Properties>", "</Image_Properties><Marker_Data>")
    elif tool == "table":
        name, content = "a.csv", f"path,x,y\n{named.replace('..', 'in')},5,5\n"
    elif tool == "table without suffixes":
        name, content = "a.csv", f"image,x,y\n{named.rpartition('.')[0]},5,5\n"
        note = note.replace("b.png", "b")
    elif tool == "table of slides":
        name, content = "a.csv", f"slide,x,y\n{named}.ndpi,5,5\n"
        note = note.replace("b.png", "b.png.ndpi")
    place(data / "from", name, content)
    import_labels("points", data, data / "from")
    assert capsys.readouterr().out == f"a: 1 point from {name}{note}\n"


def test_the_slide_that_a_tile_is_from_is_no_other_image(data, capsys):
    place(data / "from", "a.csv", "image,slide,x,y\na.png,case7.svs,5,5\n")
    import_labels("points", data, data / "from")
    assert capsys.readouterr().out == "a: 1 point from a.csv\n"


@pytest.mark.parametrize("first", ["#1", "#a", "#fff"])
def test_an_id_that_begins_with_a_number_sign_is_no_note(data, first):
    place(data / "from", "a.csv", f"name,x,y\n{first},10,20\n2,40,50\n")
    import_labels("points", data, data / "from")
    assert places(data) == [(20, 10), (50, 40)]


def test_notes_below_the_header_are_counted(data, capsys):
    """In the table of one image and of all; a coordinate in the first column is no id."""
    place(data / "from", "a.csv", "x,y\n10,20\n#40,50\n# end\n")
    place(data, "all.csv", "image,x,y\na,10,20\n# of two,,\n# end, of, the, table\n")
    import_labels("points", data, data / "from")
    import_labels("points", data, data / "all.csv", "--overwrite")
    assert places(data) == [(20, 10)]
    assert capsys.readouterr().out.splitlines() == [
        "a: 1 point from a.csv; not read: 2 lines that begin with #",
        "a: 1 point from all.csv; not read: 2 lines that begin with #",
    ]


def test_a_source_or_a_data_set_that_is_not_there(data):
    with pytest.raises(InputError, match="nope: no such file or folder$"):
        import_labels("masks", data, data / "nope")
    with pytest.raises(InputError, match="images: no such folder$"):
        import_labels("masks", data / "nope", data)


def test_classes_choose(data, capsys):
    named = zip(BOXES, ("Tumor", "Tumor: Positive", "Stroma"), strict=True)
    content = geojson(*[feature(corners(box), name=name) for box, name in named])
    place(data / "from", "a.geojson", content)
    import_labels("masks", data, data / "from", "--classes", "tumor")
    assert "a: 2 nuclei from a.geojson; left out: 1 object of class Stroma\n" in (
        capsys.readouterr().out
    )
    with pytest.raises(InputError, match="has: Stroma, Tumor, Tumor: Positive$"):
        import_labels("points", data, data / "from", "--classes", "Tumor", "Lymphocyte")
    assert not list(data.glob("labels_point/*"))


def test_one_wrong_file_does_not_stop_the_others(run_script, tmp_path):
    for name in "abcd":
        write_png(tmp_path / "images" / f"{name}.png", np.zeros((*SHAPE, 3), np.uint8))
    place(tmp_path / "from", "a.geojson", "{")
    place(tmp_path / "from", "b.geojson", geojson(*NUCLEI))
    place(tmp_path / "from", "c.csv", TABLE)
    place(tmp_path / "from", "d.geojson", geojson(NUCLEI[0]))
    place(tmp_path / "from", "e.geojson", geojson(NUCLEI[0]))
    place(tmp_path / "images", "e.webp", "not read")
    arguments = ("masks", "--data-dir", tmp_path, "--source", tmp_path / "from")
    done = run_script("data/import_labels.py", *arguments, code=2)
    lines = done.stdout.splitlines()
    assert lines == [
        "b: 3 nuclei from b.geojson",
        "d: 1 nucleus from d.geojson",
        "of no image: 1 (e.geojson)",
        "images of a kind that is not read: 1 (e.webp); save them as PNG",
    ]
    errors = done.stderr.splitlines()
    assert len(errors) == 2 and all(line.startswith("error: ") for line in errors)
    assert "a.geojson" in errors[0] and "c.csv" in errors[1]


@pytest.mark.parametrize(
    ("image", "source"),
    [
        ("T1.ome.tif", "T1.geojson"),
        ("T1.ome.tif", "T1.ome.tif.geojson"),
        ("T1.ome.tif", "T1.ome.geojson"),
        ("T1.png", "T1.png.geojson"),
        ("T1.PNG", "T1.GeoJSON"),
        ("T1.png", "T1_annotations.geojson"),
        (
            unicodedata.normalize("NFC", "Präparat.png"),
            unicodedata.normalize("NFD", "Präparat.xml"),
        ),
        (
            unicodedata.normalize("NFD", "Präparat.png"),
            unicodedata.normalize("NFC", "Präparat.xml"),
        ),
    ],
)
def test_names_are_found(tmp_path, capsys, image, source):
    (tmp_path / "images").mkdir()
    Image.new("RGB", SHAPE[::-1]).save(tmp_path / "images" / image)
    content = aperio(*APERIO) if source.endswith("xml") else geojson(*NUCLEI)
    place(tmp_path / "from", source, content)
    import_labels("masks", tmp_path, tmp_path / "from")
    assert f": 3 nuclei from {source}\n" in capsys.readouterr().out


def test_a_longer_name_is_no_other_tiles_file(tmp_path, capsys):
    """The split says that a_mask.png is a tile of its own; a_mask.geojson is for it alone."""
    for name in ("a", "a_mask"):
        write_png(tmp_path / "images" / f"{name}.png", np.zeros((*SHAPE, 3), np.uint8))
    place(tmp_path, "train_val_test.json", {"train": ["a.png"], "test": ["a_mask.png"]})
    place(tmp_path / "from", "a_mask.geojson", geojson(*NUCLEI))
    import_labels("masks", tmp_path, tmp_path / "from")
    out = capsys.readouterr().out
    assert "a: nothing in" in out and "a_mask: 3 nuclei from a_mask.geojson" in out


def test_masks_beside_the_images_are_told_and_not_imported(data, capsys):
    write_instances(data / "images" / "a_mask.tif", MAP)
    import_labels("masks", data, data / "images")
    assert capsys.readouterr().out.splitlines() == [
        "a: 3 nuclei from a_mask.tif",
        "taken for masks of the images beside them: 1 (a_mask.tif)",
    ]


@pytest.mark.parametrize("name", ["a (1).csv", "a(2).csv", "a_points (1).csv", "a.png (1).csv"])
def test_the_second_download_of_a_browser_is_for_its_image(data, capsys, name):
    """Alone. Beside the first one nobody knows which is right."""
    place(data / "from", name, TABLE)
    import_labels("points", data, data / "from")
    assert capsys.readouterr().out == f"a: 3 points from {name}\n"
    place(data / "from", "a.csv", TABLE)
    with pytest.raises(
        InputError, match=r"a.csv.* are for one image; keep one of them; a_label_point"
    ):
        import_labels("points", data, data / "from", "--overwrite")


def test_a_number_in_the_name_of_an_image_is_no_second_download(data, capsys):
    write_png(data / "images" / "a (1).png", np.zeros((*SHAPE, 3), np.uint8))
    for name in ("a.csv", "a (1).csv"):
        place(data / "from", name, TABLE)
    import_labels("points", data, data / "from")
    printed = capsys.readouterr().out
    assert "a: 3 points from a.csv\n" in printed and "a (1): 3 points from a (1).csv\n" in printed


def test_names_of_json_keep_what_stands_behind_a_dot(data, capsys):
    """The file of all images names a.7, which is another tile than a."""
    write_png(data / "images" / "b.png", np.zeros((*SHAPE, 3), np.uint8))
    content = coco(polygons(BOXES[0]), name="a.7")
    with pytest.raises(InputError, match="nothing in it has the name of an image.*are: a.7"):
        import_labels("masks", data, place(data, "all.json", content))
    with pytest.raises(InputError, match="it is of the image a.7; expected a.png"):
        import_labels("masks", data, place(data / "from", "a.json", content))


def test_maps_of_cellpose_lie_beside_the_image_and_its_pickle(data, capsys):
    write_png(data / "from" / "a.png", np.zeros((*SHAPE, 3), np.uint8))
    write_instances(data / "from" / "a_cp_masks.tif", MAP)
    np.save(data / "from" / "a_seg.npy", {"masks": MAP})
    import_labels("masks", data, data / "from")
    assert "a: 3 nuclei from a_cp_masks.tif" in capsys.readouterr().out


def test_a_map_beside_outlines_is_named(data, capsys):
    place(data / "from", "a.geojson", geojson(*NUCLEI))
    write_instances(data / "from" / "a_mask.tif", MAP)
    import_labels("masks", data, data / "from")
    assert capsys.readouterr().out.splitlines() == [
        "a: 3 nuclei from a.geojson",
        "not read, beside other files of their image: 1 (a_mask.tif)",
    ]


def test_a_region_around_one_nucleus_or_two(data, capsys):
    for nuclei in NUCLEI[:1], NUCLEI[:2]:
        place(data / "from", "a.geojson", geojson(feature(PART, "annotation"), *nuclei))
        import_labels("masks", data, data / "from", "--overwrite")
        assert areas(data) == AREAS[: len(nuclei)]


def test_nothing_found_says_what_was_looked_for_and_what_is_there(data):
    place(data / "from", "tile 7.geojson", geojson(*NUCLEI))
    with pytest.raises(InputError) as error:
        import_labels("masks", data, data / "from")
    assert "looked for a.geojson" in str(error.value)
    assert "there are: tile 7.geojson" in str(error.value)


@pytest.mark.parametrize("name", ["all.json", "all.xml", "via.json", "all.csv"])
def test_one_bad_record_is_an_error_of_its_image_alone(data, capsys, name):
    """Of b.png, while a.png and c.png are imported."""
    for image in "bc":
        write_png(data / "images" / f"{image}.png", np.zeros((*SHAPE, 3), np.uint8))
    if name == "all.json":
        content = two_images(name)
        content["annotations"] += [{"image_id": 4, "segmentation": [[1, 2, 3]]}]
        content["annotations"] += [{**polygons(BOXES[2]), "image_id": 5}]
    elif name == "all.xml":
        content = two_images(name).replace("</image></ann", '<box label="n"/></image></ann')
        other = f'<image id="2" name="c.png">{cvat_polygon(BOXES[1])}</image></annotations>'
        content = content.replace("</annotations>", other)
    elif name == "via.json":
        shapes = via_polygon(BOXES[0]), {"name": "circle"}, via_polygon(BOXES[2])
        content = {
            image: {**via(one)["a.png12"], "filename": f"{image}.png"}
            for image, one in zip("abc", shapes, strict=True)
        }
    else:
        content = "image,x,y\na,14,13\nb,5,none\nc,33,15\n"
    path = place(data, name, content)
    with pytest.raises(InputError) as error:
        import_labels("points", data, path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    printed = capsys.readouterr().out
    assert "a: 1 point " in printed and "c: 1 point " in printed and "b" not in printed[:1]


@pytest.mark.parametrize("name", ["all.json", "all.xml"])
def test_one_file_for_all_images(data, capsys, name):
    write_png(data / "images" / "b.png", np.zeros((*SHAPE, 3), np.uint8))
    if name == "all.json":
        content = coco(*[polygons(box) for box in BOXES])
        content["images"] += [{"id": 4, "file_name": "b.png"}, {"id": 5, "file_name": "c.png"}]
    else:
        content = cvat(*map(cvat_polygon, BOXES))
        more = '<image id="1" name="b.png"/><image id="2" name="c.png"/></annotations>'
        content = content.replace("</annotations>", more)
    path = place(data, name, content)
    import_labels("masks", data, path)
    assert capsys.readouterr().out.splitlines() == [
        f"a: 3 nuclei from {name}",
        f"b: 0 nuclei from {name}",
        "of no image: 1 (c.png)",
    ]
    assert areas(data) == AREAS and areas(data, "b") == []


def test_nested_regions_take_no_time(data):
    depth = 3000
    inner = region(corners(BOXES[0]), Type=0)
    text = "<Region>" * depth + inner + "</Region>" * depth
    place(data / "from", "a.xml", f"<Annotations>{text}</Annotations>")
    import_labels("masks", data, data / "from")
    assert areas(data) == [48]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 1), min_size=1, max_size=400), st.integers(1, 9))
def test_packed_runs_are_those_of_pycocotools(bits, rows):
    mask = pytest.importorskip("pycocotools.mask")
    array = np.zeros((rows, -(-len(bits) // rows)), np.uint8)
    array.ravel()[: len(bits)] = bits
    encoded = mask.encode(np.asfortranarray(array))
    encoded = {"size": list(array.shape), "counts": encoded["counts"].decode()}
    pixels = run_length_pixels("a.json", encoded)
    assert sorted(pixels.tolist()) == np.argwhere(array).tolist()


@pytest.mark.parametrize("counts", ["", "zzzzzzzzzz", "PPPP", "\x00", "0" * 9, "é", "P" * 99])
def test_broken_runs_are_refused(data, counts):
    """Whatever a decoder would make of them."""
    mask = {"segmentation": {"size": list(SHAPE), "counts": counts}}
    place(data / "from", "a.json", coco(mask))
    with pytest.raises(InputError, match="a.json: .*run"):
        import_labels("masks", data, data / "from")


@pytest.mark.parametrize("suffix", [".zip", ".roi"])
def test_rois_of_fiji(data, capsys, suffix):
    roifile = pytest.importorskip("roifile")
    boxes = BOXES if suffix == ".zip" else BOXES[:1]
    rois = [roifile.ImagejRoi.frompoints(np.array(corners(box)), name=str(box)) for box in boxes]
    (data / "from").mkdir()
    roifile.roiwrite(data / "from" / f"a{suffix}", rois if suffix == ".zip" else rois[0])
    import_labels("masks", data, data / "from")
    assert areas(data) == AREAS[: len(boxes)]


@pytest.mark.parametrize("name", ["a_rois.zip", "a.zip"])
def test_rois_of_cellpose_go_through_the_middles_of_pixels(data, name):
    """As its outlines in text do. Those of other tools count from the corner."""
    roifile = pytest.importorskip("roifile")
    files = {}
    for x, y, width, height in BOXES:
        outline = np.array(corners((x, y, width - 1, height - 1)), np.int32)
        roi = roifile.ImagejRoi.frompoints(outline)
        files[f"{roi.name}.roi"] = roi.tobytes()
    place(data / "from", name, packed(files))
    import_labels("masks", data, data / "from")
    assert areas(data) == (AREAS if name == "a_rois.zip" else [35, 25, 63])


def test_rois_without_roifile_name_it(data, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "roifile", None)
    place(data / "from", "a.zip", packed({"1.roi": b"Iout"}))
    with pytest.raises(InputError, match="need roifile"):
        import_labels("points", data, data / "from")


def in_plane(box, z):
    """An outline of QuPath in a plane of a stack, which it counts from 0."""
    outline = feature(corners(box))
    return {**outline, "geometry": {**outline["geometry"], "plane": {"c": -1, "z": z, "t": 0}}}


def roi_stack():
    roifile = pytest.importorskip("roifile")
    rois = [roifile.ImagejRoi.frompoints(np.array(corners(box))) for box in BOXES[:2]]
    rois[0].position, rois[1].position = 1, 2
    return packed({f"{k}.roi": roi.tobytes() for k, roi in enumerate(rois)})


STACKS = {
    "QuPath": ("a.geojson", lambda: geojson(NUCLEI[0], in_plane(BOXES[1], 1))),
    "napari": ("a.csv", lambda: "axis-0,axis-1,axis-2\n0,13,14\n1,15,33\n"),
    "Cell Counter": (
        "a.xml",
        lambda: (
            markers(MIDDLES[:1], MIDDLES[1:2]).replace("Z>1<", "Z>2<", 2).replace("Z>2<", "Z>1<", 1)
        ),
    ),
    "ImageJ": ("a.csv", lambda: " ,X,Y,Slice\n1,14.5,13.5,1\n2,33.5,15.5,2\n"),
    "Fiji": ("a.zip", roi_stack),
}
QUPATH_POINTS = "x\ty\tc\tz\tt\tclass\n14.5\t13.5\t-1\t0\t0\t\n33.5\t15.5\t-1\t1\t0\t\n"


@pytest.mark.parametrize("what", STACKS)
def test_a_plane_of_a_stack_is_asked_for_by_its_number(data, capsys, what):
    name, content = STACKS[what]
    place(data / "from", name, content())
    with pytest.raises(InputError, match=r"2 planes of a stack \(1, 2\).*--plane 1 takes"):
        import_labels("points", data, data / "from")
    import_labels("points", data, data / "from", "--plane", 2)
    assert places(data) == MIDDLES[1:2]
    assert "1 point from" in (printed := capsys.readouterr().out)
    assert "left out: 1 object of plane 1" in printed
    with pytest.raises(InputError, match="it holds 1 object of plane 1, 1 object of plane 2"):
        import_labels("points", data, data / "from", "--plane", 9, "--overwrite")


def test_points_of_qupath_name_z_and_t(data):
    place(data / "from", "a.tsv", QUPATH_POINTS)
    with pytest.raises(InputError, match=r"2 planes of a stack \(1 1, 2 1\)"):
        import_labels("points", data, data / "from")
    import_labels("points", data, data / "from", "--plane", 2, 1)
    assert places(data) == MIDDLES[1:2]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", TABLE),
        ("a.json", coco(*map(polygons, BOXES))),
        ("a_cp_outlines.txt", "10,10,14,10,14,14,10,14\n"),
    ],
)
def test_a_plane_that_no_file_names_is_told(data, capsys, name, content):
    place(data / "from", name, content)
    import_labels("points", data, data / "from", "--plane", 2)
    assert f"from {name}; it names no plane; --plane 2 chose nothing\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "save"),
    [("a.npy", npy), ("a.tif", tiff), ("a.png", lambda array: picture(array, "png"))],
)
def test_another_plane_than_the_first_of_one_map_is_refused(data, name, save):
    content = save(MAP.astype(np.uint8))
    place(data / "from", name, content)
    with pytest.raises(InputError, match="one map, no stack; --plane 2 is not in it"):
        import_labels("masks", data, data / "from", "--plane", 2)
    import_labels("masks", data, data / "from", "--plane", 1)
    assert areas(data) == AREAS


@pytest.mark.parametrize("name", ["a.npy", "a.tif"])
def test_a_map_of_a_stack_is_asked_for_by_its_number(data, name):
    maps = np.stack([MAP * 0 + 1, MAP, MAP * 0])
    content = npy(maps) if name == "a.npy" else tiff(maps, photometric="minisblack")
    place(data / "from", name, content)
    with pytest.raises(InputError, match="expected .*--plane"):
        import_labels("masks", data, data / "from")
    with pytest.raises(InputError, match="--plane 1 to 3"):
        import_labels("masks", data, data / "from", "--plane", 4)
    import_labels("masks", data, data / "from", "--plane", 2)
    assert areas(data) == AREAS


def test_the_plane_is_that_of_the_image(data, capsys):
    """Of an image that is a stack the first plane is read, and a label of another is refused."""
    (data / "images" / "a.png").unlink()
    stack = tiff(np.zeros((5, *SHAPE), np.uint8), photometric="minisblack")
    place(data / "images", "a.tif", stack)
    place(data / "from", "a.geojson", geojson(in_plane(BOXES[0], 2)))
    with pytest.raises(InputError, match="objects of plane 3, but of a.tif page 1 of 5 is read"):
        import_labels("masks", data, data / "from")
    place(data / "from", "a.geojson", geojson(*NUCLEI))
    import_labels("masks", data, data / "from")
    assert capsys.readouterr().out.endswith("; of its image page 1 of 5 is read\n")


@pytest.mark.parametrize("name", ["all.json", "all.xml", "via.json"])
def test_images_of_one_name_in_two_folders_are_refused(data, name):
    """Nothing says whose annotations they are; put together they would be of no image."""
    if name == "all.json":
        content = coco(*map(polygons, BOXES), name="x/a.png")
        content["images"].append({"id": 9, "file_name": "y/a.png"})
    elif name == "via.json":
        content = {"1": via()["a.png12"], "2": via()["a.png12"]}
    else:
        other = f'<image id="1" name="other/a.png">{cvat_polygon(BOXES[1])}</image></annotations>'
        content = cvat(cvat_polygon(BOXES[0])).replace("</annotations>", other)
    path = place(data, name, content)
    with pytest.raises(InputError, match="two of its images have one file name"):
        import_labels("masks", data, path)


@pytest.mark.parametrize("others", [True, False])
@pytest.mark.parametrize("second", ["images/a.bmp", "labels_instance/a_mask.tif"])
def test_two_images_or_labels_of_one_name_stop_no_other(data, capsys, second, others):
    if others:
        write_png(data / "images" / "b.png", np.zeros((*SHAPE, 3), np.uint8))
    place(data, second, b"")
    place(data, "labels_instance/a_label.tif", b"")
    for name in "ab":
        place(data / "from", f"{name}.geojson", geojson(*NUCLEI))
    with pytest.raises(InputError, match="keep one of them") as error:
        import_labels("masks", data, data / "from")
    assert "\n" not in str(error.value)
    assert ("b: 3 nuclei from b.geojson" in capsys.readouterr().out) == others


def test_one_file_may_be_of_one_image(data, capsys):
    path = place(data, "a.geojson", geojson(*NUCLEI))
    import_labels("masks", data, path)
    assert areas(data) == AREAS
    with pytest.raises(InputError, match="not named like one of the images"):
        import_labels("points", data, place(data, "points.csv", TABLE))


@pytest.mark.parametrize("kind", ["box", "mask", "outline"])
def test_a_nucleus_with_a_shape_and_a_point_is_one(data, capsys, kind):
    x, y, width, height = BOXES[0]
    spot = shape("point", [[x + 1, y + 1]])
    place_of = two_corners(BOXES[0])
    whole = {
        "box": shape("rectangle", place_of),
        "mask": shape("mask", place_of, mask=png_text(np.ones((height, width), np.uint8))),
        "outline": shape("polygon", corners(BOXES[0])),
    }[kind]
    place(data / "from", "a.json", labelme(spot, whole))
    import_labels("points", data, data / "from")
    assert places(data) == [(y + 1, x + 1)]
    said = f"a: 1 point from a.json; left out: 1 {kind} (around a point)\n"
    assert capsys.readouterr().out == said


def test_outlines_that_are_drawn_twice_are_told(data, capsys):
    """Of the lower one hardly an edge can be seen."""
    twice = [feature(corners((x, y, w - 1, h))) for x, y, w, h in BOXES[:2]]
    place(data / "from", "a.geojson", geojson(*NUCLEI, *twice))
    import_labels("masks", data, data / "from")
    said = "2 nuclei lie for the most part below others; if drawn twice, delete one of both"
    assert capsys.readouterr().out == f"a: 5 nuclei from a.geojson; {said}\n"


@pytest.mark.parametrize(
    ("what", "several"),
    [
        ("point without an outline", "points without an outline"),
        ("outline of fewer than three vertices", "outlines of fewer than three vertices"),
        ("annotation among cells", "annotations among cells"),
        ("negative region outside of all outlines", "negative regions outside of all outlines"),
        ("box (around a point)", "boxes (around a point)"),
        ("outline (no pixel of the image in it)", "outlines (no pixel of the image in it)"),
        ("TMA core", "TMA cores"),
        ("nucleus", "nuclei"),
    ],
)
def test_numbers_of_things(what, several):
    assert counted(1, what) == f"1 {what}" and counted(6, what) == f"6 {several}"


def test_an_archive_of_cvat(data):
    files = {"annotations.xml": cvat(*map(cvat_polygon, BOXES)), "images/a.png": b""}
    import_labels("masks", data, place(data, "task.zip", packed(files)))
    assert areas(data) == AREAS


def test_a_tile_without_a_class_is_a_tile_without_nuclei(data, capsys):
    write_png(data / "images" / "b.png", np.zeros((*SHAPE, 3), np.uint8))
    place(data / "from", "a.geojson", geojson(feature(corners(BOXES[0]), name="T")))
    place(data / "from", "b.geojson", geojson(feature(corners(BOXES[1]), name="S")))
    import_labels("masks", data, data / "from", "--classes", "T")
    assert capsys.readouterr().out.splitlines() == [
        "a: 1 nucleus from a.geojson",
        "b: 0 nuclei from b.geojson; left out: 1 object of class S",
    ]


@pytest.mark.parametrize("tool", ["QuPath", "CVAT", "ASAP", "labelme"])
def test_each_point_of_a_set_that_is_left_out_counts(data, capsys, tool):
    spots, name = [[5, 6], [20, 30], [40, 50]], "a.json"
    if tool == "QuPath":
        kept = {"type": "MultiPoint", "coordinates": spots[:1]}
        star = feature(spots, name="Ignore*")
        content = geojson(kept, {**star, "geometry": {"type": "MultiPoint", "coordinates": spots}})
    elif tool == "labelme":
        content = labelme(shape("point", spots[:1]), shape("points", spots, "Ignore*"))
    elif tool == "CVAT":
        star = '<points label="Ignore*" points="5,6;20,30;40,50"/>'
        name, content = "a.xml", cvat('<points label="n" points="5,6"/>', star)
    else:
        name, content = "a.xml", asap(("Dot", "n", spots[:1]), ("PointSet", "Ignore*", spots))
    place(data / "from", name, content)
    import_labels("points", data, data / "from")
    said = f"a: 1 point from {name}; left out: 3 objects of class Ignore*\n"
    assert capsys.readouterr().out == said


def test_texts_of_a_file_stay_on_their_line(data, capsys):
    names = "=HYPERLINK(1)\nx", "a\n\x1b[31m" * 5000
    objects = [feature(corners(b), name=n) for b, n in zip(BOXES, (*names, "T"), strict=True)]
    content = coco(*map(polygons, BOXES), name="b\n" * 9000)
    content["images"].append({"id": 9, "file_name": "a.png"})
    place(data / "from", "a.geojson", geojson(*objects))
    import_labels("masks", data, data / "from", "--classes", "T")
    import_labels("masks", data, place(data, "all.json", content), "--overwrite")
    with pytest.raises(InputError) as error:
        import_labels("masks", data, data / "from", "--classes", "no")
    for text in (*capsys.readouterr().out.splitlines(), str(error.value)):
        assert text.isprintable() and len(text) < 900


def test_a_label_of_another_name_is_not_passed_over_by_overwrite(data):
    write_instances(data / "labels_instance" / "a_mask.tif", MAP)
    place(data / "from", "a.geojson", geojson(*NUCLEI))
    with pytest.raises(InputError, match="a_mask.tif: a label of another name"):
        import_labels("masks", data, data / "from", "--overwrite")


def test_what_a_killed_import_left_is_gone_after_the_next(data, monkeypatch):
    """Nothing of it is taken for a label meanwhile."""
    place(data / "from", "a.geojson", geojson(*NUCLEI))
    with monkeypatch.context() as killed:
        killed.setattr("os.replace", lambda *_: (_ for _ in ()).throw(MemoryError))
        killed.setattr("pathlib.Path.unlink", lambda *_, **__: None)
        with pytest.raises(MemoryError):
            import_labels("masks", data, data / "from")
    (left,) = (data / "labels_instance").iterdir()
    assert left.suffix == ".tmp"
    import_labels("masks", data, data / "from")
    assert [path.name for path in (data / "labels_instance").iterdir()] == ["a_label.tif"]


def test_labels_of_an_earlier_import_are_named(data, capsys):
    """Also where the annotations of an image are gone."""
    write_png(data / "images" / "b.png", np.zeros((*SHAPE, 3), np.uint8))
    for name in "ab":
        place(data / "from", f"{name}.geojson", geojson(*NUCLEI))
    import_labels("masks", data, data / "from")
    place(data / "from", "a.geojson", geojson(NUCLEI[0]))
    (data / "from" / "b.geojson").unlink()
    capsys.readouterr()
    import_labels("masks", data, data / "from")
    assert capsys.readouterr().out.splitlines() == [
        "a: a_label.tif is there, kept (--overwrite replaces it)",
        f"b: nothing in {data / 'from'}; b_label.tif of earlier stays",
    ]
    assert areas(data) == AREAS


def test_a_pipe_is_no_file(data):
    (data / "from").mkdir()
    os.mkfifo(data / "from" / "a.geojson")
    with pytest.raises(InputError, match="neither a file nor a folder"):
        import_labels("masks", data, data / "from")


def test_the_middle_of_an_outline_that_crosses_itself(data):
    """Its area hardly counts, and the centroid of the area lies far away."""
    crossed = feature([[60, 5], [70.001, 15], [70, 5], [60, 15]])
    place(data / "from", "a.geojson", geojson(crossed))
    import_labels("points", data, data / "from")
    assert places(data) == [(10, 65)]


def test_what_is_no_nucleus_in_a_roi_set(data, capsys):
    """Files of macOS, a text beside, texts that are drawn as rectangles, lines."""
    roifile = pytest.importorskip("roifile")
    kinds, box = roifile.ROI_TYPE, {"left": 10, "top": 10, "right": 18, "bottom": 16}
    rois = [roifile.ImagejRoi(roitype=kind, **box) for kind in (kinds.RECT, kinds.RECT, kinds.LINE)]
    rois[1].subtype = roifile.ROI_SUBTYPE.TEXT
    files = {f"{k}.roi": roi.tobytes() for k, roi in enumerate(rois)}
    place(
        data / "from",
        "a.zip",
        packed({**files, "__MACOSX/._0.roi": b"x", "._1.roi": b"x", "readme.txt": b"x"}),
    )
    import_labels("masks", data, data / "from")
    assert "1 nucleus from a.zip; left out: 1 ROI of type text, 1 ROI of type line" in (
        capsys.readouterr().out
    )


def test_points_of_a_stack_have_slices_of_their_own(data):
    roifile = pytest.importorskip("roifile")
    roi = roifile.ImagejRoi.frompoints(np.array([[5.0, 5.0], [9.0, 9.0], [20.0, 12.0]]))
    roi.roitype = roifile.ROI_TYPE.POINT
    roi.counters, roi.counter_positions = np.zeros(3, np.uint8), np.array([1, 2, 2], np.uint32)
    place(data / "from", "a.roi", roi.tobytes())
    import_labels("points", data, data / "from", "--plane", 2)
    assert places(data) == [(9, 9), (12, 20)]


@pytest.mark.parametrize("tag", ["Annotation", "Coordinates"])
def test_nested_annotations_of_asap_take_no_time(data, tag):
    inner = (
        '<Annotation Type="Dot"><Coordinates><Coordinate X="5" Y="6"/></Coordinates></Annotation>'
    )
    depth = 20_000
    text = f"<{tag}>" * depth + inner + f"</{tag}>" * depth
    place(data / "from", "a.xml", f"<ASAP_Annotations>{text}</ASAP_Annotations>")
    import_labels("points", data, data / "from")
    assert places(data) == [(6, 5)]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (" ,Area,X,Y\n1,5,14.5,13.5\n", True),
        (" ,X,Y\n1,14.5,13.5\n", True),
        (" \tX\tY\n1\t14.5\t13.5\n", True),
        (",x,y\n0,14.5,13.5\n", False),  # of pandas
        ("X,Y\n14.5,13.5\n", False),
    ],
)
def test_calibrated_tables_of_imagej_are_read_as_pixels_and_it_is_said(data, capsys, text, told):
    place(data / "from", "a.csv", text)
    import_labels("points", data, data / "from")
    note = "; x, y of ImageJ are read as pixels; with a scale they are not" * told
    assert capsys.readouterr().out == f"a: 1 point from a.csv{note}\n"


KEYS = (
    "type features geometry coordinates properties objectType classification name nucleusGeometry "
    "images annotations segmentation size counts bbox id file_name image_id width height shapes "
    "points shape_type label group_id mask imageWidth imageHeight nuc contour regions filename "
    "shape_attributes region_attributes all_points_x all_points_y cx cy r rx ry geometries"
).split()
WORDS = ("Polygon", "Point", "cell", "polygon", "mask", "circle", "rectangle", "ellipse", "a.png")
NUMBERS = st.one_of(
    st.integers(-3, 90), st.floats(), st.integers(), st.sampled_from([10**9, 10**400])
)
LEAVES = st.one_of(st.none(), NUMBERS, st.sampled_from(WORDS), st.text(max_size=4))
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(st.lists(NUMBERS, min_size=2, max_size=2), min_size=3, max_size=5)
        | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5)
    ),
    max_leaves=20,
)


def broken(content, draw_from):
    """The content with one value or key of it replaced by anything."""
    if isinstance(content, dict) and content and draw_from(st.integers(0, 5)):
        key = draw_from(st.sampled_from(sorted(content)))
        return {**content, key: broken(content[key], draw_from)}
    if isinstance(content, list) and content and draw_from(st.integers(0, 5)):
        k = draw_from(st.integers(0, len(content) - 1))
        return [*content[:k], broken(content[k], draw_from), *content[k + 1 :]]
    return draw_from(VALUES)


JSON_FILES = [c for name, c, _ in [*OUTLINES.values(), *POINTS.values()] if isinstance(c, dict)]
TEXT_FILES = [(n, c) for n, c, _ in [*OUTLINES.values(), *POINTS.values()] if isinstance(c, str)]


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_only_our_own_error_escapes(tmp_path, drawn):
    """A file of a tool with one thing changed is read, or refused by name."""
    if drawn.draw(st.booleans()):
        name = "a.json"
        content = broken(drawn.draw(st.sampled_from(JSON_FILES)), drawn.draw)
    else:
        name, content = drawn.draw(st.sampled_from(TEXT_FILES))
        start = drawn.draw(st.integers(0, len(content)))
        more = drawn.draw(st.one_of(st.text(max_size=3), st.sampled_from(["1e999", "nan", "-5"])))
        content = content[:start] + more + content[start + drawn.draw(st.integers(0, 9)) :]
        content = content.encode("utf-8", "surrogatepass")
    path = place(tmp_path, name, content)
    try:
        annotations = without_regions(read_annotations(path, "a.png", SHAPE), SHAPE)
    except InputError as error:
        assert str(path) in str(error)
    else:
        draw([outline_pixels(outline, SHAPE) for outline in annotations.outlines], SHAPE)


def test_outlines_among_points_are_counted(data, capsys):
    """An outline around nothing may be a region; where all are outlines it goes without saying."""
    dots = {"type": "MultiPoint", "coordinates": [[3, 3], [70, 5]]}
    place(data / "from", "a.geojson", geojson(dots, *NUCLEI[:2]))
    import_labels("points", data, data / "from")
    said = "a: 4 points from a.geojson; 2 of them are the middles of outlines or boxes\n"
    assert capsys.readouterr().out == said
    place(data / "from", "a.geojson", geojson(*NUCLEI))
    import_labels("points", data, data / "from", "--overwrite")
    assert capsys.readouterr().out == "a: 3 points from a.geojson\n"


def test_a_nucleus_with_an_outline_and_a_point_is_one(data, capsys):
    row, col = MIDDLES[0]
    point = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [col, row]}}
    objects = [feature(corners(BOXES[0])), point]
    place(data / "from", "a.geojson", {"type": "FeatureCollection", "features": objects})
    import_labels("points", data, data / "from")
    assert (
        capsys.readouterr().out
        == "a: 1 point from a.geojson; left out: 1 outline (around a point)\n"
    )
