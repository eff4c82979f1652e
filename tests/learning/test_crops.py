"""Crops depend on seed, epoch and index alone."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from code_common.learning.crops import CropDataset, make_loader
from code_common.learning.patches import windows
from code_common.learning.transforms import Augmentation

IMAGES = [np.random.default_rng(i).integers(0, 255, (70, 90, 3), np.uint8) for i in range(3)]
SIDE = 32  # of a crop in pixels


def crop_of(index, warp):
    return {"image": warp.image(IMAGES[index])}


def loader(seed=0, workers=0, stain=0.0):
    """Batches of four crops of three images, of which each has 2 x 3 patches."""
    shapes = [image.shape[:2] for image in IMAGES]
    dataset = CropDataset(shapes, crop_of, Augmentation(SIDE), patch=40, seed=seed, stain=stain)
    return make_loader(dataset, batch_size=4, workers=workers, pin=False)


def crops(seed=0, epoch=0, workers=0, stain=0.0):
    """All crops [N, SIDE, SIDE, 3] of an epoch."""
    batches = loader(seed, workers, stain)
    batches.batch_sampler.epoch = epoch
    return torch.cat([b["image"] for b in batches])


def test_every_patch_once_per_epoch():
    assert crops().shape == (3 * 2 * 3, SIDE, SIDE, 3)


def test_a_tile_smaller_than_a_patch_is_in_the_middle_of_its_crops():
    """Along that side; along the other one the crops are those of any tile."""
    size, patch, shape, warps = 40, 60, (20, 200), []

    def note(index, warp):
        warps.append(warp)
        return {"image": np.zeros((1, 1, 3))}

    augmentation = Augmentation(size)
    dataset = CropDataset([shape], note, augmentation, patch, seed=0)
    keys = [(epoch, index) for epoch in range(50) for index in range(len(dataset))]
    for key in keys:
        dataset[key]
    centres = np.array([warp.matrix @ [size / 2 - 0.5, size / 2 - 0.5, 1] for warp in warps])
    play = (patch - size / augmentation.scale[1]) / 2
    off = centres[:, 1] - (shape[0] - 1) / 2
    assert -play <= off.min() < -play / 2 and play / 2 < off.max() <= play
    corners = windows(shape, patch)
    for (epoch, index), warp in zip(keys, warps, strict=True):
        rng = np.random.default_rng((0, epoch, index))
        plain = augmentation.draw(rng, corners[index], patch)
        assert np.array_equal(warp.matrix[0], plain.matrix[0])  # x, by a bit


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_nothing(workers):
    assert torch.equal(crops(epoch=2), crops(epoch=2, workers=workers))


WORKER = """
import socket, sys, time
from multiprocessing import resource_sharer
from tests.learning.test_crops import loader

loader(workers=1).worker_init_fn(0)
address, _ = resource_sharer.DupFd(1)._id  # as a worker hands over a tensor
for heard in (0, 4, 1000):  # a reader that hangs up at once, amid the greeting, and after it
    with socket.socket(socket.AF_UNIX) as reader:
        reader.connect(address)
        reader.recv(heard)
    time.sleep(0.2)
"""


def run_worker(code):
    """Run Python code in a process of its own, in the project's folder."""
    project = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=project, capture_output=True, text=True)


def test_a_worker_is_silent_about_a_reader_that_is_gone():
    """Else a run stopped while it takes a batch ends with the traceback of one of its workers."""
    done = run_worker(WORKER)
    assert (done.returncode, done.stderr) == (0, "")
    assert "ValueError" in run_worker(WORKER + "raise ValueError").stderr


def test_epochs_and_seeds_differ():
    """D16: random numbers of the workers do not repeat each epoch."""
    assert not torch.equal(crops(epoch=0), crops(epoch=1))
    assert not torch.equal(crops(seed=0), crops(seed=1))


def test_stains_change_colours_and_not_places():
    """The same crops of noise: any other place would not be like them at all."""
    plain, stained = (crops(stain=s).numpy().astype(float) for s in (0.0, 0.2))
    assert not np.array_equal(plain, stained)
    for before, after in zip(plain.mean(-1), stained.mean(-1), strict=True):
        assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.5
