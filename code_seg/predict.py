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
from collections.abc import Iterable

import numpy as np
from scipy import ndimage

from code_common.files.geojson import Features, nucleus_feature
from code_common.files.reading import read_json
from code_common.files.run_folder import nuclei_path
from code_common.files.writing import printable, whole_file, write_png
from code_common.inference.first_look import (
    unlike_in_colour,
    unlike_in_size,
    unsure,
    unsure_share,
)
from code_common.inference.image_files import find_slides
from code_common.inference.ome_tiff import write_label_map
from code_common.inference.prediction import (
    COCO,
    predict_all,
    prob_reader,
    result_key,
)
from code_common.inference.slides import Slide, Strips, reduced
from code_common.inference.tiling import Read
from code_common.inference.trained_run import load_trained_run
from code_common.launch import choose_device, run, tiling_of
from code_common.learning import distributed
from code_common.learning.hardware import choose_processes
from code_common.learning.stopwatch import Lap, lapped
from code_common.reporting.drawing import BLUE, YELLOW, mark, outline
from code_seg.features import feature_names, nucleus_features
from code_seg.segmenter import Part, empty_map, make_segmenter, nuclei_of_points, numbered
from code_seg.user_points import UserPoints, given_points_path, write_given_points

# Of the results behind an image's name.
ENDINGS = (
    "nuclei.csv", "nuclei.geojson", "instances.tif", "instances.ome.tif", "overlay.png",
    "given_points.csv",
)  # fmt: skip
COLUMNS_OF_POINTS = ("points", "points_without")  # and with --points
COLUMNS = ("nuclei", "radius", "unsure", "width", "height")  # of summary.csv


