"""Train a few steps with the losses of both stages; a script, so that torchrun can start it.

usage: train_together.py FOLDER. Leaves the weights in FOLDER/best.pt. In float64: there, what the
order of a sum does to the last bit is too small for Adam to make a difference of it.
"""

import sys
from pathlib import Path

import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from code_common.learning.crops import CropDataset
from code_common.learning.distributed import work_together
from code_common.learning.network import ResUNet
from code_common.learning.training import Recipe, fit
from code_common.learning.transforms import Augmentation
from code_detection.losses import masked_loss
from code_seg.labels import IGNORED
from code_seg.losses import crf_loss, label_loss

CPU = torch.device("cpu")
RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 255, (96, 288, 3), np.uint8)
LABEL = RNG.integers(0, 3, IMAGE.shape[:2]).astype(np.uint8)
RECIPE = Recipe(
    epochs=2,
    batch_size=2,  # of three crops: in the last step the second process has none
    lr=1e-4,
    weight_decay=1e-4,
    seed=1,
    workers=0,
    val_every=1,
    precision=torch.float32,
    dropout=0.3,
)


class Double(ResUNet):
    """A ResUNet that computes in float64."""

    def forward(self, image, dropout=None):
        return super().forward(image.double(), dropout)


def make_crop(_, warp):
    crop = warp.image(IMAGE)
    target = crop[..., 0].astype(np.float32) / 255
    return {"image": crop, "label": warp.label(LABEL, IGNORED), "target": target}


def loss(logits, batch):
    """The losses of both stages together."""
    known = (batch["label"] != IGNORED).float()
    terms = masked_loss(logits, batch["target"], known)
    terms |= label_loss(logits, batch["label"], batch["label"], alpha=0.5)
    inside = torch.ones_like(known)
    terms |= crf_loss(
        logits,
        batch["image"],
        inside,
        weight=0.005,
        sigma_xy=3.0,
        sigma_rgb=0.1,
        backend="torch",
    )
    return terms


def main() -> None:
    torch.manual_seed(0)
    network = Double("resnet18", 2, width=0.25).double()
    dataset = CropDataset([IMAGE.shape[:2]], make_crop, Augmentation(64), patch=96, seed=1)
    folder = Path(sys.argv[1])
    fit(network, dataset, ["tile"], loss, None, RECIPE, {}, CPU, folder, "t")


work_together(CPU, main)
