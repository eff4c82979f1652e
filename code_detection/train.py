"""Train one round of the detector, from partial points and the propagated background."""

import sys
from pathlib import Path

import numpy as np
import torch

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.config import parse
from code_common.errors import InputError, run_script
from code_common.files.data_set import Sample, load_split
from code_common.files.reading import read_image, read_label, read_points
from code_common.inference.detections import detect
from code_common.inference.tiling import predict_prob
from code_common.learning import distributed
from code_common.learning.checkpoints import load_encoder
from code_common.learning.colours import read_colours
from code_common.learning.crops import CropDataset
from code_common.learning.image_cache import keeper
from code_common.learning.network import ResUNet
from code_common.learning.training import fit, train_members
from code_common.learning.transforms import Augmentation, Warp
from code_detection.labels import extended_gaussian_mask, weight_map
from code_detection.losses import masked_loss
from code_detection.metrics import add, count
from code_detection.options import Options

THRESHOLDS = tuple(round(0.05 * k, 2) for k in range(3, 13))  # that --auto-threshold tries


def background_path(save_dir: Path, round: int, name: str) -> Path:
    """The background label that a round is trained with."""
    return save_dir / f"round_{round}" / "background" / f"{name}.png"


def load_training(options: Options, samples: list[Sample], member: int = 0) -> CropDataset:
    """The crops of training images in the round `options.round`."""
    keep = keeper(options.save_dir / "cache", [s.image for s in samples], 4, options.cache)
    images, points, backgrounds = [], [], []
    for sample in samples:
        image = read_image(sample.image)
        shape = image.shape[:2]
        background = np.zeros(shape, np.uint8)
        if options.round:
            path = background_path(options.save_dir, options.round, sample.name)
            background = (read_label(path, shape) > 0).astype(np.uint8)
        images.append(keep(f"{sample.name}_image", image))
        points.append(read_points(options.save_dir / "points" / f"{sample.name}.csv", shape))
        backgrounds.append(keep(f"{sample.name}_background", background))

    def make_crop(index: int, warp: Warp) -> dict[str, np.ndarray]:
        moved = warp.points(points[index])
        shape = (warp.size, warp.size)
        target, known = extended_gaussian_mask(moved, shape, options.r1, options.r2, options.sigma)
        background = warp.label(backgrounds[index], 0) > 0
        inside = warp.inside(images[index].shape[:2])
        weight = weight_map(
            target, known, background, inside, options.peak_weight, options.unknown_weight
        )
        return {"image": warp.image(images[index]), "target": target, "weight": weight}

    return CropDataset(
        [image.shape[:2] for image in images],
        make_crop,
        Augmentation(size=options.input_size),
        options.patch_size,
        options.seed(1 + options.round, member),
        options.stain_augmentation,
    )


def make_validate(options: Options, network: torch.nn.Module, tiling: dict):
    """A function that scores the network on the validation images, or None without points."""
    samples = load_split(options.data_dir)["val"]
    paths = [options.save_dir / "val_points" / f"{s.name}.csv" for s in samples]
    images = []
    for sample, path in zip(samples, paths, strict=True):
        if path.is_file():
            image = read_image(sample.image)
            images.append((image, read_points(path, image.shape[:2])))
    if not images:
        return None
    near = options.r2 if options.val_points == "partial" else None

    def scores_at(probs: list[np.ndarray], threshold: float) -> dict[str, float]:
        counts = []
        for prob, (_, points) in zip(probs, images, strict=True):
            detected = detect(prob, threshold, options.min_area, options.max_area)
            counts.append(count(detected, points, options.r1, near))
        return add(counts).scores()

    def validate() -> dict[str, float]:
        probs = [predict_prob(network, image, tiling) for image, _ in images]
        tried = THRESHOLDS if options.auto_threshold else (options.threshold,)
        found = {threshold: scores_at(probs, threshold) for threshold in tried}
        threshold = max(found, key=lambda t: found[t]["f1"])
        best = {k: found[threshold][k] for k in ("precision", "recall", "f1")}
        chosen = {"threshold": threshold} if options.auto_threshold else {}
        return {"score": best["f1"], **best, **chosen}

    return validate


def train_one(options: Options, member: int, folder: Path, title: str, say=print) -> dict:
    """Train one network of the round; returns what its encoder started from."""
    device = options.choose_device()
    colours = read_colours(options.save_dir / "colours.json")
    torch.manual_seed(options.seed(1, member))
    network = ResUNet(options.model, 1, *colours, options.width, options.stem_stride)
    pretrained = load_encoder(network, options.model, options.pretrained)
    samples = load_split(options.data_dir)["train"]
    dataset, names = load_training(options, samples, member), [s.name for s in samples]
    validate = make_validate(options, network, {**options.tiling(device), "views": 1})
    if validate is None and distributed.rank() == 0:
        say("no points for the validation images: the last epoch is taken as the best")

    def loss(logits: torch.Tensor, batch: dict) -> dict:
        own = batch["target"], batch["weight"], options.loss
        return {options.loss: masked_loss(logits, *own)}

    recipe = options.recipe(device, dataset.seed)
    best = fit(network, dataset, names, loss, validate, recipe, device, folder, title, say)
    if not best.is_file():
        raise InputError(f"{folder}: no epoch gave a score; see {folder / 'log.csv'}")
    return {"pretrained_loaded": pretrained}


def train(options: Options, say=print) -> dict:
    """Train the round `options.round`; returns what the encoders started from.

    Every round starts from the same first weights (Qu et al. 2020). Writes round_N/best.pt and
    round_N/log.csv.
    """

    device = options.choose_device()
    return train_members(
        options.save_dir / f"round_{options.round}",
        f"detection round {options.round}",
        options.members,
        lambda member, folder, title: train_one(options, member, folder, title, say),
        lambda network: make_validate(options, network, options.tiling(device)),
        options.model,
        device,
        say,
    )


if __name__ == "__main__":
    run_script(lambda: parse(Options, __doc__).run(train))
