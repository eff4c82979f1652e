"""Import annotations of other tools into a data set, as instance maps or as points.

python data/import_labels.py masks  --data-dir data/MY --source annotations
python data/import_labels.py points --data-dir data/MY --source annotations

Images lie in data/MY/images. The source is a folder with one file for each image, named like the
image, or one COCO .json for all images. Masks are read from TILE.xml (Aperio ImageScope, MoNuSeg),
.geojson (QuPath), .npy, .mat (inst_map), .png and .tif. Points are read from .geojson, .tsv
(QuPath), .csv (napari, or x,y, or row,col) and .xml; an outline gives its centre. Writes
labels_instance/TILE_label.tif or labels_point/TILE_label_point.png, each whole or not at all.
Labels that are there already are kept.
"""

import argparse
import sys
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
        "--source", type=Path, required=True, help="folder of annotations, or a COCO file"
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
    parser.add_argument("--overwrite", action="store_true", help="replace labels that are there")
    return parser.parse_args(argv)


if __name__ == "__main__":
    arguments = parse_arguments()

import numpy as np

from code_common.errors import InputError, run_script
from code_common.files.data_set import (
    IMAGES,
    INSTANCE_LABELS,
    POINT_LABELS,
    ImageFiles,
    find_images,
)
from code_common.files.reading import image_shape
from code_common.files.writing import write_instances, write_png
from data.annotation_formats import (
    ARRAYS,
    READERS,
    Annotations,
    centre,
    rasterise,
    read_annotations,
    read_array,
    read_coco,
)

# What is imported -> folder of the labels in the data set, and how their names end.
LABELS = {
    "masks": (INSTANCE_LABELS, "_label.tif"),
    "points": (POINT_LABELS, "_label_point.png"),
}


def find_source(folder: Path, name: str) -> Path | None:
    """The file of an image in a folder of annotations. Raises InputError where there are several.

    An image file counts only where there is no other file: the image itself may lie in the folder.
    """
    stems = (name, f"{name}_label", f"{name}_labels", f"{name}_points")
    for suffixes in (tuple(READERS), ARRAYS):
        candidates = [folder / (stem + suffix) for stem in stems for suffix in suffixes]
        files = [file for file in candidates if file.is_file()]
        if len(files) > 1:
            names = ", ".join(file.name for file in files)
            raise InputError(f"{folder}: {names} are for one image; keep one of them")
        if files:
            return files[0]
    return None


def shifted(annotations: Annotations, shift: tuple[float, float]) -> Annotations:
    """The annotations moved by (dx, dy) pixels."""
    dx, dy = shift
    outlines = [[ring + shift for ring in outline] for outline in annotations.outlines]
    return Annotations(outlines, [(x + dx, y + dy) for x, y in annotations.points])


def point_label(annotations: Annotations, shape: tuple[int, int], where: Path) -> np.ndarray:
    """Point label uint8 [H, W]: 255 at the pixel of each point and of each outline's centre.

    where: what an error names. Raises InputError for a point outside of the image, and for two
    that touch.
    """
    points = annotations.points + [centre(outline) for outline in annotations.outlines]
    label = np.zeros(shape, np.uint8)
    for x, y in points:
        row, col = int(np.floor(y)), int(np.floor(x))
        if not (0 <= row < shape[0] and 0 <= col < shape[1]):
            raise InputError(
                f"{where}: the point ({x:g}, {y:g}) lies outside of its image of "
                f"{shape[1]} x {shape[0]}"
            )
        if label[max(0, row - 1) : row + 2, max(0, col - 1) : col + 2].any():
            raise InputError(
                f"{where}: two points touch at ({x:g}, {y:g}); they would count as one"
            )
        label[row, col] = 255
    return label


def import_points(
    files: ImageFiles, source: Path | Annotations, shift: tuple[float, float], out: Path
) -> str:
    """Write the point label of an image; returns what it holds. Raises InputError."""
    if isinstance(source, Path) and source.suffix.lower() in ARRAYS:
        raise InputError(f"{source}: expected a table, GeoJSON or XML of points")
    annotations, where = read_shifted(files, source, shift)
    label = point_label(annotations, image_shape(files.image), where)
    write_png(out, label)
    return f"{np.count_nonzero(label)} points"


def import_masks(
    files: ImageFiles, source: Path | Annotations, shift: tuple[float, float], out: Path
) -> str:
    """Write the instance map of an image; returns what it holds. Raises InputError."""
    shape = image_shape(files.image)
    if isinstance(source, Path) and source.suffix.lower() in ARRAYS:
        if any(shift):
            raise InputError(f"{source}: --shift is for outlines and points, not for maps")
        instances = read_array(source, shape)
        write_instances(out, instances)
        return f"{count_ids(instances)} nuclei"
    annotations, where = read_shifted(files, source, shift)
    outlines = annotations.outlines
    if not outlines:
        raise InputError(f"{where}: no outline in it; expected one for each nucleus")
    instances = rasterise(outlines, shape)
    write_instances(out, instances)
    count = count_ids(instances)
    if count == len(outlines):
        return f"{count} nuclei"
    return f"{count} nuclei ({len(outlines)} outlines: the others cover no pixel)"


def read_shifted(
    files: ImageFiles, source: Path | Annotations, shift: tuple[float, float]
) -> tuple[Annotations, Path]:
    """What was drawn on an image, moved, and the file that an error shall name."""
    if isinstance(source, Path):
        return shifted(read_annotations(source), shift), source
    return shifted(source, shift), files.image


def count_ids(instances: np.ndarray) -> int:
    """How many nuclei an instance map [H, W] holds."""
    return len(np.unique(instances[instances > 0]))


def main(arguments: argparse.Namespace) -> None:
    """Import what there is for each image. Raises InputError."""
    folder, ending = LABELS[arguments.kind]
    out = arguments.data_dir / folder
    image_files = find_images(arguments.data_dir / IMAGES, None, out)
    if arguments.source.is_dir():
        sources = {f.name: find_source(arguments.source, f.name) for f in image_files}
    else:
        by_name = read_coco(arguments.source)
        sources = {f.name: by_name.get(f.image.name) for f in image_files}
    if all(source is None for source in sources.values()):
        raise InputError(f"{arguments.source}: nothing in it has the name of an image")
    import_label = import_masks if arguments.kind == "masks" else import_points
    for files in image_files:
        source, path = sources[files.name], out / f"{files.name}{ending}"
        present = files.instances if arguments.kind == "masks" else files.points
        if source is None:
            print(f"{files.name}: nothing in {arguments.source}")
        elif present and not (arguments.overwrite and present.name == path.name):
            print(f"{files.name}: {present.name} is there, kept")
        else:
            print(f"{files.name}: {import_label(files, source, arguments.shift, path)}")


if __name__ == "__main__":
    run_script(lambda: main(arguments))
