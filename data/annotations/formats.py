"""Read annotations of other tools: outlines, points and instance maps.

Coordinates are x to the right and y down, in pixels from the top left corner of the image. The
first pixel covers 0..1, as in QuPath and Aperio ImageScope. Where a tool counts from the middle of
the first pixel (napari), half a pixel is added on reading. Whatever a file holds, a reader raises
only InputError, which names the file. What is no nucleus is counted in `Annotations.left_out`.
"""

from collections.abc import Sequence
from pathlib import Path

from code_common.errors import InputError
from data.annotations.arrays import ARRAYS, ROIS, read_array, read_mask_folder, read_rois
from data.annotations.geometry import (
    Annotations,
    centre,
    draw,
    object_centres,
    outline_pixels,
    rasterise,
    shifted,
    without_regions,
)
from data.annotations.json_files import images_of_json, read_coco, read_geojson, read_json_of_image
from data.annotations.tables import read_point_table
from data.annotations.text import read_json
from data.annotations.xml_files import images_of_xml, read_aperio_xml, read_xml_of_image

__all__ = [
    "ARRAYS",
    "READERS",
    "Annotations",
    "centre",
    "draw",
    "object_centres",
    "outline_pixels",
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
READERS = (".xml", *JSON, *TABLES, *ROIS)  # suffixes of outlines and points


def read_annotations(
    path: Path, image: str, shape: tuple[int, int], classes: Sequence[str] | None = None
) -> Annotations:
    """Outlines, points, boxes and masks of one image.

    The suffix of the file chooses the reader; a folder holds one mask for each nucleus. image: its
    file name; shape: its rows and columns; classes: those that are taken (None: all but Ignore*).
    """
    suffix = path.suffix.lower()
    if classes is not None and (path.is_dir() or suffix in (*ROIS, *ARRAYS)):
        raise InputError(f"{path}: it names no classes; --classes is for files that do")
    if path.is_dir():
        return read_mask_folder(path, shape)
    if suffix in ROIS:
        return read_rois(path)
    if suffix in TABLES:
        return read_point_table(path, classes)
    if suffix == ".xml":
        return read_xml_of_image(path, image, classes)
    return read_json_of_image(path, image, classes)


def read_images(path: Path, classes: Sequence[str] | None = None) -> dict[str, Annotations]:
    """What a file of several images holds (COCO, VIA, CVAT), by the file name of the image."""
    if path.suffix.lower() == ".xml":
        return images_of_xml(path, classes)
    return images_of_json(path, read_json(path), classes)
