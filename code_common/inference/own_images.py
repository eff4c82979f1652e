"""The images of --img-dir, which are in no data set, their labels and their results."""

from collections.abc import Collection
from pathlib import Path

from code_common.annotations.text import some_names, told_of_masks
from code_common.errors import InputError
from code_common.files.data_set import (
    ImageFiles,
    find_images,
    masks_beside,
    unread_images,
)
from code_common.files.run_folder import marker_paths


def own_images(img_dir: Path, label_dir: Path | None) -> list[ImageFiles]:
    """The images of a folder with their labels; a line for each kind of file that is left out.

    Raises InputError as `find_images`, and where `label_dir` holds no label of any of them.
    """
    image_files = find_images(img_dir, None, *([label_dir] if label_dir else []))
    if label_dir and not any(files.instances or files.points for files in image_files):
        raise InputError(
            f"{label_dir}: no labels of the images in {img_dir}; expected "
            f"{image_files[0].name}_label.png, {image_files[0].name}.tif, ..."
        )
    if masks := masks_beside(img_dir):
        print(f"{img_dir}: {told_of_masks(masks)}")
    if unread := unread_images(img_dir):
        print(f"{img_dir}: only PNG, TIFF, BMP and JPEG are read, not {some_names(unread)}")
    return image_files


def tell_of_others(results: Path, names: Collection[str]) -> None:
    """Print a line where a folder holds results of other images, of earlier calls."""
    if others := sorted({path.stem for path in marker_paths(results)} - {*names}):
        print(f"results of other images of earlier calls lie in {results}: {some_names(others)}")
