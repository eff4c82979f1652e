"""Pictures of stage 2 for the report: labels, training crops, results against the true nuclei."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.config import parse
from code_common.errors import run_script
from code_common.files.data_set import Sample, load_split
from code_common.files.reading import (
    image_shape,
    read_image,
    read_instances,
    read_json,
    read_label,
    read_points,
    read_prob,
)
from code_common.files.writing import write_json
from code_common.inference.magnification import reduced_label
from code_common.reporting.album import Figure, Panel, middle, write_album
from code_common.reporting.drawing import BLUE, CYAN, ORANGE, YELLOW, mark, outline
from code_seg.evaluate import make_instances
from code_seg.metrics import overlaps, unmatched
from code_seg.options import Options
from code_seg.prepare_data import detections_path, picture
from code_seg.train import load_training, read_labels

SIDE, CROPS = 400, 4


def draw(image: np.ndarray, instances: np.ndarray, truth: np.ndarray | None) -> np.ndarray:
    """Overlay: yellow predicted, cyan true outlines; blue squares missed, orange crosses wrong.

    Missed and wrong is what has no partner at IoU over 0.5 (see `metrics.unmatched`).
    """
    if truth is None:
        return outline(image, instances, YELLOW)
    image = outline(outline(image, truth, CYAN), instances, YELLOW)
    missed, wrong = unmatched(overlaps(truth, instances))
    image = mark(image, middles(truth)[missed], "square", BLUE, 4)
    return mark(image, middles(instances)[wrong], "cross", ORANGE, 4)


def middles(instances: np.ndarray) -> np.ndarray:
    """Centre of mass [N, 2] (row, column) of each nucleus, in order of the ids."""
    ids = np.unique(instances[instances > 0])
    return np.array(ndimage.center_of_mass(instances > 0, instances, ids)).reshape(-1, 2)


def labels(options: Options, sample: Sample, window: tuple[slice, slice]) -> Figure:
    """Points, Voronoi label, cluster label and, if there is one, mask label of a training image."""
    image = read_image(sample.image)
    shape = image.shape[:2]
    points = read_points(options.save_dir / "points" / f"{sample.name}.csv", shape)
    shown = [("points, annotated and detected", mark(image, points, "circle", BLUE, 3))]
    voronoi, clusters = read_labels(options, sample.name)
    shown.append(("Voronoi label", picture(image, voronoi, thin=True)))
    shown.append(("cluster label", picture(image, clusters)))
    if options.mask_epochs:
        masks, _ = read_labels(options, sample.name, "masks")
        masks = reduced_label(masks, image)
        shown.append(("label of the first network's nuclei", picture(image, masks)))
    caption = "Orange background, green nuclei; the rest is ignored."
    if sample.instances:
        truth = read_instances(sample.instances, shape)
        shown = [(name, outline(one, truth, CYAN)) for name, one in shown]
        caption += " Cyan: the true nuclei, which training does not see."
    panels = [Panel(name, one[window]) for name, one in shown]
    return Figure("labels", f"Labels of training image {sample.name}", caption, panels)


def batch(options: Options, samples: list[Sample]) -> Figure:
    """A crop of each image as the network sees it."""
    panels = []
    for sample in samples:
        dataset = load_training(replace(options, cache="memory"), [sample], options.seed(20))
        crop = {name: np.asarray(value) for name, value in dataset[0, 0].items()}
        panels.append(Panel(sample.name, crop["image"]))
        voronoi = picture(crop["image"], crop["voronoi"], thin=True)
        panels.append(Panel("its Voronoi label", voronoi))
        panels.append(Panel("its cluster label", picture(crop["image"], crop["clusters"])))
    caption = (
        "Resized, flipped, sheared, rotated, cropped and, half of them, deformed by B-splines: one "
        "random map for the image and both labels. Beyond the image everything is ignored."
    )
    return Figure("batch", "Training crops as the network sees them", caption, panels)


def results(options: Options, ranked: dict[str, tuple[Sample, float]]) -> Figure:
    """Whole test images with the predicted and the true nuclei, missed and wrong ones marked."""
    panels = []
    for rank, (sample, aji) in ranked.items():
        image = read_image(sample.image)
        found, truth = read_results(options, sample)
        missed, wrong = (len(own) for own in unmatched(overlaps(truth, found)))
        label = f"{rank}: {sample.name}, AJI {aji:.3f}, {missed} missed, {wrong} wrong"
        panels.append(Panel(label, draw(image, found, truth)))
    caption = (
        "Yellow outlines predicted, cyan true. Blue squares: true nuclei without a prediction at "
        "IoU over 0.5; orange crosses: predictions without such a nucleus."
    )
    return Figure("results", "Test images: worst, median and best AJI", caption, panels)


def methods(options: Options, sample: Sample) -> Figure:
    """Connected components beside those split by the detected points, and convex ones."""
    image = read_image(sample.image)
    shape = image.shape[:2]
    prob = read_prob(options.save_dir / "test" / f"{sample.name}_prob.png", shape)
    points = read_points(detections_path(options.detection_dir(), sample.name), shape)
    truth = read_instances(sample.instances, shape)
    window = middle(shape, SIDE)
    panels = [Panel("detected points", mark(image, points, "circle", BLUE, 3)[window])]
    for name, found in make_instances(prob, points, options.min_area).items():
        count = len(np.unique(found)) - 1
        panels.append(Panel(f"{name}: {count} in all", draw(image, found, truth)[window]))
    caption = (
        "Colours as above. Nuclei that touch are one component, as in the paper, until points part "
        "them; convex ones are cut where they are not, completed, and dropped if little is sure."
    )
    return Figure("methods", f"Instances of {sample.name} by each method", caption, panels)


def read_results(options: Options, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true instance map [H, W] of a test image."""
    truth = read_instances(sample.instances, image_shape(sample.image))
    path = options.save_dir / "test" / f"{sample.name}_instances.tif"
    return read_label(path, truth.shape), truth