def predict(options: SegPredictOptions) -> str:
    """Write NAME_instances.tif, _nuclei.csv, _nuclei.geojson and _overlay.png of each image.

    The instance map has the size at which the image was read; of an image over 8192 x 8192 pixels
    it is a tiled OME-TIFF with a pyramid. Coordinates, and areas in GeoJSON and COCO, are in pixels
    of the file; areas in the table are in pixels as the image was read.
    """
    device, images = choose_device(options), find_slides(list(options.images))
    paths = {name: files[0] for name, files in images.items()}
    stages = load_trained_run(options.model, device)
    own = UserPoints(options.points, paths) if options.points else None
    segmenter = make_segmenter(
        stages, options.model, options.instances, tiling_of(options, device), options.tissue,
        detects=own is None,
    )  # fmt: skip
    columns = COLUMNS + (COLUMNS_OF_POINTS if own else ())

    def work(
        name: str, slide: Slide, folder: Path, key: str, lap: Lap
    ) -> tuple[list[Path], dict, list[str]]:
        in_file, points, found, lines = None, None, None, []
        if own:
            in_file, points, lines = own.read(name, slide)
        probs, points = segmenter.maps(slide, folder, key, points, lap)
        labels = empty_map(folder / "labels.u32", slide.shape)
        if own:
            found = nuclei_of_points(segmenter, probs, points, folder)
            parts = numbered(found.parts(options.only_points), labels)
        else:
            parts = segmenter.nuclei(probs, points, labels, folder)
        kind = "ome.tif" if slide.large else "tif"
        endings = ("nuclei.csv", "nuclei.geojson", f"instances.{kind}", "overlay.png")
        files = [options.out / f"{name}_{ending}" for ending in endings]
        parts = lapped(parts, lap, "nuclei", "features")
        areas, sure = write_nuclei(files[0], files[1], slide, parts, prob_reader(probs))
        write_label_map(files[2], labels, slide.mpp, slide.large)
        picture, small, by = reduced(slide, labels)
        overlay = outline(picture, small, YELLOW)
        if found:
            numbers = found.numbers(options.only_points)
            without = points[numbers == 0] // by
            overlay = mark(overlay, without, "square", BLUE, max(1, 5 // by))
        write_png(files[3], overlay)
        unlike = unlike_in_colour(picture, segmenter.stage) + unsure(sure)
        if segmenter.detector:
            unlike += unlike_in_size(areas, segmenter.detector.settings["r1"])
        lines += [f"{name}: {line}" for line in unlike]
        height, width = slide.file_shape or slide.shape
        radius = round(float(np.sqrt(np.median(areas) / np.pi)), 2) if areas else 0
        values = [len(areas), radius, round(unsure_share(sure), 4), width, height]
        if found:
            files.append(given_points_path(options.out, name))
            write_given_points(files[-1], in_file, numbers, found.notes)
            values += [len(points), int((numbers == 0).sum())]
        lap("pictures")
        return files, dict(zip(columns, values, strict=True)), lines

    used = [stage for stage in (segmenter.stage, segmenter.detector) if stage]
    of_points = (options.only_points,) if own else ()
    key = result_key(options, used, segmenter.tiling, segmenter.method, *of_points)
    beside = own.files if own else None
    if own and distributed.is_main():
        for line in own.notes:
            print(printable(line))
    message, rows = predict_all(
        options, key, columns, ENDINGS, work, choose_processes(device), beside
    )
    if own and distributed.is_main():
        print(told_of_points(rows.values(), options.out))
    wanted = len(own.files if own else paths)
    if options.coco and len(rows) == wanted and distributed.is_main():
        write_coco(options.out, {name: (paths[name].name, row) for name, row in rows.items()})
    return message


def told_of_points(rows: Iterable[dict[str, float]], out: Path) -> str:
    """How many points have a nucleus. rows: of the images, with COLUMNS_OF_POINTS."""
    points, without = (int(sum(row[c] for row in rows)) for c in COLUMNS_OF_POINTS)
    table = given_points_path(out, "*")
    if not without:
        return f"each of {points} points has a nucleus: {table}"
    return f"{without} of {points} points have no nucleus; {table} tells why"


def write_coco(out: Path, images: dict[str, tuple[str, dict]]) -> None:
    """Write coco.json, nucleus by nucleus, from the outlines of each image.

    images: name -> (file name, its row of summary.csv). An outline's pieces are its polygons.
    """
    listed = [
        {"id": k, "file_name": printable(file), "width": row["width"], "height": row["height"]}
        for k, (file, row) in enumerate(images.values(), 1)
    ]
    head = {"images": listed, "categories": [{"id": 1, "name": "nucleus"}]}
    with whole_file(out / COCO) as file:
        file.write(json.dumps(head)[:-1].encode() + b', "annotations": [')
        count = 0
        for image, name in enumerate(images, 1):
            for feature in read_json(nuclei_path(out, name))["features"]:
                count += 1
                annotation = {"id": count, "image_id": image, **coco_annotation(feature)}
                separator = b",\n" if count > 1 else b"\n"
                file.write(separator + json.dumps(annotation).encode())
        file.write(b"\n]}\n")


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


def write_nuclei(
    table: Path,
    outlines: Path,
    slide: Slide,
    parts: Iterable[Part],
    read_prob: Read,
) -> tuple[array, array]:
    """Write the nuclei of `parts`, with ids 1, 2, ..., one by one into a CSV table and GeoJSON.

    Returns their areas in square pixels and their mean probabilities.
    """
    strips, areas, probs = Strips(slide), array("d"), array("d")  # few bytes for each nucleus
    with whole_file(table) as csv_file, whole_file(outlines) as geojson:
        text = io.TextIOWrapper(csv_file, newline="", write_through=True)
        writer, features = csv.writer(text, lineterminator="\n"), Features(geojson)
        writer.writerow(["id", *feature_names(slide.mpp)])
        for row, col, instances in parts:
            box = row, col, *instances.shape
            image, prob = strips.read(*box), read_prob(*box)
            last = len(areas)
            local = np.where(instances > 0, instances - last, 0).astype(np.int32)
            for k, inner in enumerate(ndimage.find_objects(local), 1):
                mask, corner = local[inner] == k, (row, col)
                values = nucleus_features(mask, inner, corner, image, prob, slide.scale, slide.mpp)
                areas.append(values["area"])
                probs.append(values["probability"])
                writer.writerow([last + k, *(f"{v:.6g}" for v in values.values())])
                # In the frame of the coordinates beside it; the table's are pixels as read.
                area = values["area"]
                if slide.scale != 1:
                    area = round(area * slide.scale**2, 2)
                shown = {
                    "Area px^2": area,
                    "Probability": round(values["probability"], 4),
                }
                corner = row + inner[0].start, col + inner[1].start
                features.add(nucleus_feature(mask, corner, shown, slide.scale))
        features.end()
        text.detach()
    return areas, probs


if __name__ == "__main__":
    run(predict, options)
