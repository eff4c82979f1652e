"""Segment any images with a trained run: instance maps, nuclei as CSV and GeoJSON, overlays."""

import csv
import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.config import check_choices, parse
from code_common.errors import InputError, run_script
from code_common.files.geojson import Features, nucleus_feature
from code_common.files.reading import read_json
from code_common.files.writing import whole_file, write_png
from code_common.inference.ome_tiff import write_label_map
from code_common.inference.prediction import (
    PredictOptions,
    detect_slide,
    over,
    predict_all,
    probability_map,
    read_prob,
    wanted_tiles,
)
from code_common.inference.slides import Strips, reduced
from code_common.inference.streaming import DiskMap, find_components
from code_common.inference.trained_run import load
from code_common.learning import distributed
from code_common.reporting.drawing import YELLOW, outline
from code_seg.convex import convex_nuclei, supported_in_parts
from code_seg.evaluate import choose_magnification
from code_seg.features import nucleus_features
from code_seg.instances import (
    METHODS,
    PointsByRow,
    check_method,
    instances_in_parts,
    split_by_points,
)


@dataclass(frozen=True)
class SegPredictOptions(PredictOptions):
    """Options of code_seg/predict.py."""

    coco: bool = False  # write coco.json of all images, too, once they are done
    instances: str = "auto"  # components, points (split by the run's detections), convex (cut where
    #   they are not, completed, unlikely ones dropped), or auto: the run's validation images chose

    def resolved(self) -> "SegPredictOptions":
        """The options, checked; raises InputError."""
        check_choices(self, {"instances": ("auto", *METHODS)})
        return super().resolved()


def predict(options: SegPredictOptions) -> str:
    """Write NAME_instances.tif, _nuclei.csv, _nuclei.geojson and _overlay.png of each image.

    The instance map has the size at which the image was read; of an image over 8192 x 8192 pixels
    it is a tiled OME-TIFF with a pyramid. Coordinates are in pixels of the file.
    """
    device = options.choose_device()
    stages = load(options.model, device)
    stage, detector = stages.get("segmentation"), stages.get("detection")
    if stage is None:
        raise InputError(f"{options.model}: holds no segmentation network")
    method = options.instances if options.instances != "auto" else stage.settings["instances"]
    check_method(method, options.model)
    by_points = method != "components"
    if by_points and detector is None:
        raise InputError(
            f"{options.model}: holds no detector to split nuclei with; give the folder above "
            "detection/ and segmentation/, or --instances components"
        )
    tiling, out = options.tiling(device), options.out
    min_area, radius = stage.settings["min_area"], stage.settings["magnify_to"]
    # Points also tell how large the nuclei are, where that matters.
    detecting = by_points or bool(radius and detector)
    used = [stage, detector] if detecting else [stage]

    def work(name, slide, folder, key):
        wanted = wanted_tiles(slide, options.tissue, options.tile)
        points = None
        if detecting:
            points, _ = detect_slide(detector, slide, folder, key, tiling, wanted)
        at = PointsByRow(points if by_points else np.zeros((0, 2), int))
        factor = choose_magnification(
            stage.network, slide.read, slide.shape, points, tiling, radius
        )
        probs = probability_map(stage, slide, folder / "nuclei.u16", key, tiling, wanted, factor)
        convex = method == "convex"
        labels = empty_map(folder / "labels.u32", slide.shape)
        covered = empty_map(folder / "candidates.u32", slide.shape) if convex else labels
        mask, read = over(probs, 0.5), read_prob(probs)

        def divide(row, col, own):
            near = at.within(row, col, own.shape)
            if convex:
                return convex_nuclei(own, read(row, col, *own.shape), near, min_area)
            return split_by_points(own.astype(np.int32), near, min_area)

        parts = instances_in_parts(
            find_components(mask, slide.shape), mask, divide, min_area,
            lambda row, col: bool(covered.read(row, col, 1, 1)[0, 0]),
        )  # fmt: skip
        if convex:
            parts = supported_in_parts(parts, read, at, covered)
        kind = "ome.tif" if slide.large else "tif"
        endings = ("nuclei.csv", "nuclei.geojson", f"instances.{kind}", "overlay.png")
        files = [out / f"{name}_{ending}" for ending in endings]
        count = write_nuclei(files[0], files[1], slide, parts, read, labels)
        write_label_map(files[2], labels, slide.mpp, slide.large)
        picture, small, _ = reduced(slide, labels)
        write_png(files[3], outline(picture, small, YELLOW))
        height, width = (round(n * slide.scale) for n in slide.shape)
        return files, {"nuclei": count, "width": width, "height": height}

    told, done = predict_all(options, options.key(used, tiling, method), work)
    if options.coco and len(done) == len(paths := options.slides()) and distributed.rank() == 0:
        write_coco(out, {name: (paths[name].name, row) for name, row in done.items()})
    return told