def write_areas(options: Options, samples: list[Sample]) -> None:
    """Write areas.json: the areas in square pixels of all true and predicted test nuclei."""
    tables = [
        overlaps(truth, found) for found, truth in (read_results(options, s) for s in samples)
    ]
    areas = {
        "true": [int(a) for o in tables for a in o.true_area],
        "predicted": [int(a) for o in tables for a in o.predicted_area],
    }
    write_json(options.save_dir / "pictures" / "areas.json", areas, indent=None)


def figures(options: Options) -> Iterator[Figure]:
    """All figures; those of results only where the test images have masks."""
    split = load_split(options.data_dir)
    sample = split["train"][0]
    yield labels(options, sample, middle(image_shape(sample.image), SIDE))
    yield batch(options, split["train"][:CROPS])
    metrics = options.save_dir / "test" / "metrics.json"
    scored = read_json(metrics) if metrics.is_file() else {"instances": "", "images": {}}
    scores = scored["images"].get(scored["instances"], {})
    known = sorted((s for s in split["test"] if s.name in scores),
                   key=lambda s: scores[s.name]["aji"])  # fmt: skip
    if not known:
        return
    write_areas(options, known)
    places = {"median": len(known) // 2, "best": len(known) - 1, "worst": 0}
    chosen = {i: rank for rank, i in places.items()}  # one image may be all three
    ranked = {rank: (known[i], scores[known[i].name]["aji"]) for i, rank in sorted(chosen.items())}
    yield results(options, ranked)
    yield methods(options, known[len(known) // 2])


def pictures(options: Options) -> str:
    """Write pictures/ of a finished run."""
    number = write_album(options.save_dir / "pictures", figures(options))
    return f"{number} figures in {options.save_dir / 'pictures'}"


if __name__ == "__main__":
    run_script(lambda: print(pictures(parse(Options, __doc__))))
