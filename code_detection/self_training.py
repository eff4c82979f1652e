"""Self-training with background propagation (Qu et al. 2020, Sec. III-A-2): the whole round.

Where the last round saw no nucleus is background for the next one, which is trained anew from the
same first weights.
"""

from functools import partial
from pathlib import Path

import cv2
import numpy as np

from code_common.detection_scores import add
from code_common.files.data_set import ImageFiles
from code_common.files.images import image_shape, read_prob
from code_common.files.reading import read_points
from code_common.files.run_folder import (
    background_path,
    best_path,
    points_path,
    prob_path,
    result_paths,
    round_detections_folder,
    round_folder,
)
from code_common.files.writing import write_png
from code_common.learning.checkpoints import load_state, scores_of, was_validated
from code_common.runs.estimate import inference_work, training_work, validation_work
from code_common.runs.removal import remove_unfinished
from code_common.runs.steps import Step
from code_detection.detect import detect_images
from code_detection.labels import distance_to
from code_detection.options import Options
from code_detection.train import train_round


def self_training_round(
    options: Options, split: dict[str, list[ImageFiles]], round: int
) -> list[Step]:
    """The steps of a round: background from the round before, training, detecting for the next.

    The initial round, 0, has no round before it, and the last one detects later, for stage 2.
    """
    train, epochs = split["train"], options.epochs
    steps = []
    if round:
        action = partial(propagate, options, train, round)
        written = [background_path(Path(), round, files.name) for files in train]
        steps.append(Step(f"background for round {round}", action, writes=written))
    steps.append(
        Step(
            f"train round {round}",
            action=partial(train_round, options, round),
            work=training_work(train, options, epochs)
            + validation_work(split["val"], options, epochs),
            together=True,
            tidy=partial(
                remove_unfinished, options.save_dir, round_folder(options.save_dir, round)
            ),
            writes=[best_path(round_folder(Path(), round))],
        )
    )
    if round < options.rounds:
        folder = round_detections_folder(options.save_dir, round)
        found = result_paths(round_detections_folder(Path(), round), [f.name for f in train])
        steps.append(
            Step(
                f"detect with round {round}",
                action=partial(detect_training, options, train, round, folder),
                work=inference_work(train, options, options.views),
                together=True,
                writes=found,
            )
        )
    return steps


def propagate_background(
    prob: np.ndarray,
    annotated: np.ndarray,
    background_below: float,
    merged_above: float,
    max_area: int,
    r1: float,
) -> np.ndarray:
    """Background label [H, W] bool for the next round from this round's probability map.

    prob [H, W] in 0..1; annotated [N, 2]: row, column. Background is where the probability is
    under `background_below`, and components over `merged_above` larger than `max_area` square
    pixels, which are no single nucleus. The surroundings (r1) of an annotated point, and a
    component that holds one, never become background (D7).
    """
    background = prob < background_below
    merged = (prob > merged_above).astype(np.uint8)
    _, components, stats, _ = cv2.connectedComponentsWithStats(merged, connectivity=8)
    large = stats[:, cv2.CC_STAT_AREA] > max_area
    large[0] = False
    large[components[annotated[:, 0], annotated[:, 1]]] = False
    background |= large[components]
    return background & (distance_to(annotated, prob.shape, r1) >= r1)


def propagate(options: Options, image_files: list[ImageFiles], round: int) -> str:
    """Write the background labels of a round from the probability maps of the one before."""
    out, shares = options.save_dir, []
    before = round_detections_folder(out, round - 1)
    for files in image_files:
        shape = image_shape(files.image)
        background = propagate_background(
            read_prob(prob_path(before, files.name), shape),
            read_points(points_path(out, files.name), shape),
            options.background_below,
            options.merged_above,
            options.max_area,
            options.r1,
        )
        shares.append(background.mean())
        write_png(background_path(out, round, files.name), background.astype(np.uint8) * 255)
    return f"{np.mean(shares):.0%} of the training pixels are background"


def detect_training(options: Options, image_files: list[ImageFiles], round: int, out: Path) -> str:
    """Detect the nuclei of training images with a round; returns what to tell."""
    best = best_path(round_folder(options.save_dir, round))
    counts = detect_images(options, image_files, best, out).values()
    known = [c for c in counts if c is not None]
    if not known:
        return f"with round {round}"
    # Where all points are known, how good the detections are; only told, nothing is chosen by it.
    f1 = add(known).scores()["f1"]
    return f"round {round}, F1 {f1:.3f} against all known points"


def choose_round(options: Options) -> int:
    """The round whose detections count: the last one, or the best on the validation images.

    Without points in these no round is known to be better than the last one.
    """
    scores = scores_of_rounds(options) if options.final_round == "best" else []
    return int(np.argmax(scores)) if scores else options.rounds


def scores_of_rounds(options: Options) -> list[float]:
    """F1 of each round on the validation images; empty where these have no points."""
    rounds = range(options.rounds + 1)
    paths = [best_path(round_folder(options.save_dir, r)) for r in rounds]
    scores = [scores_of(load_state(path), path) for path in paths]
    return [of_round["score"] for of_round in scores] if all(map(was_validated, scores)) else []


def better_round(options: Options) -> str:
    """What to tell where the last round counts, and the validation images prefer another one."""
    scores = scores_of_rounds(options) if options.final_round == "last" else []
    if not scores or max(scores) == scores[-1]:
        return ""
    best = int(np.argmax(scores))
    return (
        f"; round {best} was better on the validation images (F1 {scores[best]:.3f}, not "
        f"{scores[-1]:.3f}): --final-round best takes it"
    )
