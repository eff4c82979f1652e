"""Points that a user gives for the images of a prediction, in the place of detections."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from code_common.annotations.choice import ALL
from code_common.annotations.labels import listed, point_pixels
from code_common.annotations.of_image import read_source
from code_common.annotations.sources import find_sources
from code_common.annotations.text import some_names
from code_common.errors import InputError
from code_common.files.data_set import ImageFiles
from code_common.files.writing import write_table
from code_common.inference.shards import are_as_noted, noted
from code_common.inference.slides import Slide


def given_points_path(out: Path, name: str) -> Path:
    """Which nucleus each point of an image has, in a folder of results."""
    return out / f"{name}_given_points.csv"


class UserPoints:
    """The points of images, in any format that data/import_labels.py reads.

    source: a folder with a file for each image, or one file; images: name -> file. `files` holds
    the file of each image that has points, None where it is not clear which. `notes` tells what of
    the source is not read, and which images have none. Raises InputError where no image has any.
    """

    def __init__(self, source: Path, images: Mapping[str, Path]):
        self.source, self.images = source, images
        image_files = [ImageFiles(name, path) for name, path in images.items()]
        self._noted = noted([source] if source.is_file() else [])  # before it is read
        found, self.notes, self._errors = find_sources(image_files, source, "points", ALL)
        self.of = {name: own for name, own in found.items() if own is not None}
        files = {n: own if isinstance(own, Path) else source for n, own in self.of.items()}
        self.files: dict[str, Path | None] = files | dict.fromkeys(self._errors)
        without = [name for name in images if name not in self.files]
        if without:
            self.notes.append(f"{source}: no points for {some_names(without)}; left out")

    def read(self, name: str, slide: Slide) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """The points of an image as pixels [N, 2] (row, column) of the file and of the slide.

        Also lines about what was left out. Raises InputError as the import does, where it is not
        clear which file is the image's, and where a file of all images, which was read when this
        began, is another one now.
        """
        if name in self._errors:
            raise InputError(self._errors[name])
        own, path = self.of[name], self.images[name]
        if not isinstance(own, Path) and not are_as_noted([self.source], self._noted):
            raise InputError(
                f"{self.source}: changed since this call began; give the command again"
            )
        where = str(own) if isinstance(own, Path) else f"{self.source}, {path.name}"
        shape = slide.file_shape or slide.shape
        annotations = read_source(path, shape, own, where, "points")
        in_file = point_pixels(annotations, shape, where)
        pixels = ((in_file + 0.5) / slide.scale).astype(np.int64)
        pixels = np.minimum(pixels, np.array(slide.shape) - 1)
        _, first = np.unique(pixels, axis=0, return_index=True)
        annotations.left_out["point (beside another, at this scale)"] += len(pixels) - len(first)
        left_out = listed(annotations.left_out)
        notes = [f"left out: {left_out}"] * bool(left_out) + annotations.notes
        kept = np.sort(first)
        return in_file[kept], pixels[kept], [f"{where}: {note}" for note in notes]


def write_given_points(path: Path, in_file: np.ndarray, ids: np.ndarray, notes: list[str]) -> None:
    """Write the points [N, 2] of a file, the nucleus of each (0: none), and notes, as a table."""
    rows = [
        (row, col, k, note)
        for (row, col), k, note in zip(in_file.tolist(), ids.tolist(), notes, strict=True)
    ]
    write_table(path, ("row", "col", "nucleus", "note"), rows)
