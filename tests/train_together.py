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
from code_seg.losses import crf_term, label_terms

CPU = torch.device("cpu")


class Double(ResUNet):
    def forward(self, image, dropout=None):
        return super().forward(image.double(), dropout)


def main() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (96, 288, 3), np.uint8)
    label = rng.integers(0, 3, image.shape[:2]).astype(np.uint8)

    def make_crop(index, warp):
        crop, own = warp.image(image), warp.label(label, 2)
        return {"image": crop, "label": own, "target": crop[..., 0].astype(np.float32) / 255}

    def loss(logits, batch):
        known = (batch["label"] != 2).float()
        terms = {"mse": masked_loss(logits, batch["target"], known)}
        terms |= label_terms(logits, batch["label"], batch["label"], 0.5)
        inside = torch.ones_like(known)
        return terms | crf_term(logits, batch["image"], inside, 0.005, 3.0, 0.1, "torch")

    torch.manual_seed(0)
    network = Double("resnet18", 2).double()
    # Three crops in batches of two: in the last step the second process has none.
    dataset = CropDataset([image.shape[:2]], make_crop, Augmentation(64), 96, 1)
    recipe = Recipe("resnet18", 2, 2, 1e-4, 1e-4, 1, 0, 1, torch.float32, dropout=0.3)
    fit(network, dataset, ["tile"], loss, None, recipe, CPU, Path(sys.argv[1]), "t")


work_together(CPU, main)
