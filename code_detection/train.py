"""Train one round of the detector, from partial points and the propagated background."""

import sys
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.config import read_command_line
from code_detection.options import Options, TrainOptions

if __name__ == "__main__":
    options = read_command_line(TrainOptions, __doc__)

from functools import partial

import numpy as np
import torch

from code_common.detection_scores import add, count
from code_common.files.data_set import load_split
from code_common.files.images import read_image
from code_common.files.reading import read_points
from code_common.files.run_folder import (
    background_path,
    points_path,
    round_folder,
    val_points_path,
)
from code_common.inference.detections import detect
from code_common.inference.tiling import Tiling, predict_prob
from code_common.launch import choose_device, first_network, made_of, recipe_of, run, tiling_of
from code_common.learning import distributed
from code_common.learning.loss_terms import LossTerm
from code_common.learning.network import ResUNet
from code_common.learning.training import Validate, fit
from code_common.options import Purpose
from code_common.runs.steps import do_alone
from code_detection.dataset import load_training
from code_detection.losses import masked_loss

THRESHOLDS = tuple(round(0.05 * k, 2) for k in range(3, 13))  # that --auto-threshold tries


def make_validate(options: Options, network: ResUNet, tiling: Tiling) -> Validate | None:
    """A function that scores the network on the validation images, or None without points."""
    images, points = [], []
    for files in load_split(options.data_dir)["val"]:
        path = val_points_path(options.save_dir, files.name)
        if path.is_file():
            images.append(read_image(files.image))
            points.append(read_points(path, images[-1].shape[:2]))
    if not images:
        return None
    # With partial points a detection far from all of them may be a nucleus nobody annotated.
    known_within = options.r2 if options.val_points == "partial" else None

    def scores_at(probs: list[np.ndarray], threshold: float) -> dict[str, float]:
        counts = []
        for prob, true in zip(probs, points, strict=True):
            detected = detect(prob, threshold, options.min_area, options.max_area)
            counts.append(count(detected, true, options.r1, known_within))
        return add(counts).scores()

    def validate() -> dict[str, float]:
        probs = [predict_prob(network, image, tiling) for image in images]
        tried = THRESHOLDS if options.auto_threshold else (options.threshold,)
        scores = {threshold: scores_at(probs, threshold) for threshold in tried}
        threshold = max(scores, key=lambda t: scores[t]["f1"])
        best = {name: scores[threshold][name] for name in ("precision", "recall", "f1")}
        chosen = {"threshold": threshold} if options.auto_threshold else {}
        return {"score": best["f1"], **best, **chosen}

    return validate


def train_round(options: Options, round: int) -> dict[str, str]:
    """Train a round; returns what its encoder started from.

    Every round starts from the same first weights (Qu et al. 2020). Writes round_N/best.pt and
    round_N/log.csv.
    """
    device = choose_device(options)
    torch.manual_seed(options.seed(Purpose.DETECTION))
    network, used = first_network(options, "detection")

    split, out = load_split(options.data_dir), options.save_dir
    image_files = split["train"]
    learnt_from = {
        "images": [files.image for files in image_files + split["val"]],
        "points": [points_path(out, files.name) for files in image_files],
        "validation points": [val_points_path(out, files.name) for files in split["val"]],
        "background": [background_path(out, round, f.name) for f in image_files if round],
    }
    dataset = load_training(options, image_files, round, options.cache)
    validate = make_validate(options, network, tiling_of(options, device).one_view())
    if validate is None and distributed.is_main():
        threshold = f"; --threshold {options.threshold:g} is kept" if options.auto_threshold else ""
        print(
            f"no points for the validation images: the last epoch is taken as the best{threshold}"
        )

    def loss(logits: torch.Tensor, batch: dict[str, torch.Tensor]) -> dict[str, LossTerm]:
        return masked_loss(logits, batch["target"], batch["weight"], options.loss)

    fit(
        network,
        dataset,
        names=[files.name for files in image_files],
        loss_fn=loss,
        validate=validate,
        recipe=recipe_of(options, device, dataset.seed),
        made_of=made_of(options, TrainOptions, learnt_from),
        device=device,
        folder=round_folder(out, round),
        title=f"detection round {round}",
    )
    return used


def train(options: TrainOptions) -> None:
    """Train the round `options.round`."""
    train_round(options, options.round)


if __name__ == "__main__":
    run(partial(do_alone, train, trains=True), options)
