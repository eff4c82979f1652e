"""Pictures of stage 2 for the report: labels, training crops, results against the true nuclei."""

import sys
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.config import read_command_line
from code_seg.options import Options, PicturesOptions

if __name__ == "__main__":
    options = read_command_line(PicturesOptions, __doc__)

from collections.abc import Iterator

import numpy as np

from code_common.errors import run_script
from code_common.files.data_set import ImageFiles, load_split
from code_common.files.images import image_shape, read_image, read_instances, read_label, read_prob
from code_common.files.reading import read_json, read_points
from code_common.files.run_folder import (
    areas_path,
    instances_path,
    metrics_path,
    pictures_folder,
    points_path,
    prob_path,
    results_folder,
)
from code_common.files.writing import write_json
from code_common.inference.magnification import reduced_label
from code_common.reporting.album import Figure, Panel, middle, write_album
from code_common.reporting.drawing import BLUE, CYAN, mark, outline
from code_common.runs.steps import do_alone
from code_seg.dataset import load_training, read_labels
from code_seg.evaluate import make_instances
from code_seg.metrics import overlaps, unmatched
from code_seg.overlays import draw_errors, label_overlay
from code_seg.points import read_detections

SIDE, CROPS = 400, 4


def labels(options: Options, files: ImageFiles, window: tuple[slice, slice]) -> Figure:
    """Points, Voronoi label, cluster label and, if there is one, self-training's of an image."""
    image = read_image(files.image)
    shape = image.shape[:2]
    points = read_points(points_path(options.save_dir, files.name), shape)
    voronoi, clusters = read_labels(options, files, "labels")
    pictures = {
        "points, annotated and detected": mark(image, points, "circle", BLUE, 3),
        "Voronoi label": label_overlay(image, voronoi, thin=True),
        "cluster label": label_overlay(image, clusters),
    }
    if options.self_training_epochs:
        found, _ = read_labels(options, files, "self_training")
        overlay = label_overlay(image, reduced_label(found, image))
        pictures["label of the first network's nuclei"] = overlay
    caption = "Orange background, green nuclei; the rest is ignored."
    if files.instances:
        truth = read_instances(files.instances, shape, files.image)
        pictures = {name: outline(one, truth, CYAN) for name, one in pictures.items()}
        caption += " Cyan: the true nuclei, which training does not see."
    panels = [Panel(name, one[window]) for name, one in pictures.items()]
    return Figure("labels", f"Labels of training image {files.name}", caption, panels)


def batch(options: Options, image_files: list[ImageFiles]) -> Figure:
    """A crop of each image as the network sees it."""
    panels = []
    for files in image_files:
        dataset = load_training(options, [files], "labels", cache="memory")
        crop = {name: np.asarray(value) for name, value in dataset[0, 0].items()}
        panels.append(Panel(files.name, crop["image"]))
        voronoi = label_overlay(crop["image"], crop["voronoi"], thin=True)
        panels.append(Panel("its Voronoi label", voronoi))
        panels.append(Panel("its cluster label", label_overlay(crop["image"], crop["clusters"])))
    caption = (
        "Resized, flipped, sheared, rotated, cropped and, half of them, deformed by B-splines: one "
        "random map for the image and both labels. Beyond the image everything is ignored."
    )
    return Figure("batch", "Training crops as the network sees them", caption, panels)


def results(options: Options, ranked: dict[str, tuple[ImageFiles, float]]) -> Figure:
    """Whole test images with the predicted and the true nuclei, missed and wrong ones marked."""
    panels = []
    for rank, (files, aji) in ranked.items():
        image = read_image(files.image)
        found, truth = read_results(options, files)
        missed, wrong = (len(ids) for ids in unmatched(overlaps(truth, found)))
        label = f"{rank}: {files.name}, AJI {aji:.3f}, {missed} missed, {wrong} wrong"
        panels.append(Panel(label, draw_errors(image, found, truth)))
    caption = (
        "Yellow outlines predicted, cyan true. Blue squares: true nuclei without a prediction at "
        "IoU over 0.5; orange crosses: predictions without such a nucleus."
    )
    return Figure("results", "Test images: worst, median and best AJI", caption, panels)


def methods(options: Options, files: ImageFiles) -> Figure:
    """The instances of one test image by each method."""
    image = read_image(files.image)
    shape = image.shape[:2]
    prob = read_prob(prob_path(results_folder(options.save_dir), files.name), shape)
    points = read_detections(options.detection_dir(), files.name, shape)
    truth = read_instances(files.instances, shape, files.image)
    window = middle(shape, SIDE)
    panels = [Panel("detected points", mark(image, points, "circle", BLUE, 3)[window])]
    for name, found in make_instances(prob, points, options.min_area).items():
        count = len(np.unique(found)) - 1
        panels.append(Panel(f"{name}: {count} in all", draw_errors(image, found, truth)[window]))
    caption = (
        "Colours as above. Components: nuclei that touch are one, as in the paper. Points: they "
        "are split at the detected points. Convex: they are split at their necks, gaps are filled, "
        "and weak ones are removed."
    )
    return Figure("methods", f"Instances of {files.name} by each method", caption, panels)


def read_results(options: Options, files: ImageFiles) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true instance map [H, W] of a test image."""
    truth = read_instances(files.instances, image_shape(files.image), files.image)
    path = instances_path(results_folder(options.save_dir), files.name)
    return read_label(path, truth.shape), truth


def write_areas(options: Options, image_files: list[ImageFiles]) -> None:
    """Write areas.json: the areas in square pixels of all true and predicted test nuclei."""
    areas: dict[str, list[int]] = {"true": [], "predicted": []}
    for files in image_files:
        found, truth = read_results(options, files)
        table = overlaps(truth, found)
        areas["true"] += [int(a) for a in table.true_area]
        areas["predicted"] += [int(a) for a in table.predicted_area]
    write_json(areas_path(options.save_dir), areas, indent=None)


def figures(options: Options) -> Iterator[Figure]:
    """All figures; those of results only where the test images have masks."""
    split = load_split(options.data_dir)
    first = split["train"][0]
    yield labels(options, first, middle(image_shape(first.image), SIDE))
    yield batch(options, split["train"][:CROPS])
    path = metrics_path(results_folder(options.save_dir))
    form = {"instances": str, "images": {str: {str: {"aji": float}}}}
    metrics = read_json(path, form) if path.is_file() else {"instances": "", "images": {}}
    scores = metrics["images"].get(metrics["instances"], {})
    scored = [files for files in split["test"] if files.name in scores]
    scored.sort(key=lambda files: scores[files.name]["aji"])
    if not scored:
        return
    write_areas(options, scored)
    places = {"median": len(scored) // 2, "best": len(scored) - 1, "worst": 0}
    chosen = {i: rank for rank, i in places.items()}  # one image may be all three
    ranked = {
        rank: (scored[i], scores[scored[i].name]["aji"]) for i, rank in sorted(chosen.items())
    }
    yield results(options, ranked)
    yield methods(options, scored[len(scored) // 2])


FIGURES = ("labels", "batch", "results", "methods")


def pictures(options: Options) -> str:
    """Write pictures/ of a finished run."""
    folder = pictures_folder(options.save_dir)
    number = write_album(folder, figures(options))
    return f"{number} figures in {folder}"


if __name__ == "__main__":
    print(run_script(lambda: do_alone(pictures, options)))
