"""Segment any images with a trained run: instance maps, nuclei as CSV and GeoJSON, overlays."""

import sys
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.config import read_command_line
from code_seg.options import SegPredictOptions

if __name__ == "__main__":
    options = read_command_line(SegPredictOptions, __doc__)

import csv
import io
import json
from array import array
from collections.abc import Iterable, Iterator

import numpy as np

from code_common.errors import InputError
from code_common.files.geojson import Features, nucleus_feature
from code_common.files.images import grouped
from code_common.files.reading import read_json
from code_common.files.run_folder import nuclei_path
from code_common.files.writing import printable, whole_file, write_png
from code_common.inference.ome_tiff import write_label_map
from code_common.inference.prediction import (
    predict_all,
    prob_reader,
    result_key,
)
from code_common.inference.slides import Slide, Strips, find_slides, reduced
from code_common.inference.tiling import Read
from code_common.inference.trained_run import TrainedStage, load_trained_run
from code_common.launch import choose_device, run, tiling_of
from code_common.learning import distributed
from code_common.reporting.drawing import YELLOW, outline
from code_seg.features import nucleus_features
from code_seg.segmenter import Part, empty_map, make_segmenter

FEW_NUCLEI = 10  # whose sizes say nothing
FAR = 1.6  # between two radii: that of nuclei at 20x and at 40x is 2


def predict(options: SegPredictOptions) -> str:
    """Write NAME_instances.tif, _nuclei.csv, _nuclei.geojson and _overlay.png of each image.

    The instance map has the size at which the image was read; of an image over 8192 x 8192 pixels
    it is a tiled OME-TIFF with a pyramid. Coordinates, and areas in GeoJSON and COCO, are in pixels
    of the file; areas in the table are in pixels as the image was read.
    """
    device = choose_device(options)
    stages = load_trained_run(options.model, device)
    segmenter = make_segmenter(
        stages, options.model, options.instances, tiling_of(options, device), options.tissue
    )
    notes: list[str] = []

    def work(name: str, slide: Slide, folder: Path, key: str) -> tuple[list[Path], dict]:
        probs, points = segmenter.maps(slide, folder, key)
        labels = empty_map(folder / "labels.u32", slide.shape)
        parts = segmenter.nuclei(probs, points, labels, folder)
        kind = "ome.tif" if slide.large else "tif"
        endings = ("nuclei.csv", "nuclei.geojson", f"instances.{kind}", "overlay.png")
        files = [options.out / f"{name}_{ending}" for ending in endings]
        areas = write_nuclei(files[0], files[1], slide, parts, prob_reader(probs))
        notes.extend(size_note(name, areas, segmenter.detector))
        write_label_map(files[2], labels, slide.mpp, slide.large)
        picture, small, _ = reduced(slide, labels)
        write_png(files[3], outline(picture, small, YELLOW))
        height, width = (round(n * slide.scale) for n in slide.shape)
        return files, {"nuclei": len(areas), "width": width, "height": height}

    used = [stage for stage in (segmenter.stage, segmenter.detector) if stage]
    key = result_key(options, used, segmenter.tiling, segmenter.method)
    message, rows = predict_all(options, key, ["nuclei", "width", "height"], work)
    for line in grouped(notes):
        print(line)
    paths = find_slides(list(options.images))
    if options.coco and len(rows) == len(paths) and distributed.is_main():
        write_coco(options.out, {name: (paths[name].name, row) for name, row in rows.items()})
    return message


def write_coco(out: Path, images: dict[str, tuple[str, dict]]) -> None:
    """Write coco.json, nucleus by nucleus, from the outlines of each image.

    images: name -> (file name, its row of summary.csv). An outline's pieces are its polygons.
    """
    listed = [
        {"id": k, "file_name": printable(file), "width": row["width"], "height": row["height"]}
        for k, (file, row) in enumerate(images.values(), 1)
    ]
    head = {"images": listed, "categories": [{"id": 1, "name": "nucleus"}]}
    with whole_file(out / "coco.json") as file:
        file.write(json.dumps(head)[:-1].encode() + b', "annotations": [')
        count = 0
        for image, name in enumerate(images, 1):
            for found in coco_annotations(nuclei_path(out, name)):
                count += 1
                annotation = {"id": count, "image_id": image, **found}
                separator = b",\n" if count > 1 else b"\n"
                file.write(separator + json.dumps(annotation).encode())
        file.write(b"\n]}\n")


