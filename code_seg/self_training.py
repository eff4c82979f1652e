"""Self-training of stage 2: labels for a second network from the nuclei that the first one found.

Not in the paper. Measured in docs/explanation/lab_notebook.md.
"""

from code_common.files.data_set import load_split
from code_common.files.images import read_image, read_instances
from code_common.files.reading import read_points
from code_common.files.run_folder import (
    SELF_TRAINING_LABELS,
    best_path,
    label_errors_path,
    label_path,
    label_picture_path,
    phase_folder,
    points_path,
)
from code_common.files.writing import write_png
from code_common.inference.magnification import enlarged, enlarged_map, enlarged_points
from code_common.inference.tiling import predict_prob, reader
from code_common.launch import choose_device, tiling_of
from code_common.learning.checkpoints import load_network
from code_seg.evaluate import make_instances
from code_seg.labels import errors_of, self_training_label, to_colours
from code_seg.magnify import magnification_and_look
from code_seg.options import Options
from code_seg.overlays import label_overlay
from code_seg.points import read_annotated
from code_seg.preparation import write_label_errors


def write_self_training_labels(options: Options) -> str:
    """Write labels_self_training/ of the training and validation images, from the first network.

    pictures/labels_self_training/ shows each label over its image;
    self_training_label_errors.json says how wrong they are where there are masks to tell.
    """
    split, out, device = load_split(options.data_dir), options.save_dir, choose_device(options)
    network = load_network(best_path(phase_folder(out, "labels")), device, "segmentation")
    tiling = tiling_of(options, device)
    magnified = 0
    errors: dict[str, dict] = {}
    for part in ("train", "val"):
        for files in split[part]:
            image = read_image(files.image)
            shape = image.shape[:2]
            points = read_points(points_path(out, files.name), shape)
            factor, _ = magnification_and_look(
                network, reader(image), shape, points, tiling, options.nucleus_radius
            )
            magnified += factor > 1
            if part == "train" and options.self_training_points == "annotated":
                points = read_annotated(options.detection_dir(), files.name, shape)
            image, points = enlarged(image, factor), enlarged_points(points, factor)
            prob = predict_prob(network, image, tiling)
            nuclei = make_instances(prob, points, options.min_area)["convex"]
            label = self_training_label(nuclei, prob, points)
            write_png(label_path(out, SELF_TRAINING_LABELS, files.name), to_colours(label))
            picture = label_picture_path(out, SELF_TRAINING_LABELS, files.name)
            write_png(picture, label_overlay(image, label))
            if files.instances:
                truth = enlarged_map(read_instances(files.instances, shape, files.image), factor)
                errors[files.name] = {"set": part, **errors_of(label, truth)}
    means = write_label_errors(label_errors_path(out, "self_training"), errors)
    message = f"{len(split['train'])} training images"
    if means:
        message = f"{means['wrong']:.1%} wrong, {means['nuclei_found']:.1%} of nuclei found"
    return message + (f"; {magnified} images of small nuclei are magnified" if magnified else "")
