"""Import annotations of other tools into a data set, as instance maps or as points.

python data/import_labels.py masks  --data-dir data/MY --source annotations
python data/import_labels.py points --data-dir data/MY --source annotations

Images lie in data/MY/images. The source is a folder with one file for each image, named like the
image, or one file for all images (COCO or VIA .json, CVAT .xml). Read are outlines and points of
QuPath, ImageScope, ASAP, CVAT, COCO, labelme, VIA, HoVer-Net, napari, Fiji (.zip, .roi) and
ImageJ's Cell Counter, and instance maps (.npy, .mat with inst_map, PNG, TIFF, TILE/masks/*.png).
As points, an outline gives its centre. Writes labels_instance/TILE_label.tif or
labels_point/TILE_label_point.png, each whole or not at all. Labels that are there already are
kept. A line for each image says what was taken, and what was left out and why.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=("masks", "points"), help="what is imported")
    parser.add_argument(
        "--data-dir", type=Path, required=True, help="the data set, with its images/"
    )
    parser.add_argument(
        "--source",
        type=Path,
        required=True,
        help="folder of annotations, or one file for all images",
    )
    parser.add_argument(
        "--shift",
        type=float,
        nargs=2,
        default=(0.0, 0.0),
        metavar=("DX", "DY"),
        help="pixels that outlines and points are moved by. -0.5 -0.5 gives the published masks "
        "of MoNuSeg, which count from the middle of a pixel and start at 1 (default: 0 0)",
    )
    parser.add_argument(
        "--classes",
        nargs="+",
        metavar="NAME",
        help="take only objects of these classes (default: all but those that end with *, as "
        "QuPath's Ignore*)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace labels that are there")
    return parser.parse_args(argv)


if __name__ == "__main__":
    arguments = parse_arguments()

import numpy as np

from code_common.errors import InputError, run_script
from code_common.files.data_set import ImageFiles, find_images
from code_common.files.images import image_shape
from code_common.files.layout import IMAGES, INSTANCE_LABELS, POINT_LABELS
from code_common.files.writing import write_instances, write_png
from data.annotations.formats import (
    ARRAYS,
    Annotations,
    read_annotations,
    read_array,
    read_images,
    shifted,
    without_regions,
)
from data.annotations.labels import count_ids, counted, instance_map, listed, point_label
from data.annotations.sources import Sources, match_names

# What is imported -> folder of the labels in the data set, and how their names end.
LABELS = {
    "masks": (INSTANCE_LABELS, "_label.tif"),
    "points": (POINT_LABELS, "_label_point.png"),
}


def read_source(
    files: ImageFiles, source: Path | Annotations, where: str, arguments: argparse.Namespace
) -> Annotations:
    """What was drawn on an image, moved, without regions. where: what an error names.

    Raises InputError, also for a source that holds objects of which none is taken, and for one
    that was drawn on an image of another size.
    """
    shape = image_shape(files.image)
    if isinstance(source, Path):
        annotations = read_annotations(source, files.image.name, shape, arguments.classes)
    else:
        annotations = source
    if annotations.shape not in (None, tuple(shape)):
        rows, cols = annotations.shape
        raise InputError(
            f"{where}: drawn on an image of {cols} x {rows}, but it has {shape[1]} x {shape[0]}"
        )
    if any(arguments.shift) and annotations.masks:
        raise InputError(f"{where}: --shift is for outlines and points, not for masks")
    annotations = without_regions(shifted(annotations, arguments.shift), shape)
    if not annotations.count() and annotations.left_out:
        held = listed(annotations.left_out)
        raise InputError(f"{where}: no {arguments.kind[:-1]} in it; it holds {held}")
    return annotations


def import_label(
    files: ImageFiles, source: Path | Annotations, out: Path, arguments: argparse.Namespace
) -> str:
    """Write the label of an image; returns what was taken and left out. Raises InputError."""
    of_its_own = isinstance(source, Path)
    if of_its_own and source.is_file() and source.suffix.lower() in ARRAYS:
        return import_array(files, source, out, arguments)
    where = str(source) if of_its_own else f"{arguments.source}, {files.image.name}"
    annotations = read_source(files, source, where, arguments)
    shape = image_shape(files.image)
    if arguments.kind == "masks":
        label = instance_map(annotations, shape, where)
        write_instances(out, label)
        taken = counted(count_ids(label), "nucleus")
    else:
        label = point_label(annotations, shape, where)
        write_png(out, label)
        taken = counted(np.count_nonzero(label), "point")
    left_out = listed(annotations.left_out)
    return taken + (f"; left out: {left_out}" if left_out else "")


def import_array(files: ImageFiles, source: Path, out: Path, arguments: argparse.Namespace) -> str:
    """Write the instance map that a file holds; returns its number of nuclei."""
    if arguments.kind == "points":
        raise InputError(f"{source}: expected a table, GeoJSON or XML of points")
    if any(arguments.shift):
        raise InputError(f"{source}: --shift is for outlines and points, not for maps")
    if arguments.classes is not None:
        raise InputError(f"{source}: it names no classes; --classes is for files that do")
    instances = read_array(source, image_shape(files.image), files.image)
    write_instances(out, instances)
    return counted(count_ids(instances), "nucleus")


def import_one(
    files: ImageFiles, source: Path | Annotations, out: Path, arguments: argparse.Namespace
) -> str:
    """Import the label of an image unless it has one; returns a line. Raises InputError."""
    path = out / f"{files.name}{LABELS[arguments.kind][1]}"
    present = files.instances if arguments.kind == "masks" else files.points
    if present and not (arguments.overwrite and present.name == path.name):
        return f"{present.name} is there, kept"
    file = source if isinstance(source, Path) else arguments.source
    name = file.relative_to(arguments.source) if file != arguments.source else file.name
    taken, separator, left_out = import_label(files, source, path, arguments).partition(";")
    return f"{taken} from {name}{separator}{left_out}"


def some_names(files: Sequence[Path | str]) -> str:
    """How many files there are, and the names of the first."""
    shown = ", ".join(Path(file).name for file in files[:5])
    return f"{len(files)} ({shown}{', ...' if len(files) > 5 else ''})"


def main(arguments: argparse.Namespace) -> None:
    """Import what there is for each image, and raise InputError for those that are wrong."""
    out = arguments.data_dir / LABELS[arguments.kind][0]
    image_files = find_images(arguments.data_dir / IMAGES, None, out)
    names = [files.name for files in image_files]
    errors, others, passed_over, sources = [], [], [], {}
    if arguments.source.is_dir():
        folder = Sources(arguments.source, names)
        others, passed_over = folder.others, folder.passed_over
        for name in names:
            try:
                sources[name] = folder.find(name)
            except InputError as error:
                errors.append(str(error))
        if not errors and not any(sources.values()):
            raise InputError(folder.nothing())
    else:
        by_name = read_images(arguments.source, arguments.classes)
        sources, others = match_names(arguments.source, by_name, image_files)
    for files in image_files:
        source = sources.get(files.name)
        try:
            if source is not None:
                print(f"{files.name}: {import_one(files, source, out, arguments)}")
            elif files.name in sources:
                print(f"{files.name}: nothing in {arguments.source}")
        except InputError as error:
            errors.append(str(error))
    if others:
        print(f"of no image: {some_names(others)}")
    if passed_over:
        print(f"not read, beside files of outlines or points: {some_names(passed_over)}")
    if errors:
        raise InputError("\nerror: ".join(errors))


if __name__ == "__main__":
    run_script(lambda: main(arguments))
