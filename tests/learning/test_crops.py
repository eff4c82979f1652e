"""Crops depend on seed, epoch and index alone."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from code_common.files.writing import write_png
from code_common.learning.colours import ColourStatistics
from code_common.learning.crops import CropDataset, make_loader
from code_common.learning.image_cache import keeper
from code_common.learning.transforms import Augmentation, centre_crop

IMAGES = [np.random.default_rng(i).integers(0, 255, (70, 90, 3), np.uint8) for i in range(3)]


def loader(seed=0, workers=0, stain=0.0):
    dataset = CropDataset(
        [i.shape[:2] for i in IMAGES],
        lambda index, warp: {"image": warp.image(IMAGES[index])},
        Augmentation(32),
        40,
        seed,
        stain,
    )
    return make_loader(dataset, 4, workers, False)


def crops(seed=0, epoch=0, workers=0, stain=0.0):
    batches = loader(seed, workers, stain)
    batches.batch_sampler.epoch = epoch
    return torch.cat([b["image"] for b in batches])


def test_every_patch_once_per_epoch():
    assert crops().shape == (3 * 2 * 3, 32, 32, 3)


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


def test_a_worker_is_silent_about_a_reader_that_is_gone():
    """Else a run stopped while it takes a batch ends with the traceback of one of its workers."""

    def run(code):
        return subprocess.run(
            [sys.executable, "-c", code], cwd=Path(__file__).parents[2],
            capture_output=True, text=True,
        )  # fmt: skip

    done = run(WORKER)
    assert (done.returncode, done.stderr) == (0, "")
    assert "ValueError" in run(WORKER + "raise ValueError").stderr


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


def test_colour_statistics_are_those_of_all_pixels():
    statistics = ColourStatistics()
    for image in IMAGES:
        statistics.add(image)
    pixels = np.concatenate([i.reshape(-1, 3) for i in IMAGES]) / 255
    assert np.allclose(statistics.result()["mean"], pixels.mean(0))
    assert np.allclose(statistics.result()["std"], pixels.std(0))


def test_arrays_on_disk_are_the_same_arrays(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
    path = tmp_path / "tile.png"
    write_png(path, image)
    assert keeper(tmp_path, [path], 5, "memory")("a", image) is image
    assert keeper(tmp_path, [path], 5, "auto")("a", image) is image
    huge = keeper(tmp_path / "cache", [path], 1 << 40, "auto")
    for keep in (huge, keeper(tmp_path / "cache", [path], 5, "disk")):
        kept = keep("a", image)
        assert np.array_equal(kept, image) and not kept.flags.writeable
        assert isinstance(kept.base, np.memmap)
        warp = centre_crop(16, (0, 0), 30)
        assert np.array_equal(warp.image(kept), warp.image(image))
