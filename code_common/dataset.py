"""Training crops: reproducible per (seed, epoch, index), whatever the number of workers."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from code_common.patches import windows
from code_common.transforms import Augmentation, Warp

# (index of the image, its warp) -> named arrays of one crop
MakeCrop = Callable[[int, Warp], dict[str, np.ndarray]]


class CropDataset(Dataset):
    """One augmented crop for each patch of each image; the images stay decoded in memory."""

    def __init__(
        self,
        shapes: list[tuple[int, int]],
        make_crop: MakeCrop,
        augmentation: Augmentation,
        patch: int,
        seed: int,
    ):
        self.make_crop, self.augmentation, self.patch, self.seed = (
            make_crop,
            augmentation,
            patch,
            seed,
        )
        self.patches = [(i, w) for i, shape in enumerate(shapes) for w in windows(shape, patch)]

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor | int]:
        epoch, index = key
        image, window = self.patches[index]
        rng = np.random.default_rng((self.seed, epoch, index))
        crop = self.make_crop(image, self.augmentation.draw(rng, window, self.patch))
        tensors = {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in crop.items()}
        return {**tensors, "image_index": image}


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


class EpochSampler(torch.utils.data.Sampler):
    """Shuffled (epoch, index) keys, so that a crop depends on nothing but seed, epoch and index."""

    def __init__(self, count: int, seed: int):
        self.count, self.seed, self.epoch = count, seed, 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.count)
        return ((self.epoch, int(i)) for i in order)


def _quiet_worker(_: int) -> None:
    import cv2

    cv2.setNumThreads(0)  # the workers are the parallelism


def make_loader(dataset: CropDataset, batch_size: int, workers: int, pin: bool) -> DataLoader:
    """Batches of an epoch; set `loader.sampler.epoch` before each epoch."""
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=EpochSampler(len(dataset), dataset.seed),
        num_workers=workers,
        worker_init_fn=_quiet_worker,
        persistent_workers=workers > 0,
        pin_memory=pin,
        generator=torch.Generator().manual_seed(dataset.seed),
    )
