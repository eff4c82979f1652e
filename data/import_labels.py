"""Import annotations of other tools into a data set, as instance maps or as points.

python data/import_labels.py masks  --data-dir data/MY --source annotations
python data/import_labels.py points --data-dir data/MY --source annotations

Images lie in data/MY/images. The source is a folder with one file for each image, named like the
image, or one file for all images (COCO or VIA .json, CVAT .xml). Read are outlines and points of
QuPath, ImageScope, ASAP, CVAT, COCO, labelme, VIA, HoVer-Net, Cellpose, napari, Fiji (.zip, .roi)
and ImageJ, and instance maps (.npy, .mat with inst_map, PNG, TIFF, TILE/masks/*.png). As points,
an outline gives its centre. Writes labels_instance/TILE_label.tif or
labels_point/TILE_label_point.png, each whole or not at all. Labels that are there already are
kept. A line for each image says what was taken, and what was left out and why.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.config import Bounded, Parser
from code_common.errors import InputError, run_script


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("masks", "points"), help="what is imported")
    parser.add_argument(
        "--data-dir", type=Path, required=True, help="the data set, with its images/"
    )
    parser.add_argument(
        "--source",
        type=Path,
        required=True,
        help="folder of annotations, or one file: for all images, or named like one of them",
    )
    parser.add_argument(
        "--shift",
        type=Bounded(float, -10_000, 10_000),
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
    parser.add_argument(
        "--plane",
        type=Bounded(int, 1, 1_000_000),
        nargs="+",
        metavar="N",
        help="take only this plane of annotations of a stack, counted from 1; several numbers, "
        "where an error names the planes so",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace labels that are there")
    return parser.parse_args(argv)


if __name__ == "__main__":
    arguments = run_script(parse_arguments)

import numpy as np

from code_common.files.data_set import ImageFiles, find_images
from code_common.files.images import image_shape, which_of_several
from code_common.files.layout import IMAGES, INSTANCE_LABELS, POINT_LABELS
from code_common.files.writing import write_instances, write_png
from data.annotations.formats import (
    ARRAYS,
    Annotations,
    Choice,
    parts_of,
    plane_name,
    read_annotations,
    read_array,
    read_images,
    shifted,
    without_regions,
)
from data.annotations.labels import (
    count_ids,
    count_split,
    counted,
    instance_map,
    listed,
    nucleus_masks,
    point_label,
)
from data.annotations.sources import Sources, keys_of, match_names, same_letters
from data.annotations.text import short

# What is imported -> folder of the labels in the data set, and how their names end.
LABELS = {
    "masks": (INSTANCE_LABELS, "_label.tif"),
    "points": (POINT_LABELS, "_label_point.png"),
}


def read_source(
    files: ImageFiles, source: Path | Annotations, where: str, arguments: argparse.Namespace
) -> Annotations:
    """What was drawn on an image, moved, without regions. where: what an error names.

    Raises InputError, also for a source that holds objects of which none is taken (unless they are
    of other classes than those asked for), and for one that was drawn on another image.
    """
    shape = image_shape(files.image)
    if isinstance(source, Path):
        annotations = read_annotations(source, files.image.name, shape, choice_of(arguments))
    else:
        annotations = source
    if annotations.shape not in (None, tuple(shape)):
        rows, cols = annotations.shape
        raise InputError(
            f"{where}: drawn on an image of {cols} x {rows}, but it has {shape[1]} x {shape[0]}"
        )
    if any(arguments.shift) and annotations.masks:
        raise InputError(f"{where}: --shift is for outlines and points, not for masks")
    for plane in annotations.planes:
        check_plane(files, where, plane)
    annotations = without_regions(shifted(annotations, arguments.shift), shape)
    if not annotations.count() and annotations.left_out and not annotations.unwanted:
        held = listed(annotations.left_out)
        raise InputError(f"{where}: no {arguments.kind[:-1]} in it; it holds {held}")
    return annotations


def choice_of(arguments: argparse.Namespace) -> Choice:
    """Which objects the user asks for."""
    classes, plane = arguments.classes, arguments.plane
    return Choice(classes and tuple(classes), plane and tuple(plane))


def check_plane(files: ImageFiles, where: str, plane: Sequence[int]) -> None:
    """Raise InputError for annotations of another plane of a stack than is read of the image."""
    read = which_of_several(files.image)
    if read and any(number != 1 for number in plane):
        raise InputError(
            f"{where}: objects of plane {plane_name(plane)}, but of {files.image.name} {read} is "
            "read; save the plane that was annotated as the image"
        )


def import_label(
    files: ImageFiles, source: Path | Annotations, out: Path, arguments: argparse.Namespace
) -> str:
    """Write the label of an image; returns what was taken and left out. Raises InputError."""
    of_its_own = isinstance(source, Path)
    if of_its_own and source.suffix.lower() in ARRAYS and not source.is_dir():
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
    notes = [f"left out: {left_out}"] * bool(left_out) + annotations.notes
    return "; ".join([taken, *notes])


def import_array(files: ImageFiles, source: Path, out: Path, arguments: argparse.Namespace) -> str:
    """Write the instance map that a file holds; returns its number of nuclei."""
    if arguments.kind == "points":
        raise InputError(f"{source}: expected a table, GeoJSON or XML of points")
    if any(arguments.shift):
        raise InputError(f"{source}: --shift is for outlines and points, not for maps")
    if arguments.classes is not None:
        raise InputError(f"{source}: it names no classes; --classes is for files that do")
    choice = choice_of(arguments)
    if choice.plane:
        check_plane(files, str(source), choice.plane)
    instances = read_array(source, image_shape(files.image), files.image, choice)
    write_instances(out, instances)
    number, split = count_ids(instances), count_split(nucleus_masks(instances))
    return counted(number, "nucleus") + (f"; {split} lie in several pieces" if split else "")


def import_one(
    files: ImageFiles, source: Path | Annotations, out: Path, arguments: argparse.Namespace
) -> str:
    """Import the label of an image unless it has one; returns a line. Raises InputError."""
    path = out / f"{files.name}{LABELS[arguments.kind][1]}"
    present = files.instances if arguments.kind == "masks" else files.points
    if present and not arguments.overwrite:
        return f"{present.name} is there, kept (--overwrite replaces it)"
    if present and present.name != path.name:
        raise InputError(f"{present}: a label of another name; remove it, to import another")
    file = source if isinstance(source, Path) else arguments.source
    name = file.relative_to(arguments.source) if file != arguments.source else file.name
    taken, separator, others = import_label(files, source, path, arguments).partition(";")
    stack = which_of_several(files.image)
    note = f"; of its image {stack} is read" if stack else ""
    return f"{taken} from {short(name, 255)}{separator}{others}{note}"


def some_names(files: Sequence[Path | str]) -> str:
    """How many files there are, and the names of the first."""
    shown = ", ".join(short(Path(file).name, 80) for file in files[:5])
    return f"{len(files)} ({shown}{', ...' if len(files) > 5 else ''})"


def check_classes(
    image_files: Sequence[ImageFiles],
    sources: dict[str, Path | Annotations | None],
    arguments: argparse.Namespace,
) -> None:
    """Raise InputError for a class that no object has; it may be misspelt.

    All is read once before anything is written, since one tile may well lack a class.
    """
    present: set[str] = set()
    for files in image_files:
        source = sources.get(files.name)
        if isinstance(source, Path):
            try:
                present |= read_annotations(
                    source, files.image.name, image_shape(files.image), choice_of(arguments)
                ).classes
            except InputError:  # it is told when the file is imported
                continue
        elif source is not None:
            present |= source.classes
    unknown = [name for name in arguments.classes if name.casefold() not in parts_of(present)]
    if unknown:
        there = ", ".join(short(name) for name in sorted(present)[:20]) or "no classes"
        raise InputError(
            f"--classes {' '.join(unknown)}: no object that can be read has this class; "
            f"{arguments.source} has: {there}"
        )


def find_sources(
    image_files: Sequence[ImageFiles], arguments: argparse.Namespace
) -> tuple[dict[str, Path | Annotations | None], list[str], list[str]]:
    """The annotations of each image by its name, notes, and an error for each with several files.

    Notes say which files are not read. Raises InputError where there is no source, and where
    nothing belongs to any image.
    """
    source, notes, errors = arguments.source, [], []
    if not source.exists():
        raise InputError(f"{source}: no such file or folder")
    names = [files.name for files in image_files]
    by_key = {same_letters(name): name for name in names}
    owner = next((by_key[key] for key in keys_of(source) if key in by_key), None)
    if source.is_dir():
        sources, folder = {}, Sources(source, names, arguments.kind)
        for name in names:
            try:
                sources[name] = folder.find(name)
            except InputError as error:
                errors.append(str(error))
        if not errors and not any(sources.values()):
            raise InputError(folder.nothing())
        others = folder.others
        if folder.passed_over:
            notes = [
                f"not read, beside other files of their image: {some_names(folder.passed_over)}"
            ]
    elif owner is not None:
        sources, others = {owner: source}, []
    else:
        by_name = read_images(source, choice_of(arguments))
        sources, others = match_names(source, by_name, image_files)
    if others:
        notes.insert(0, f"of no image: {some_names(others)}")
    return sources, notes, errors


def main(arguments: argparse.Namespace) -> None:
    """Import what there is for each image, and raise InputError for those that are wrong."""
    out = arguments.data_dir / LABELS[arguments.kind][0]
    image_files = find_images(arguments.data_dir / IMAGES, None, out)
    sources, notes, errors = find_sources(image_files, arguments)
    if arguments.classes:
        check_classes(image_files, sources, arguments)
    for files in image_files:
        source = sources.get(files.name)
        try:
            if source is not None:
                print(f"{files.name}: {import_one(files, source, out, arguments)}")
            elif files.name in sources:
                present = files.instances or files.points
                stays = f"; {present.name} of earlier stays" if present else ""
                print(f"{files.name}: nothing in {arguments.source}{stays}")
        except InputError as error:
            errors.append(str(error))
    for note in notes:
        print(note)
    if errors:
        raise InputError("\nerror: ".join(errors))


if __name__ == "__main__":
    run_script(lambda: main(arguments))
