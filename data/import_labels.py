"""Import annotations of other tools into a data set, as instance maps or as points.

python data/import_labels.py masks  --data-dir data/MY --source annotations
python data/import_labels.py points --data-dir data/MY --source annotations

Images lie in data/MY/images. The source is a folder with one file for each image, named like the
image, or one file for all images (COCO or VIA .json, CVAT .xml, a table with a column image). Read
are outlines and points of QuPath, ImageScope, ASAP, CVAT, COCO, labelme, VIA, HoVer-Net, Cellpose,
napari, Fiji (.zip, .roi) and ImageJ, and instance maps (.npy, .mat with inst_map, PNG, TIFF,
TILE/masks/*.png). As points, an outline gives its centre. Writes labels_instance/TILE_label.tif or
labels_point/TILE_label_point.png, each whole or not at all. Labels that are there already are
kept. A line for each image says what was taken, and what was left out and why.
"""

import argparse
import errno
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
        action="extend",
        metavar="NAME",
        help="take only objects of these classes (default: all but those that end with *, as "
        "QuPath's Ignore*)",
    )
    parser.add_argument(
        "--plane",
        type=Bounded(int, 1, 1_000_000),
        nargs="+",
        action="extend",
        metavar="N",
        help="take only this plane of annotations of a stack, counted from 1; several numbers, "
        "where an error names the planes so",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace labels that are there")
    return parser.parse_args(argv)


if __name__ == "__main__":
    arguments = run_script(parse_arguments)

import numpy as np

from code_common.annotations.formats import (
    Annotations,
    Choice,
    parts_of,
    read_annotations,
    read_array,
)
from code_common.annotations.labels import (
    count_ids,
    counted,
    instance_map,
    listed,
    nucleus_masks,
    object_masks,
    point_label,
    told_of_pieces,
)
from code_common.annotations.of_image import check_plane, is_array, read_source
from code_common.annotations.sources import find_sources
from code_common.annotations.text import short, some_names, told_of_masks
from code_common.files.data_set import (
    ImageFiles,
    find_each,
    masks_beside,
    split_before,
    unread_images,
)
from code_common.files.images import image_shape, which_of_several
from code_common.files.layout import IMAGES, INSTANCE_LABELS, POINT_LABELS
from code_common.files.writing import write_instances, write_png

# What is imported -> folder of the labels in the data set, and how their names end.
LABELS = {
    "masks": (INSTANCE_LABELS, "_label.tif"),
    "points": (POINT_LABELS, "_label_point.png"),
}
# Errors of the system that are of one label alone, unlike a full disk.
OF_ONE_LABEL = (errno.ENAMETOOLONG, errno.EISDIR)


def choice_of(arguments: argparse.Namespace) -> Choice:
    """Which objects the user asks for."""
    classes, plane = arguments.classes, arguments.plane
    return Choice(classes and tuple(classes), plane and tuple(plane))


def import_label(
    files: ImageFiles, source: Path | Annotations, out: Path, arguments: argparse.Namespace
) -> str:
    """Write the label of an image; returns what was taken and left out. Raises InputError."""
    of_its_own = isinstance(source, Path)
    if of_its_own and is_array(source) and arguments.kind == "masks":
        return import_array(files, source, out, arguments)
    where = str(source) if of_its_own else f"{arguments.source}, {files.image.name}"
    shape, kind, choice = image_shape(files.image), arguments.kind, choice_of(arguments)
    annotations = read_source(files.image, shape, source, where, kind, choice, arguments.shift)
    if kind == "masks":
        label = instance_map(annotations, shape, where)
        write_instances(out, label)
        taken, masks = counted(count_ids(label), "nucleus"), nucleus_masks(label)
    else:
        label = point_label(annotations, shape, where)
        write_png(out, label)
        taken, masks = counted(np.count_nonzero(label), "point"), object_masks(annotations, shape)
    left_out = listed(annotations.left_out)
    notes = [f"left out: {left_out}"] * bool(left_out) + annotations.notes + told_of_pieces(masks)
    return "; ".join([taken, *notes])


def import_array(files: ImageFiles, source: Path, out: Path, arguments: argparse.Namespace) -> str:
    """Write the instance map that a file holds; returns its number of nuclei."""
    if any(arguments.shift):
        raise InputError(f"{source}: --shift is for outlines and points, not for maps")
    if arguments.classes is not None:
        raise InputError(f"{source}: it names no classes; --classes is for files that do")
    choice = choice_of(arguments)
    if choice.plane:
        check_plane(files.image, str(source), choice.plane)
    instances = read_array(source, image_shape(files.image), files.image, choice)
    write_instances(out, instances)
    notes = told_of_pieces(nucleus_masks(instances))
    return "; ".join([counted(count_ids(instances), "nucleus"), *notes])


def label_there(files: ImageFiles, kind: str) -> Path | None:
    """The label of a kind that an image has."""
    return files.instances if kind == "masks" else files.points


def import_one(
    files: ImageFiles, source: Path | Annotations, out: Path, arguments: argparse.Namespace
) -> str:
    """Import the label of an image unless it has one; returns a line. Raises InputError."""
    path = out / f"{files.name}{LABELS[arguments.kind][1]}"
    present = label_there(files, arguments.kind)
    if present and not present.is_file():
        raise InputError(f"{present}: no file; expected a label, or nothing")
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


def main(arguments: argparse.Namespace) -> None:
    """Import what there is for each image, and raise InputError for those that are wrong."""
    out = arguments.data_dir / LABELS[arguments.kind][0]
    images, (split, damage) = arguments.data_dir / IMAGES, split_before(arguments.data_dir)
    if damage:
        print(f"not heeded: {damage}")
    named = {name for names in split.values() for name in names}
    image_files, errors = find_each(images, None, out, named=named)
    if not image_files:
        raise InputError("\nerror: ".join(errors))
    labels = {files.name: label_there(files, arguments.kind) for files in image_files}
    there = {name: label for name, label in labels.items() if label and label.is_file()}
    sources, notes, of_sources = find_sources(
        image_files,
        arguments.source,
        arguments.kind,
        choice_of(arguments),
        kept=() if arguments.overwrite else there,
    )
    stays = {name: f"; {label.name} of earlier stays" for name, label in there.items()}
    errors += [f"{error}{stays.get(name, '')}" for name, error in of_sources.items()]
    if arguments.classes:
        check_classes(image_files, sources, arguments)
    for files in image_files:
        source = sources.get(files.name)
        try:
            if source is not None:
                print(f"{files.name}: {import_one(files, source, out, arguments)}")
            elif files.name in sources:
                print(f"{files.name}: nothing in {arguments.source}{stays.get(files.name, '')}")
        except InputError as error:
            errors.append(f"{error}{stays.get(files.name, '')}")
        except OSError as error:
            if error.errno not in OF_ONE_LABEL:
                raise
            errors.append(f"{error.filename}: {error.strerror.lower()}")
    if masks := masks_beside(images, named):
        notes.append(told_of_masks(masks))
    if unread := unread_images(images):
        notes.append(f"images of a kind that is not read: {some_names(unread)}; save them as PNG")
    for note in notes:
        print(note)
    if errors:
        raise InputError("\nerror: ".join(errors))


if __name__ == "__main__":
    run_script(lambda: main(arguments))
