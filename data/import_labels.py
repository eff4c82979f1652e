"""Take annotations of other tools into a data set: instance maps, or points.

python data/import_labels.py masks  --data-dir data/MY --source annotations
python data/import_labels.py points --data-dir data/MY --source annotations

Images lie in data/MY/images; the source is a folder with one file for each of them, by the same
name. For masks: TILE.xml (Aperio ImageScope, MoNuSeg), .geojson (QuPath), .npy, .mat (inst_map),
.png, .tif. For points: .geojson, .tsv (QuPath), .csv (napari, or x,y, or row,col), .xml; an outline
gives its centre. Or one COCO .json for all. Writes labels_instance/TILE_label.tif or
labels_point/TILE_label_point.png, whole or not at all; files that are there are kept.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.errors import InputError, run_script
from code_common.files.data_set import Sample, find_samples
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


def find_source(folder: Path, name: str) -> Path | None:
    """The one file of a tile; InputError where there are several.

    An image file counts where there is no other, for the tile itself may lie in the folder.
    """
    stems = (name, f"{name}_label", f"{name}_labels", f"{name}_points")
    for suffixes in (tuple(READERS), ARRAYS):
        files = [folder / (stem + suffix) for stem in stems for suffix in suffixes]
        files = [file for file in files if file.is_file()]
        if len(files) > 1:
            names = ", ".join(file.name for file in files)
            raise InputError(f"{folder}: {names} are for one image; keep one of them")
        if files:
            return files[0]
    return None


def moved(found: Annotations, shift: tuple[float, float]) -> Annotations:
    """Everything moved by (dx, dy) pixels."""
    return Annotations(
        [[ring + shift for ring in outline] for outline in found.outlines],
        [(x + shift[0], y + shift[1]) for x, y in found.points],
    )


def point_label(found: Annotations, shape: tuple[int, int], where: Path) -> np.ndarray:
    """Point label uint8 [H, W], 255 at the pixel of each point; of outlines their centres."""
    points = found.points + [centre(outline) for outline in found.outlines]
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


def import_one(sample: Sample, source: Path | Annotations, kind: str, shift, out: Path) -> str:
    """Write the label of one image; returns what it holds."""
    shape = image_shape(sample.image)
    is_file = isinstance(source, Path)
    if is_file and source.suffix.lower() in ARRAYS:
        if kind == "points":
            raise InputError(f"{source}: expected a table, GeoJSON or XML of points")
        if any(shift):
            raise InputError(f"{source}: --shift is for outlines and points, not for maps")
        instances, drawn = read_array(source, shape), None
    else:
        found = moved(read_annotations(source) if is_file else source, shift)
        where = source if is_file else sample.image
        if kind == "points":
            label = point_label(found, shape, where)
            write_png(out / f"{sample.name}_label_point.png", label)
            return f"{np.count_nonzero(label)} points"
        if not found.outlines:
            raise InputError(f"{where}: no outline in it; expected one for each nucleus")
        instances, drawn = rasterise(found.outlines, shape), len(found.outlines)
    write_instances(out / f"{sample.name}_label.tif", instances)
    count = len(np.unique(instances[instances > 0]))
    hidden = "" if drawn in (None, count) else f" ({drawn} outlines: the others cover no pixel)"
    return f"{count} nuclei{hidden}"


def main() -> None:
    """Command line."""
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
        "--shift", type=float, nargs=2, default=(0.0, 0.0), metavar=("DX", "DY"),
        help="pixels that outlines and points are moved by; -0.5 -0.5 for MoNuSeg's XML, whose "
        "published masks count from the middle of a pixel and start at 1 (default: 0 0)",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace labels that are there")
    args = parser.parse_args()
    folder, ending = (
        ("labels_instance", "_label.tif") if args.kind == "masks"
        else ("labels_point", "_label_point.png")
    )  # fmt: skip
    out = args.data_dir / folder
    samples = find_samples(args.data_dir / "images", None, out)
    if args.source.is_dir():
        sources = {s.name: find_source(args.source, s.name) for s in samples}
    else:
        by_name = read_coco(args.source)
        sources = {s.name: by_name.get(s.image.name) for s in samples}
    if not any(source is not None for source in sources.values()):
        raise InputError(f"{args.source}: nothing in it has the name of an image")
    for sample in samples:
        there = sample.instances if args.kind == "masks" else sample.points
        if sources[sample.name] is None:
            print(f"{sample.name}: nothing in {args.source}")
        elif there and not (args.overwrite and there.name == sample.name + ending):
            print(f"{sample.name}: {there.name} is there, kept")
        else:
            told = import_one(sample, sources[sample.name], args.kind, args.shift, out)
            print(f"{sample.name}: {told}")


if __name__ == "__main__":
    run_script(main)
