"""Pictures of stage 1 for the report: the data, what is learnt, the rounds, the background."""

import sys
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.config import read_command_line
from code_detection.options import Options, PicturesOptions

if __name__ == "__main__":
    options = read_command_line(PicturesOptions, __doc__)

from collections.abc import Iterator
from functools import partial

import numpy as np

from code_common.detection_scores import count
from code_common.errors import run_script
from code_common.files.data_set import ImageFiles, load_split
from code_common.files.images import read_image, read_prob
from code_common.files.reading import read_points
from code_common.files.run_folder import (
    detected_points_path,
    detections_folder,
    pictures_folder,
    points_path,
    prob_path,
    round_detections_folder,
    val_points_path,
)
from code_common.reporting.album import Figure, Panel, middle, shrink, write_album
from code_common.reporting.drawing import BLUE, GREEN, ORANGE, WHITE, mark, tint
from code_common.runs.steps import do_alone
from code_detection.dataset import load_training, read_background, true_points
from code_detection.detect import chosen_round, draw_detections
from code_detection.labels import extended_gaussian_mask, weight_map

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
    low, high = [part.start for part in window], [part.stop for part in window]
    return points[((points >= low) & (points < high)).all(1)] - low


def sheet(options: Options, split: dict[str, list[ImageFiles]]) -> Figure:
    """Thumbnails of the data set with the annotated points."""
    panels, point_files = [], {"train": points_path, "val": val_points_path}
    total = sum(len(split[part]) for part in ("train", "val", "test"))
    for part in ("train", "val", "test"):
        for files in split[part][: MOST - len(panels)]:
            image = read_image(files.image)
            small, label = shrink(image, THUMBNAIL), f"{part}: {files.name}"
            path = point_files[part](options.save_dir, files.name) if part in point_files else None
            if path and path.is_file():
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


def batch(options: Options, image_files: list[ImageFiles], round: int) -> Figure:
    """A crop of each image as the network of a round sees it."""
    panels = []
    for files in image_files:
        crop = load_training(options, [files], round, cache="memory")[0, 0]
        arrays = [crop[name].numpy() for name in ("image", "target", "weight")]
        panels += [Panel(files.name, arrays[0]), Panel("its weight", weight_picture(*arrays))]
    caption = (
        "Resized, flipped, sheared, rotated and cropped by one random map; points are moved and "
        f"then rendered. Weights of round {round}; beyond the image they are 0."
    )
    return Figure("batch", "Training crops as the network sees them", caption, panels)


def rounds(
    options: Options, files: ImageFiles, window: tuple[slice, slice], final_round: int
) -> Figure:
    """Probability map and detections of each round on a training image."""
    image = read_image(files.image)
    shape, out = image.shape[:2], options.save_dir
    truth, panels = true_points(files, shape), []
    folders = {r: round_detections_folder(out, r) for r in range(options.rounds)}
    if final_round == options.rounds:
        folders[options.rounds] = detections_folder(out)
    for r, folder in folders.items():
        prob = read_prob(prob_path(folder, files.name), shape)
        detected = read_points(detected_points_path(folder, files.name), shape)
        label, truth_inside = f"round {r}: {len(detected)} detections", None
        if truth is not None:
            tp, fp, fn, _ = count(detected, truth, options.r1)
            label = f"round {r}: {tp} right, {fp} wrong, {fn} missed"
            truth_inside = in_window(truth, window)
        inside = in_window(detected, window)
        picture = draw_detections(grey(prob[window]), inside, truth_inside, options.r1)
        panels.append(Panel(label, picture))
    caption = (
        "Probability (black is 1) and detections, counted over the whole image against all known "
        "points: green circles right, orange crosses wrong, blue squares missed."
    )
    return Figure("rounds", f"Self-training, training image {files.name}", caption, panels)


def background(options: Options, files: ImageFiles, window: tuple[slice, slice]) -> Figure:
    """The background that was propagated into each round."""
    image = read_image(files.image)
    shape, panels = image.shape[:2], []
    points = read_points(points_path(options.save_dir, files.name), shape)
    places = in_window(points, window)
    for r in range(1, options.rounds + 1):
        area = read_background(options.save_dir, r, files.name, shape)
        picture = tint(image[window], area[window], ORANGE, 0.55)
        label = f"into round {r}: {area.mean():.0%} of the image"
        panels.append(Panel(label, mark(picture, places, "circle", BLUE, 4)))
    caption = (
        f"Orange: where the round before gave less than {options.background_below:g}, or a "
        "component too large for a nucleus. Blue: annotated points, whose surroundings stay free."
    )
    return Figure("background", "Background propagation", caption, panels)


def figures(options: Options, final_round: int) -> Iterator[Figure]:
    """All figures; those of the rounds show the first training image."""
    split = load_split(options.data_dir)
    files = split["train"][0]
    image = read_image(files.image)
    window = middle(image.shape[:2], SIDE)
    points = read_points(points_path(options.save_dir, files.name), image.shape[:2])
    yield sheet(options, split)
    yield target(options, image[window], in_window(points, window))
    yield batch(options, split["train"][:CROPS], final_round)
    yield rounds(options, files, window, final_round)
    if options.rounds:
        yield background(options, files, window)


FIGURES = ("data", "target", "batch", "rounds", "background")


def pictures_of(options: Options, final_round: int) -> str:
    """Write pictures/ of a finished run, whose detections are of the round `final_round`."""
    folder = pictures_folder(options.save_dir)
    number = write_album(folder, figures(options, final_round))
    return f"{number} figures in {folder}"


if __name__ == "__main__":
    action = partial(do_alone, lambda o: pictures_of(o, chosen_round(o.save_dir)), options)
    print(run_script(action))
