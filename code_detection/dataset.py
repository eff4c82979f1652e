"""What the detector learns from: points of the images, and crops with target and weight."""

from pathlib import Path

import numpy as np

from code_common.arrays import points_from_instances
from code_common.files.data_set import ImageFiles
from code_common.files.images import (
    read_image,
    read_instances,
    read_label,
    read_point_label,
)
from code_common.files.reading import read_points
from code_common.files.run_folder import CACHE, background_path, points_path
from code_common.learning.crops import CropDataset
from code_common.learning.image_cache import make_image_cache
from code_common.learning.transforms import Augmentation, Warp
from code_common.options import Purpose
from code_detection.labels import (
    extended_gaussian_mask,
    points_from_map,
    weight_map,
)
from code_detection.options import Options

BYTES_PER_PIXEL = 4  # of an image and its background label


def all_points(files: ImageFiles, shape: tuple[int, int]) -> np.ndarray | None:
    """All points [N, 2] known of an image: of its point label, else of its instance map."""
    if files.points:
        return points_from_map(read_point_label(files.points, shape, files.image))
    if files.instances:
        return points_from_instances(read_instances(files.instances, shape, files.image))
    return None


def true_points(files: ImageFiles, shape: tuple[int, int]) -> np.ndarray | None:
    """The points [N, 2] of all nuclei of an image, as far as known, to score detections against.

    Where its instance map holds more nuclei than its point label, the latter is a part of them.
    """
    points = all_points(files, shape)
    if files.points and files.instances:
        of_map = points_from_instances(read_instances(files.instances, shape, files.image))
        return of_map if len(of_map) > len(points) else points
    return points


def read_background(save_dir: Path, round: int, name: str, shape: tuple[int, int]) -> np.ndarray:
    """Background [H, W] bool that was propagated into a round; nothing into the initial one."""
    if round == 0:
        return np.zeros(shape, bool)
    return read_label(background_path(save_dir, round, name), shape) > 0


def load_training(
    options: Options, image_files: list[ImageFiles], round: int, cache: str
) -> CropDataset:
    """The crops of training images in a round; `cache`: where decoded images are kept.

    A crop holds 'image' [h, w, 3] uint8, 'target' [h, w] in 0..1 and 'weight' [h, w].
    """
    keep = make_image_cache(
        options.save_dir / CACHE, [f.image for f in image_files], BYTES_PER_PIXEL, cache
    )
    images, points, backgrounds = [], [], []
    for files in image_files:
        image = read_image(files.image)
        shape = image.shape[:2]
        background = read_background(options.save_dir, round, files.name, shape)
        images.append(keep(f"{files.name}_image", image))
        points.append(read_points(points_path(options.save_dir, files.name), shape))
        backgrounds.append(keep(f"{files.name}_background", background.astype(np.uint8)))

    def make_crop(index: int, warp: Warp) -> dict[str, np.ndarray]:
        """Points are moved first and rendered then, so that each keeps its whole peak."""
        moved, shape = warp.points(points[index]), (warp.size, warp.size)
        target, known = extended_gaussian_mask(moved, shape, options.r1, options.r2, options.sigma)
        background = warp.label(backgrounds[index], 0) > 0
        inside = warp.inside(images[index].shape[:2])
        weight = weight_map(
            target, known, background, inside, options.peak_weight, options.unknown_weight
        )
        return {"image": warp.image(images[index]), "target": target, "weight": weight}

    return CropDataset(
        shapes=[image.shape[:2] for image in images],
        make_crop=make_crop,
        augmentation=Augmentation(size=options.input_size),
        patch=options.patch_size,
        seed=options.seed(Purpose.DETECTION + round),
        stain=options.stain_augmentation,
    )
