"""What stands in for real images, slides, networks and runs: the nuclei are known."""

import cv2
import numpy as np
import tifffile
import torch

from code_common.files.writing import write_bytes
from code_common.inference.trained_run import FORMAT
from code_common.learning.checkpoints import checkpoint_bytes, save_network
from code_common.learning.network import ResUNet

PALE, DARK = (225, 180, 215), (90, 60, 140)
GLASS = 240
MPP = 0.25  # microns per pixel of a drawn slide
# Of an exported run that is older than the option nucleus_radius.
OLD_SETTINGS = {
    "detection": {"r1": 6, "threshold": 0.5, "min_area": 5, "max_area": 400},
    "segmentation": {"min_area": 10, "instances": "points"},
}
CHANNELS = {"detection": 1, "segmentation": 2}


class Darkness(torch.nn.Module):
    """A 'network' that sees a nucleus where the mean grey value of 5 x 5 pixels is low."""

    def __init__(self, channels):
        super().__init__()
        # Of the disks and what lies between them.
        self.register_buffer("mean", torch.full((1, 3, 1, 1), 0.7))
        self.register_buffer("std", torch.full((1, 3, 1, 1), 0.25))
        kernel = torch.zeros(channels, 3, 5, 5)
        kernel[-1] = -40 / 75
        self.kernel = torch.nn.Parameter(kernel)

    def forward(self, x):
        padded = torch.nn.functional.pad(x, (2, 2, 2, 2), mode="replicate")
        logits = torch.nn.functional.conv2d(padded, self.kernel)
        return logits + torch.tensor([0.0] * (len(self.kernel) - 1) + [22.0])[:, None, None]


def pale(shape):
    """A pale image without nuclei."""
    return np.full((*shape, 3), PALE, np.uint8)


def disks(shape, count, seed=0, radius=(5, 11)):
    """A pale image with dark disks that do not touch, and their centres [N, 2] (row, column)."""
    rng, image = np.random.default_rng(seed), pale(shape)
    drawn = []
    while len(drawn) < count:
        r = int(rng.integers(*radius))
        row, col = (int(rng.integers(r, n - r)) for n in shape)
        if all(np.hypot(row - y, col - x) > r + other + 8 for y, x, other in drawn):
            cv2.circle(image, (col, row), r, DARK, -1)
            drawn.append((row, col, r))
    return image, np.array(drawn)[:, :2]


def touching(shape, seed=1):
    """Clusters of disks, and rings with a disk inside; at borders, too."""
    rng, image = np.random.default_rng(seed), pale(shape)
    for _ in range(60):
        row, col = (int(rng.integers(0, n)) for n in shape)
        for _ in range(int(rng.integers(1, 5))):
            centre = (col + int(rng.integers(-14, 15)), row + int(rng.integers(-14, 15)))
            cv2.circle(image, centre, int(rng.integers(4, 12)), DARK, -1)
    for row, col in rng.integers(30, np.array(shape) - 30, (5, 2)).tolist():
        cv2.circle(image, (col, row), 26, PALE, -1)
        cv2.circle(image, (col, row), 20, DARK, 5)
        cv2.circle(image, (col, row), 5, DARK, -1)
    return image


def write_slide(path, levels=3):
    """Write a slide with glass on the right, a tiled pyramid as scanners make it.

    Returns the image [1200, 1500, 3] and the centres [N, 2] of the nuclei beside the glass.
    """
    image, centres = disks((1200, 1500), 150, radius=(10, 14))
    image[:, 900:] = GLASS
    per_cm = 1e4 / MPP
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for level in range(levels):
            size = image.shape[1] >> level, image.shape[0] >> level
            writer.write(
                cv2.resize(image, size, interpolation=cv2.INTER_AREA),
                tile=(256, 256),
                photometric="rgb",
                compression="zlib",
                resolution=(per_cm / 2**level,) * 2,
                resolutionunit="CENTIMETER",
                subfiletype=int(level > 0),
                metadata=None,
            )
    return image, centres[centres[:, 1] < 880]


def write_untrained_run(path, width=0.1, **changes):
    """Write an exported run of untrained networks; `changes` are those of what it says of each."""
    torch.manual_seed(0)
    run = {"format": FORMAT}
    for stage, settings in OLD_SETTINGS.items():
        network = ResUNet("resnet18", CHANNELS[stage], width=width)
        about = {"settings": settings, "card": {"model": network.model}}
        run[stage] = save_network(network) | about | changes
    write_bytes(path, checkpoint_bytes(run))
