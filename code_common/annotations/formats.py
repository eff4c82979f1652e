"""Read annotations of other tools: outlines, points and instance maps.

Coordinates are x to the right and y down, in pixels from the top left corner of the image. The
first pixel covers 0..1, as in QuPath and Aperio ImageScope. Where a tool counts from the middle of
the first pixel (napari), half a pixel is added on reading. Whatever a file holds, a reader raises
only InputError, which names the file. What is no nucleus is counted in `Annotations.left_out`.
"""

from pathlib import Path

import numpy as np

from code_common.annotations.arrays import ARRAYS, ROIS, read_array, read_mask_folder, read_rois
from code_common.annotations.choice import ALL, Choice, parts_of, plane_name
from code_common.annotations.geometry import (
    Annotations,
    centre,
    draw,
    error_of,
    object_places,
    outline_pixels,
    rasterise,
    shifted,
    without_regions,
)
from code_common.annotations.json_files import (
    images_of_json,
    read_coco,
    read_geojson,
    read_json_of_image,
)
from code_common.annotations.tables import images_of_table, read_cellpose_outlines, read_point_table
from code_common.annotations.text import check_file, read_json, short, text_suffix
from code_common.annotations.xml_files import images_of_xml, read_aperio_xml, read_xml_of_image
from code_common.errors import InputError
from code_common.files.names import CELLPOSE_OUTLINES

__all__ = [
    "ARRAYS",
    "READERS",
    "Annotations",
    "Choice",
    "centre",
    "draw",
    "object_places",
    "outline_pixels",
    "parts_of",
    "plane_name",
    "rasterise",
    "read_annotations",
    "read_aperio_xml",
    "read_array",
    "read_coco",
    "read_geojson",
    "read_images",
    "read_point_table",
    "shifted",
    "without_regions",
]

JSON, TABLES = (".geojson", ".json"), (".csv", ".tsv", ".txt")
TEXTS = (".xml", *JSON, *TABLES)
READERS = (*TEXTS, *ROIS, ".gz")  # suffixes of outlines and points


def read_annotations(
    path: Path, image: str, shape: tuple[int, int], choice: Choice = ALL
) -> Annotations:
    """Outlines, points, boxes and masks of one image.

    The suffix of the file chooses the reader; a folder holds one mask for each nucleus. image: its
    file name; shape: its rows and columns. Raises InputError, also for objects of several planes.
    """
    check_file(path)
    suffix = "" if path.is_dir() else text_suffix(path)
    if choice.classes is not None and suffix not in TEXTS:
        raise InputError(f"{path}: it names no classes; --classes is for files that do")
    if path.is_dir():
        annotations = read_mask_folder(path, shape)
    elif suffix in JSON:
        annotations = read_json_of_image(path, image, choice)
    elif suffix == ".xml":
        annotations = read_xml_of_image(path, image, choice)
    elif path.stem.lower().endswith(CELLPOSE_OUTLINES):
        annotations = read_cellpose_outlines(path)
    elif suffix in TABLES:
        annotations = read_point_table(path, choice, image)
    else:
        annotations = read_rois(path, choice)
    check_planes(str(path), annotations)
    check_pixels(str(path), annotations)
    return annotations


def check_planes(where: str, annotations: Annotations) -> None:
    """Raise InputError for objects of several planes of a stack: each of them is another image.

    where: what the error names.
    """
    planes = sorted(annotations.planes)
    if len(planes) > 1:
        named = ", ".join(map(plane_name, planes[:5])) + (", ..." if len(planes) > 5 else "")
        raise InputError(
            f"{where}: objects of {len(planes)} planes of a stack ({named}); expected those of one "
            f"image: --plane {plane_name(planes[0])} takes one plane, counted from 1"
        )


def check_pixels(where: str, annotations: Annotations) -> None:
    """Raise InputError for coordinates in shares of the image: then all lie in its first pixel.

    A single point may well do so, in its middle say; several cannot. where: what the error names.
    """
    rings = [r for outline in annotations.outlines for rings in outline for r in rings]
    boxes = np.reshape(annotations.boxes, (-1, 2))
    places = np.concatenate([np.reshape(annotations.points, (-1, 2)), boxes, *rings])
    if annotations.masks or not len(places):
        return
    several = annotations.count() > 1
    last = 1.5 if several else 1  # half a pixel may have been added
    in_shares = places.min() >= 0 and places.max() <= last
    if in_shares and (several or (places % 0.5).any()):
        raise InputError(f"{where}: coordinates from 0 to 1; expected pixels")


def read_images(path: Path, choice: Choice = ALL) -> dict[str, Annotations]:
    """What a file of several images holds (COCO, VIA, CVAT, table), by the image's file name.

    Raises InputError for the file; what is wrong with one image is the `error` of its annotations.
    """
    check_file(path)
    suffix, by_name = text_suffix(path), None
    if suffix == ".xml":
        by_name = images_of_xml(path, choice)
    elif suffix in JSON:
        by_name = images_of_json(path, read_json(path), choice)
    elif suffix in TABLES:
        by_name = images_of_table(path, choice)
    if by_name is None:
        raise InputError(
            f"{path}: not a file of several images (COCO, VIA, CVAT's XML, a table with a column "
            "image), and not named like one of the images"
        )
    for name, annotations in by_name.items():
        where = f"{path}, {short(name, 80)}"
        with error_of(annotations):
            check_planes(where, annotations)
            check_pixels(where, annotations)
    errors = {str(annotations.error) for annotations in by_name.values() if annotations.error}
    if len(errors) == 1 and all(annotations.error for annotations in by_name.values()):
        raise InputError(errors.pop())  # of the header of a table, say
    return by_name
