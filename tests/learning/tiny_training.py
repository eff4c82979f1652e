"""A training of seconds: four crops of one image of noise, learnt in batches of two."""

from pathlib import Path

import numpy as np
import torch

from code_common.learning.crops import CropDataset
from code_common.learning.loss_terms import LossTerm
from code_common.learning.network import ResUNet
from code_common.learning.training import Recipe, fit
from code_common.learning.transforms import Augmentation

CPU = torch.device("cpu")
IMAGE = np.random.default_rng(0).integers(0, 255, (48, 80, 3), np.uint8)
STEPS = 2  # of an epoch


def recipe(**changes) -> Recipe:
    """The recipe of a tiny training, but for some changes."""
    values = {
        "epochs": 4,
        "batch_size": 2,
        "lr": 1e-3,
        "weight_decay": 1e-4,
        "seed": 1,
        "workers": 0,
        "val_every": 1,
        "precision": torch.float32,
    }
    return Recipe(**values | changes)


def grey_crop(index, warp) -> dict[str, np.ndarray]:
    """A crop, and its mean grey value as the target."""
    crop = warp.image(IMAGE)
    return {"image": crop, "target": crop.mean(-1).astype(np.float32) / 255}


def squared_error(logits, batch) -> dict[str, LossTerm]:
    """Two terms, of which one is always 0."""
    error = (logits[:, 0] - batch["target"]).square()
    return {
        "mse": LossTerm(sum=error.sum(), count=torch.tensor(error.numel())),
        "zero": LossTerm(sum=logits.sum() * 0, count=torch.tensor(1)),
    }


def scores_of(*scores: float):
    """A validation that gives these scores, one after the other."""
    left = iter(scores)
    return lambda: {"score": next(left)}


def train(
    folder: Path, network=None, loss_fn=squared_error, validate=None, made_of=None, **changes
) -> torch.nn.Module:
    """Train a network, a ResNet-18 for None, and return it; `changes` are those of the recipe."""
    torch.manual_seed(0)
    network = network or ResUNet("resnet18", 1)
    dataset = CropDataset(
        shapes=[IMAGE.shape[:2]],
        make_crop=grey_crop,
        augmentation=Augmentation(size=32),
        patch=40,
        seed=1,
    )
    fit(
        network, dataset, ["tile"], loss_fn, validate, recipe(**changes), made_of or {}, CPU,
        folder, "t",
    )  # fmt: skip
    return network
