"""What the segmentation network learns from: crops with labels; and what validates it."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from code_common.errors import InputError
from code_common.files.data_set import ImageFiles
from code_common.files.images import image_shape, read_image, read_instances
from code_common.files.run_folder import CACHE, LABELS, SELF_TRAINING_LABELS, label_path
from code_common.inference.magnification import LARGEST, enlarged, enlarged_map, factor_of
from code_common.learning.crops import CropDataset
from code_common.learning.image_cache import make_image_cache
from code_common.learning.transforms import Augmentation, Warp
from code_common.old_runs import present
from code_seg.labels import IGNORED, from_colours
from code_seg.options import PHASES, Options
from code_seg.points import read_detections

BYTES_PER_PIXEL = 5  # of an image and two labels


def learns_own_nuclei(options: Options, phase: str) -> bool:
    """Whether a phase learns the nuclei that the network of an earlier phase found."""
    return phase != "labels" and options.self_training_epochs > 0


def label_paths(options: Options, files: ImageFiles, phase: str) -> list[Path]:
    """The files of the two labels of a prepared image that a phase learns: see `read_labels`."""
    folders = (SELF_TRAINING_LABELS,) * 2 if learns_own_nuclei(options, phase) else LABELS
    # A run of an older version may still have the older name of the folder.
    there = [present(options.save_dir, folder).name for folder in folders]
    return [label_path(options.save_dir, folder, files.name) for folder in there]


def read_labels(options: Options, files: ImageFiles, phase: str) -> list[np.ndarray]:
    """The two labels [H, W] of a prepared image that a phase learns, half and half.

    They are the Voronoi and the cluster label; from self-training on, its label in place of both.
    Raises InputError where a label does not fit its image: either was replaced meanwhile.
    """
    paths = label_paths(options, files, phase)
    labels, shape = [from_colours(read_image(path)) for path in paths], image_shape(files.image)
    of_image = np.broadcast_to(np.uint8(0), shape)
    for path, label in zip(paths, labels, strict=True):
        factor = factor_of(label, of_image) if learns_own_nuclei(options, phase) else 1.0
        if not 1 <= factor <= LARGEST or enlarged_map(of_image, factor).shape != label.shape:
            raise InputError(
                f"{path}: {label.shape[1]} x {label.shape[0]} pixels do not fit {files.image} of "
                f"{shape[1]} x {shape[0]}; prepare the labels again, or --restart"
            )
    return labels


def magnified_like(image: np.ndarray, label: np.ndarray) -> np.ndarray:
    """The image [H, W, 3], magnified as its label was when it was prepared."""
    return enlarged(image, factor_of(label, image))


def load_training(
    options: Options, image_files: list[ImageFiles], phase: str, cache: str
) -> CropDataset:
    """The crops of training images with the labels of a phase.

    A crop holds 'image' [h, w, 3] uint8, the labels 'voronoi' and 'clusters' [h, w], and 'inside'
    [h, w] bool, which of its pixels are no padding. `cache`: where decoded images are kept.
    """
    keep = make_image_cache(
        options.save_dir / CACHE, [f.image for f in image_files], BYTES_PER_PIXEL, cache
    )
    images, labels = [], []
    for files in image_files:
        pair = read_labels(options, files, phase)
        image = magnified_like(read_image(files.image), pair[0])
        images.append(keep(f"{files.name}_image", image))
        labels.append([keep(f"{files.name}_{k}", label) for k, label in enumerate(pair)])

    def make_crop(index: int, warp: Warp) -> dict[str, np.ndarray]:
        voronoi, clusters = (warp.label(label, IGNORED) for label in labels[index])
        inside = warp.inside(images[index].shape[:2])
        image = warp.image(images[index])
        return {"image": image, "voronoi": voronoi, "clusters": clusters, "inside": inside}

    return CropDataset(
        shapes=[image.shape[:2] for image in images],
        make_crop=make_crop,
        augmentation=Augmentation(size=options.input_size, elastic=options.elastic),
        patch=options.patch_size,
        seed=options.seed(PHASES[phase]),
        stain=options.stain_augmentation,
    )


class ValidationSet(NamedTuple):
    """Validation images with masks, one list entry each."""

    images: list[np.ndarray]  # [H, W, 3] uint8
    points: list[np.ndarray]  # detections [N, 2]
    truth: list[np.ndarray]  # instance maps [H, W]


def load_validation(options: Options, image_files: list[ImageFiles]) -> ValidationSet:
    """Images, detections and instance maps of validation images that all have masks."""
    found = ValidationSet([], [], [])
    for files in image_files:
        image = read_image(files.image)
        shape = image.shape[:2]
        found.images.append(image)
        found.points.append(read_detections(options.detection_dir(), files.name, shape))
        found.truth.append(read_instances(files.instances, shape, files.image))
    return found