def coco_annotations(path: Path) -> Iterator[dict]:
    """The annotations of the nuclei in a GeoJSON file. Raises InputError where it was edited."""
    try:
        for feature in read_json(path)["features"]:
            yield coco_annotation(feature)
    except (KeyError, TypeError, ValueError, IndexError):
        raise InputError(
            f"{path}: not the outlines that were written; remove it to have it made again"
        ) from None


def coco_annotation(feature: dict) -> dict:
    """The annotation of a nucleus, from its GeoJSON feature."""
    geometry = feature["geometry"]
    one = geometry["type"] == "Polygon"
    parts = [geometry["coordinates"]] if one else geometry["coordinates"]
    polygons = [np.array(part[0][:-1]) for part in parts]  # outer rings, without their last vertex
    points = np.concatenate(polygons)
    low, high = points.min(0), points.max(0)
    return {
        "category_id": 1,
        "iscrowd": 0,
        "area": feature["properties"]["measurements"]["Area px^2"],
        "bbox": [*low.tolist(), *(high - low).tolist()],
        "segmentation": [polygon.ravel().tolist() for polygon in polygons],
    }


def size_note(name: str, areas: array, detector: TrainedStage | None) -> list[str]:
    """A line if an image's nuclei are far from the size that the model was trained on.

    areas: of the nuclei in square pixels, as the image was read. Few nuclei say nothing.
    """
    if detector is None or len(areas) < FEW_NUCLEI:
        return []
    radius, trained = np.sqrt(np.median(areas) / np.pi), detector.settings["r1"]
    if 1 / FAR < radius / trained < FAR:
        return []
    size = "much smaller" if radius < trained else "much larger"
    return [
        f"{name}: nuclei are {size} than the model was trained on (radius {trained:g} px); look at "
        "the overlay, and give --mpp if the image has another resolution"
    ]


def write_nuclei(
    table: Path,
    outlines: Path,
    slide: Slide,
    parts: Iterable[Part],
    read_prob: Read,
) -> array:
    """Write the nuclei of `parts`, with ids 1, 2, ..., one by one into a CSV table and GeoJSON.

    Returns their areas in square pixels.
    """
    strips, areas = Strips(slide), array("d")  # few bytes for each of a million nuclei
    with whole_file(table) as csv_file, whole_file(outlines) as geojson:
        text = io.TextIOWrapper(csv_file, newline="", write_through=True)
        writer, features = csv.writer(text, lineterminator="\n"), Features(geojson)
        for row, col, instances in parts:
            box = row, col, *instances.shape
            image, prob = strips.read(*box), read_prob(*box)
            for k in np.unique(instances[instances > 0]).tolist():
                mask = instances == k
                areas.append(int(mask.sum()))
                values = nucleus_features(mask, (row, col), image, prob, slide.scale, slide.mpp)
                if k == 1:
                    writer.writerow(["id", *values])
                writer.writerow([k, *(f"{v:.6g}" for v in values.values())])
                # In the frame of the coordinates beside it; the table's are pixels as read.
                area = values["area"]
                if slide.scale != 1:
                    area = round(area * slide.scale**2, 2)
                shown = {
                    "Area px^2": area,
                    "Probability": round(values["probability"], 4),
                }
                rows, cols = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
                inner = mask[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
                corner = row + int(rows[0]), col + int(cols[0])
                features.add(nucleus_feature(inner, corner, shown, slide.scale))
        if not areas:
            writer.writerow(["id"])
        features.end()
        text.detach()
    return areas


if __name__ == "__main__":
    run(predict, options)
