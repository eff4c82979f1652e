"""Training crops. A crop depends only on seed, epoch and index, not on the number of workers."""

import sys
from collections.abc import Callable, Iterator
from multiprocessing import get_all_start_methods

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from code_common.learning import distributed
from code_common.learning.hardware import workers_with_room
from code_common.learning.patches import centred, windows
from code_common.learning.stain import draw_stain
from code_common.learning.transforms import Augmentation, Warp

# (index of the image, map of the crop) -> named arrays of the crop
MakeCrop = Callable[[int, Warp], dict[str, np.ndarray]]


class CropDataset(Dataset):
    """One augmented crop for each patch of each image.

    shapes: rows and columns of each image; make_crop: makes the arrays of a crop, the colours as
    'image'; patch: side of a patch in pixels; stain: strength of the stain augmentation, 0: none.
    """

    def __init__(
        self,
        shapes: list[tuple[int, int]],
        make_crop: MakeCrop,
        augmentation: Augmentation,
        patch: int,
        seed: int,
        stain: float = 0.0,
    ):
        self.make_crop, self.augmentation = make_crop, augmentation
        self.patch, self.seed, self.stain = patch, seed, stain
        # Index of the image and top left corner of each patch. A tile smaller than a patch is in
        # its middle, or crops would show the tile's bottom right most often.
        self.patches = [
            (index, centred(corner, shape, patch))
            for index, shape in enumerate(shapes)
            for corner in windows(shape, patch)
        ]

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor | int]:
        """The crop of a key (epoch, index of the patch): named tensors and 'image_index'."""
        epoch, index = key
        image, window = self.patches[index]
        rng = np.random.default_rng((self.seed, epoch, index))
        crop = self.make_crop(image, self.augmentation.draw(rng, window, self.patch))
        if self.stain:
            crop["image"] = draw_stain(rng, self.stain).image(crop["image"])
        tensors = {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in crop.items()}
        return {**tensors, "image_index": image}

    def collate(self, crops: list[dict]) -> dict[str, torch.Tensor]:
        """The crops as one batch: [B, ...] for each name. B may be 0."""
        if crops:
            return default_collate(crops)
        return {name: values[:0] for name, values in default_collate([self[0, 0]]).items()}


class EpochBatches(torch.utils.data.Sampler):
    """Shuffled batches of keys (epoch, index).

    Process `rank` of `size` gets the keys rank, rank + size, ... of each batch. All processes
    together therefore see the batches that one process would see. A process may get no key of the
    last batch.
    """

    def __init__(self, count: int, batch_size: int, seed: int, rank: int = 0, size: int = 1):
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.rank, self.size, self.epoch = rank, size, 0

    def __len__(self) -> int:
        return -(-self.count // self.batch_size)

    def whole(self, step: int) -> int:
        """Number of crops of a step in all processes together."""
        return min(self.batch_size, self.count - step * self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.count).tolist()
        keys = [(self.epoch, index) for index in order]
        for first in range(0, self.count, self.batch_size):
            yield keys[first : first + self.batch_size][self.rank :: self.size]


def _start_worker(_: int) -> None:
    """Prepare a process that makes crops."""
    import cv2

    cv2.setNumThreads(0)  # the workers already use all cores
    show_error = sys.excepthook

    def show_error_unless_disconnected(kind, error, traceback) -> None:
        # A run that is stopped while it waits for a batch closes the connection to its worker.
        # The run reports the stop itself, so the worker shows no traceback.
        if not issubclass(kind, (ConnectionError, EOFError)):
            show_error(kind, error, traceback)

    sys.excepthook = show_error_unless_disconnected


def _workers_with_room(dataset: CropDataset, batch_size: int, workers: int) -> int:
    """As many of the workers as /dev/shm has room for. batch_size: crops of this process."""
    if not workers or not len(dataset):
        return workers
    tensors = [v for v in dataset[0, 0].values() if isinstance(v, torch.Tensor)]
    room_for = workers_with_room(workers, batch_size * sum(v.nbytes for v in tensors))
    if room_for < workers and distributed.is_main():
        print(
            f"little room in /dev/shm: {room_for} of {workers} workers make crops; --workers "
            f"{room_for} takes as many without this line, docker run --shm-size=8g gives more room"
        )
    return room_for


def make_loader(
    dataset: CropDataset, batch_size: int, workers: int, pin: bool, rank: int = 0, size: int = 1
) -> DataLoader:
    """A loader of the batches of an epoch. Set `loader.batch_sampler.epoch` before each epoch.

    workers: processes that make crops, 0: none; pin: pinned memory, for a GPU; rank and size: this
    process and the number of processes that train together. Where /dev/shm is too small for the
    workers, there are fewer or none, and a line says so.
    """
    workers = _workers_with_room(dataset, -(-batch_size // size), workers)
    return DataLoader(
        dataset,
        batch_sampler=EpochBatches(len(dataset), batch_size, dataset.seed, rank, size),
        collate_fn=dataset.collate,
        num_workers=workers,
        # Forked workers share the decoded images instead of copying them.
        multiprocessing_context="fork" if workers and "fork" in get_all_start_methods() else None,
        worker_init_fn=_start_worker,
        persistent_workers=workers > 0,
        pin_memory=pin,
        generator=torch.Generator().manual_seed(dataset.seed),
    )
