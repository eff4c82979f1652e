"""Training crops: reproducible per (seed, epoch, index), whatever the number of workers."""

import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_all_start_methods
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from code_common.data import image_shape, read_json, write_bytes
from code_common.errors import InputError
from code_common.patches import windows
from code_common.stain import draw_stain
from code_common.transforms import Augmentation, Warp

# (index of the image, its warp) -> named arrays of one crop
MakeCrop = Callable[[int, Warp], dict[str, np.ndarray]]


class CropDataset(Dataset):
    """One augmented crop for each patch of each image, its stains changed by up to `stain`."""

    def __init__(
        self,
        shapes: list[tuple[int, int]],
        make_crop: MakeCrop,
        augmentation: Augmentation,
        patch: int,
        seed: int,
        stain: float = 0.0,
    ):
        self.make_crop, self.augmentation, self.patch, self.seed, self.stain = (
            make_crop,
            augmentation,
            patch,
            seed,
            stain,
        )
        self.patches = [(i, w) for i, shape in enumerate(shapes) for w in windows(shape, patch)]

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor | int]:
        epoch, index = key
        image, window = self.patches[index]
        rng = np.random.default_rng((self.seed, epoch, index))
        crop = self.make_crop(image, self.augmentation.draw(rng, window, self.patch))
        if self.stain:
            crop["image"] = draw_stain(rng, self.stain).image(crop["image"])
        tensors = {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in crop.items()}
        return {**tensors, "image_index": image}

    def collate(self, crops: list[dict]) -> dict[str, torch.Tensor]:
        """The crops as one batch, which may be empty: [B, ...] for each name."""
        if crops:
            return default_collate(crops)
        return {name: values[:0] for name, values in default_collate([self[0, 0]]).items()}


def keeper(
    folder: Path, images: Sequence[Path], bytes_per_pixel: int, where: str
) -> Callable[[str, np.ndarray], np.ndarray]:
    """How to keep the decoded arrays of a data set: a function of (name, array).

    where: 'memory'; 'disk', as read-only maps of files in `folder`, of which memory holds what is
    used; or 'auto': memory where all of them take no more than half of it.
    """
    if where == "auto":
        pixels = sum(np.prod(image_shape(path), dtype=np.int64) for path in images)
        known = hasattr(os, "sysconf")  # not on Windows
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if known else 16 << 30
        where = "memory" if pixels * bytes_per_pixel <= memory / 2 else "disk"
    if where == "memory":
        return lambda _, array: array

    def keep(name: str, array: np.ndarray) -> np.ndarray:
        data = io.BytesIO()
        np.save(data, array)
        write_bytes(folder / f"{name}.npy", data.getbuffer())
        return np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r"))

    return keep


class ColourStatistics:
    """Mean and deviation of each channel over images that are added one by one."""

    def __init__(self) -> None:
        self.sum, self.square, self.count = np.zeros(3), np.zeros(3), 0

    def add(self, image: np.ndarray) -> None:
        """Add an RGB image [H, W, 3] uint8."""
        values = image.reshape(-1, 3) / 255.0
        self.sum += values.sum(0)
        self.square += np.square(values).sum(0)
        self.count += len(values)

    def result(self) -> dict[str, list[float]]:
        """Mean and deviation of R, G, B for colours in 0..1."""
        mean = self.sum / self.count
        std = np.sqrt(np.maximum(self.square / self.count - mean**2, 1e-6))
        return {"mean": mean.tolist(), "std": std.tolist()}


def read_colours(path: Path) -> tuple[list[float], list[float]]:
    """Mean and deviation of R, G, B of a file of `ColourStatistics`; InputError for another one."""
    colours = read_json(path)
    try:
        mean, std = ([float(v) for v in colours[k]] for k in ("mean", "std"))
        if len(mean) == len(std) == 3 and min(std) > 0:
            return mean, std
    except (KeyError, TypeError, ValueError):
        pass
    raise InputError(f"{path}: expected the mean and std of three channels")


class EpochBatches(torch.utils.data.Sampler):
    """Shuffled batches of (epoch, index) keys: a crop depends on seed, epoch and index alone.

    Of every batch, process `rank` of `size` has the crops rank, rank + size, ...; so all of them
    together see the batches that one process would see, and the last may leave one without any.
    """

    def __init__(self, count: int, batch_size: int, seed: int, rank: int = 0, size: int = 1):
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.rank, self.size, self.epoch = rank, size, 0

    def __len__(self) -> int:
        return -(-self.count // self.batch_size)

    def whole(self, step: int) -> int:
        """Crops of a step in all processes together."""
        return min(self.batch_size, self.count - step * self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.count).tolist()
        keys = [(self.epoch, index) for index in order]
        for first in range(0, self.count, self.batch_size):
            yield keys[first : first + self.batch_size][self.rank :: self.size]


def _quiet_worker(_: int) -> None:
    import cv2

    cv2.setNumThreads(0)  # the workers are the parallelism
    tell = sys.excepthook

    def tell_but_a_lost_reader(kind, error, where) -> None:
        # A run that is stopped while it takes a batch hangs up on its worker. The run says so
        # itself; that it no longer listens is not worth a traceback from a thread of the worker.
        if not issubclass(kind, (ConnectionError, EOFError)):
            tell(kind, error, where)

    sys.excepthook = tell_but_a_lost_reader


def make_loader(
    dataset: CropDataset, batch_size: int, workers: int, pin: bool, rank: int = 0, size: int = 1
) -> DataLoader:
    """Batches of an epoch; set `loader.batch_sampler.epoch` before each epoch."""
    return DataLoader(
        dataset,
        batch_sampler=EpochBatches(len(dataset), batch_size, dataset.seed, rank, size),
        collate_fn=dataset.collate,
        num_workers=workers,
        # Forked workers share the decoded images instead of copying them.
        multiprocessing_context="fork" if workers and "fork" in get_all_start_methods() else None,
        worker_init_fn=_quiet_worker,
        persistent_workers=workers > 0,
        pin_memory=pin,
        generator=torch.Generator().manual_seed(dataset.seed),
    )
