"""Pictures of stage 1 for the report: the data, what is learnt, the rounds, the background."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.config import parse
from code_common.errors import run_script
from code_common.files.data_set import Sample, load_split
from code_common.files.reading import read_image, read_label, read_points, read_prob
from code_common.reporting.album import Figure, Panel, middle, shrink, write_album
from code_common.reporting.drawing import BLUE, GREEN, ORANGE, WHITE, mark, tint
from code_detection.labels import extended_gaussian_mask, weight_map
from code_detection.metrics import count
from code_detection.options import Options
from code_detection.prepare_data import all_points
from code_detection.test import draw
from code_detection.train import background_path, load_training

MOST, THUMBNAIL, SIDE, CROPS = 24, 240, 400, 4


def weight_picture(image: np.ndarray, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """What the loss sees of an image [H, W, 3]: green peaks, orange background, the rest faded.

    The rest, of which nothing is known, weighs less than 1.
    """
    picture = tint(image, (weight < 1) & (target == 0), WHITE, 0.8)
    picture = tint(picture, (weight >= 1) & (target == 0), ORANGE, 0.35)
    return tint(picture, target > 0, GREEN, 0.6)


def grey(values: np.ndarray) -> np.ndarray:
    """Values [H, W] in 0..1 as a picture [H, W, 3]: white is 0, black is 1."""
    return np.repeat(np.rint(255 * (1 - values)).astype(np.uint8)[..., None], 3, axis=2)


def in_window(points: np.ndarray, window: tuple[slice, slice]) -> np.ndarray:
    """The points [N, 2] that lie in a window, in its coordinates."""
    low, high = ([getattr(s, end) for s in window] for end in ("start", "stop"))
    return points[((points >= low) & (points < high)).all(1)] - low


def sheet(options: Options, split: dict[str, list[Sample]]) -> Figure:
    """Thumbnails of the data set with the annotated points."""
    panels, folders = [], {"train": "points", "val": "val_points"}
    total = sum(len(split[part]) for part in ("train", "val", "test"))
    for part in ("train", "val", "test"):
        for sample in split[part][: MOST - len(panels)]:
            image = read_image(sample.image)
            small, label = shrink(image, THUMBNAIL), f"{part}: {sample.name}"
            path = options.save_dir / folders.get(part, "") / f"{sample.name}.csv"
            if part in folders and path.is_file():
                points = read_points(path, image.shape[:2])
                places = points * small.shape[0] // image.shape[0]
                small = mark(small, places, "circle", BLUE, 2)
                label += f", {len(points)} points"
            panels.append(Panel(label, small))
    caption = (
        f"{len(panels)} of {total} images. Blue: the annotated points that train, and in the "
        "validation images those that choose the checkpoint."
    )
    return Figure("data", "The data set and its points", caption, panels)


def target(options: Options, image: np.ndarray, points: np.ndarray) -> Figure:
    """Extended Gaussian mask of the partial points: target and weight."""
    shape = image.shape[:2]
    goal, known = extended_gaussian_mask(points, shape, options.r1, options.r2, options.sigma)
    nothing, inside = np.zeros(shape, bool), np.ones(shape, bool)
    weight = weight_map(goal, known, nothing, inside, options.peak_weight)
    panels = [
        Panel("partial points", mark(image, points, "circle", BLUE, 4)),
        Panel("Gaussian target", grey(goal)),
        Panel("what the loss sees", weight_picture(image, goal, weight)),
    ]
    weighs = f"it weighs {options.unknown_weight:g}, as background"
    caption = (
        f"Green: the peak (weight {options.peak_weight:g}). Orange: background out to r2 = "
        f"{options.r2:g} px (weight 1). Faded: nothing is known, so "
        f"{weighs if options.unknown_weight else 'it does not count'}."
    )
    return Figure("target", "Extended Gaussian mask of the partial points", caption, panels)


def batch(options: Options, samples: list[Sample]) -> Figure:
    """A crop of each image as the network of the last round sees it."""
    panels = []
    for sample in samples:
        crop = load_training(replace(options, cache="memory"), [sample])[0, 0]
        arrays = [crop[name].numpy() for name in ("image", "target", "weight")]
        panels += [Panel(sample.name, arrays[0]), Panel("its weight", weight_picture(*arrays))]
    caption = (
        "Resized, flipped, sheared, rotated and cropped by one random map; points are moved and "
        f"then rendered. Weights of round {options.round}; beyond the image they are 0."
    )
    return Figure("batch", "Training crops as the network sees them", caption, panels)


def rounds(options: Options, sample: Sample, window: tuple[slice, slice]) -> Figure:
    """Probability map and detections of each round on a training image."""
    image = read_image(sample.image)
    shape, out = image.shape[:2], options.save_dir
    truth, panels = all_points(sample, shape), []
    folders = {r: out / f"round_{r}" / "train" for r in range(options.rounds)}
    if options.round == options.rounds:
        folders[options.rounds] = out / "detections"
    for r, folder in folders.items():
        prob = read_prob(folder / f"{sample.name}_prob.png", shape)
        detected = read_points(folder / f"{sample.name}_points.csv", shape)
        label = f"round {r}: {len(detected)} detections"
        inner = None
        if truth is not None:
            tp, fp, fn, _ = count(detected, truth, options.r1)
            label, inner = (
                f"round {r}: {tp} right, {fp} wrong, {fn} missed",
                in_window(truth, window),
            )
        picture = grey(prob[window])
        panels.append(Panel(label, draw(picture, in_window(detected, window), inner, options.r1)))
    caption = (
        "Probability (black is 1) and detections, counted over the whole image against all known "
        "points: green circles right, orange crosses wrong, blue squares missed."
    )
    return Figure("rounds", f"Self-training, training image {sample.name}", caption, panels)


def background(options: Options, sample: Sample, window: tuple[slice, slice]) -> Figure:
    """The background that was propagated into each round."""
    image = read_image(sample.image)
    shape, panels = image.shape[:2], []
    points = read_points(options.save_dir / "points" / f"{sample.name}.csv", shape)
    places = in_window(points, window)
    for r in range(1, options.rounds + 1):
        area = read_label(background_path(options.save_dir, r, sample.name), shape) > 0
        picture = tint(image[window], area[window], ORANGE, 0.55)
        label = f"into round {r}: {area.mean():.0%} of the image"
        panels.append(Panel(label, mark(picture, places, "circle", BLUE, 4)))
    caption = (
        f"Orange: where the round before gave less than {options.background_below:g}, or a "
        "component too large for a nucleus. Blue: annotated points, whose surroundings stay free."
    )
    return Figure("background", "Background propagation", caption, panels)


def figures(options: Options) -> Iterator[Figure]:
    """All figures; those of the rounds show the first training image."""
    split = load_split(options.data_dir)
    sample = split["train"][0]
    image = read_image(sample.image)
    window = middle(image.shape[:2], SIDE)
    points = read_points(options.save_dir / "points" / f"{sample.name}.csv", image.shape[:2])
    yield sheet(options, split)
    yield target(options, image[window], in_window(points, window))
    yield batch(options, split["train"][:CROPS])
    yield rounds(options, sample, window)
    if options.rounds:
        yield background(options, sample, window)


def pictures(options: Options) -> str:
    """Write pictures/ of a finished run, whose detections are of the round `options.round`."""
    number = write_album(options.save_dir / "pictures", figures(options))
    return f"{number} figures in {options.save_dir / 'pictures'}"


if __name__ == "__main__":
    run_script(lambda: print(pictures(parse(Options, __doc__))))
