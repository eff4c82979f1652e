"""Training crops: reproducible per (seed, epoch, index), whatever the number of workers."""

import sys
from collections.abc import Callable, Iterator
from multiprocessing import get_all_start_methods

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from code_common.learning.patches import windows
from code_common.learning.stain import draw_stain
from code_common.learning.transforms import Augmentation, Warp

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