def empty_map(path: Path, shape: tuple[int, int]) -> DiskMap:
    """A map of ids on the disk, whatever an earlier call left there."""
    path.unlink(missing_ok=True)
    return DiskMap(path, shape, np.uint32)


def write_coco(out: Path, images: dict[str, tuple[str, dict]]) -> None:
    """Write coco.json, nucleus by nucleus, from the outlines of each image.

    images: name -> (file name, its row of summary.csv). An outline's pieces are its polygons.
    """
    listed = [
        {"id": k, "file_name": file, "width": row["width"], "height": row["height"]}
        for k, (file, row) in enumerate(images.values(), 1)
    ]
    head = {"images": listed, "categories": [{"id": 1, "name": "nucleus"}]}
    with whole_file(out / "coco.json") as file:
        file.write(json.dumps(head)[:-1].encode() + b', "annotations": [')
        count = 0
        for image, name in enumerate(images, 1):
            for feature in read_json(out / f"{name}_nuclei.geojson")["features"]:
                geometry, count = feature["geometry"], count + 1
                one = geometry["type"] == "Polygon"
                parts = [geometry["coordinates"]] if one else geometry["coordinates"]
                polygons = [np.array(part[0][:-1]) for part in parts]
                points = np.concatenate(polygons)
                low, high = points.min(0), points.max(0)
                annotation = {
                    "id": count, "image_id": image, "category_id": 1, "iscrowd": 0,
                    "area": feature["properties"]["measurements"]["Area px^2"],
                    "bbox": [*low.tolist(), *(high - low).tolist()],
                    "segmentation": [p.ravel().tolist() for p in polygons],
                }  # fmt: skip
                file.write(
                    (",\n" if count > 1 else "\n").encode() + json.dumps(annotation).encode()
                )
        file.write(b"\n]}\n")


def write_nuclei(table: Path, outlines: Path, slide, parts, read, labels: DiskMap) -> int:
    """Write the nuclei of `parts` one by one into a CSV table, GeoJSON and the label map.

    Returns their number. Their ids are 1, 2, ... by the first pixels of their components.
    """
    strips, count = Strips(slide), 0
    with whole_file(table) as csv_file, whole_file(outlines) as geojson:
        text, features = (
            io.TextIOWrapper(csv_file, newline="", write_through=True),
            Features(geojson),
        )
        writer = csv.writer(text, lineterminator="\n")
        for row, col, instances in parts:
            box = row, col, *instances.shape
            image, prob, old = strips.read(*box), read(*box), labels.read(*box)
            for k in np.unique(instances[instances > 0]).tolist():
                count += 1
                mask = instances == k
                old[mask] = count
                own = nucleus_features(mask, (row, col), image, prob, slide.scale, slide.mpp)
                if count == 1:
                    writer.writerow(["id", *own])
                writer.writerow([count, *(f"{v:.6g}" for v in own.values())])
                shown = {"Area px^2": own["area"], "Probability": round(own["probability"], 4)}
                rows, cols = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
                inner = mask[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
                corner = row + int(rows[0]), col + int(cols[0])
                features.add(nucleus_feature(inner, corner, shown, slide.scale))
            labels.write(row, col, old)
        if count == 0:
            writer.writerow(["id"])
        features.end()
        text.detach()
    return count


if __name__ == "__main__":
    run_script(lambda: parse(SegPredictOptions, __doc__).run(predict))
