"""Prepare self-training (--mask-epochs): labels from the nuclei that the first network found."""

import sys
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.config import parse
from code_common.errors import run_script
from code_common.files.data_set import load_split
from code_common.files.reading import read_image, read_instances, read_points
from code_common.files.writing import write_png
from code_common.inference.magnification import enlarged, enlarged_map, enlarged_points
from code_common.inference.tiling import predict_prob, reader
from code_common.learning.checkpoints import load_network
from code_seg.evaluate import choose_magnification, make_instances
from code_seg.labels import errors_of, mask_label, to_colours
from code_seg.options import Options
from code_seg.prepare_data import annotated_points, picture, write_errors


def write_mask_labels(options: Options) -> str:
    """Write labels_masks/ of the training and validation images, from the network of 'labels'.

    pictures/labels_masks/ shows each label over its image; mask_label_errors.json says how wrong
    they are where there are masks to tell.
    """
    split, out, device = load_split(options.data_dir), options.save_dir, options.choose_device()
    network, tiling = load_network(out / "labels" / "best.pt", device), options.tiling(device)
    magnified = 0
    errors: dict[str, dict] = {}
    for part in ("train", "val"):
        for sample in split[part]:
            image = read_image(sample.image)
            shape = image.shape[:2]
            points = read_points(out / "points" / f"{sample.name}.csv", shape)
            factor = choose_magnification(
                network, reader(image), shape, points, tiling, options.magnify_to
            )
            magnified += factor > 1
            if part == "train" and options.mask_points == "annotated":
                points = annotated_points(options, sample.name, shape)
            image, points = enlarged(image, factor), enlarged_points(points, factor)
            prob = predict_prob(network, image, tiling)
            nuclei = make_instances(prob, points, options.min_area)["convex"]
            label = mask_label(nuclei, prob, points)
            write_png(out / "labels_masks" / f"{sample.name}.png", to_colours(label))
            write_png(out / "pictures/labels_masks" / f"{sample.name}.png", picture(image, label))
            if sample.instances:
                truth = enlarged_map(read_instances(sample.instances, shape), factor)
                errors[sample.name] = {"set": part, **errors_of(label, truth)}
    means = write_errors(out / "mask_label_errors.json", errors)
    told = f"{len(split['train'])} training images"
    if means:
        told = f"{means['wrong']:.1%} wrong, {means['nuclei_found']:.1%} of nuclei found"
    return told + (f"; {magnified} images of small nuclei are magnified" if magnified else "")


if __name__ == "__main__":
    run_script(lambda: print(write_mask_labels(parse(Options, __doc__))))
