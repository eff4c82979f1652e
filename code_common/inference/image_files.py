"""Which files are images to predict on, and what else lies in a folder with them."""

import os
from contextlib import suppress
from pathlib import Path

from code_common.annotations.sources import MASKS, keys_of
from code_common.annotations.text import some_names, told_of_masks
from code_common.errors import InputError
from code_common.files.image_kinds import IMAGE_SUFFIXES, SLIDE_SUFFIXES
from code_common.files.names import masks_among
from code_common.files.reading import read_json
from code_common.files.run_folder import marker_paths

# Files beside images from which nobody expects a result: notes, and what Windows hides.
NO_PICTURES = (".txt", ".md", ".rst", ".log", ".html", ".ini", ".db")


def find_slides(paths: list[Path]) -> dict[str, list[Path]]:
    """The images among files and folders: name of the results -> path; several that share one.

    Subfolders are not searched. Results of a prediction in a folder are no images, nor are masks
    beside their image. Raises InputError for a path that does not exist, and for a folder without
    images. A link to nothing is an image that cannot be read.
    """
    slides: dict[str, list[Path]] = {}
    for path in paths:
        if not path.exists() and not path.is_symlink():
            raise InputError(f"{path}: no such file or folder")
        files = [path]
        if path.is_dir():
            images = list(filter(is_slide, _files_of_user(path)))
            masks = set(masks_among(images))
            files = [file for file in images if file not in masks]
        if not files:
            raise InputError(f"{path}: no images and no slides in this folder itself")
        for file in files:
            name = file.stem if is_slide(file) else file.name
            same_name = slides.setdefault(name, [])
            if os.path.realpath(file) not in map(os.path.realpath, same_name):  # else one, twice
                same_name.append(file)
    return slides


def refuse_shared(files: list[Path]) -> None:
    """Raise InputError for several images of one name."""
    if len(files) > 1:
        names = " and ".join(map(str, files))
        raise InputError(f"{names} share one name; keep one of them")


def left_out(paths: list[Path]) -> list[str]:
    """What a user may have expected `find_slides` to find in folders: a line for each kind."""
    lines = []
    for folder in filter(Path.is_dir, paths):
        files = _files_of_user(folder)
        if others := list(filter(_is_unread, files)):
            expected = "expected names that end in .png, .tif, .bmp, .jpg, .svs, ..."
            lines.append(f"{folder}: of a kind that is not read: {some_names(others)}; {expected}")
        if masks := masks_among(list(filter(is_slide, files))):
            lines.append(
                f"{folder}: {told_of_masks(masks)}, not segmented; --images PATH_OF_ONE takes it "
                "for an image"
            )
        within = [sub for sub in files if sub.is_dir() and _holds_images(sub)]
        if within:
            lines.append(f"{folder}: folders in it are not searched: {some_names(within)}")
    return lines


def is_slide(path: Path) -> bool:
    """Whether a file name has the suffix of an image or of a whole slide."""
    suffixes = SLIDE_SUFFIXES + IMAGE_SUFFIXES
    return path.suffix.lower() in suffixes and not path.name.startswith(".")


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _files_of_user(folder: Path) -> list[Path]:
    """Files and folders in a folder that no earlier prediction wrote."""
    results = _results_in(folder)
    return [path for path in _visible(folder) if path.name not in results]


def _is_unread(path: Path) -> bool:
    """Whether a file is no image, and nothing that may be annotations or a note."""
    is_known = is_slide(path) or path.is_dir() or keys_of(path)
    return not is_known and path.suffix.lower() not in NO_PICTURES


def _holds_images(folder: Path) -> bool:
    """Whether a folder holds images, at any depth.

    Results of an earlier prediction and what lies below them are none, nor are masks of nuclei.
    """
    with suppress(OSError):
        if any(map(is_slide, _files_of_user(folder))):
            return True
        inner = [] if marker_paths(folder) else _visible(folder)
        inner = [sub for sub in inner if sub.is_dir() and not sub.is_symlink()]  # no circles
        return any(_holds_images(sub) for sub in inner if sub.name != MASKS)
    return False


def _results_in(folder: Path) -> set[str]:
    """Names of the files that an earlier prediction left in a folder, by its notes there."""
    names: set[str] = set()
    for marker in marker_paths(folder):
        with suppress(InputError, KeyError, TypeError):
            names |= set(read_json(marker)["files"])
    return names
