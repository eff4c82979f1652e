"""What the validation images choose: the checkpoint and the way of making instances."""

from pathlib import Path

from code_common.errors import InputError
from code_common.files.data_set import load_split
from code_common.files.reading import read_json
from code_common.files.run_folder import best_path, phase_folder, selection_path
from code_common.files.writing import write_json
from code_common.launch import choose_device, tiling_of
from code_common.learning.checkpoints import load_network, load_state, scores_of, was_validated
from code_common.old_runs import checkpoint_path
from code_seg.dataset import load_validation
from code_seg.evaluate import mean_aji
from code_seg.magnify import predict_nuclei
from code_seg.options import METHODS, Options


def check_method(method: str, path: Path) -> None:
    """Raise InputError where a run, of another version, chose a method that is not there."""
    if method not in METHODS:
        raise InputError(
            f"{path}: chose instances by {method}, which this version does not know; give "
            f"--instances {', '.join(METHODS[:-1])} or {METHODS[-1]}"
        )


def read_selection(save_dir: Path) -> tuple[Path, str]:
    """The checkpoint and the instance method that a run chose. Raises InputError."""
    path = selection_path(save_dir)
    selection = read_json(path, {"checkpoint": str, "instances": str})
    return checkpoint_path(save_dir, selection["checkpoint"]), selection["instances"]


def choose_phase(scores: dict[str, dict[str, float]], with_masks: bool) -> str:
    """The phase whose checkpoint is taken.

    scores: phase -> `scores_of` its best checkpoint, in order; with_masks: all validation images
    have masks, else the scores are likelihoods of the labels.
    """
    able = list(scores)
    if not with_masks and "self_training" in scores:
        able.remove("labels")  # likelihoods of different labels do not compare
    # Without validation the network of the last phase is the method's result.
    validated = all(was_validated(scores[phase]) for phase in able)
    return max(able, key=lambda phase: scores[phase]["score"]) if validated else able[-1]


def select(options: Options) -> str:
    """Choose, on the validation images, the checkpoint and the instance method.

    Writes selection.json, which test.py reads; returns what to tell.
    """
    image_files, out = load_split(options.data_dir)["val"], options.save_dir
    # Of the phases of these options; a network of an earlier call may lie beside theirs.
    paths = {phase: best_path(phase_folder(out, phase)) for phase in options.phases()}
    scores = {phase: scores_of(load_state(path), path) for phase, path in paths.items()}
    with_masks = bool(image_files) and all(files.instances for files in image_files)
    phase = choose_phase(scores, with_masks)
    method, ajis = options.instances, {}
    if with_masks:
        ajis = _validation_aji(options, paths[phase])
        if method == "auto":
            method = max(ajis, key=ajis.get)
    elif method == "auto":
        method = "convex"  # the best on every set measured (docs/explanation/results.md)
    value = {
        "checkpoint": str(paths[phase].relative_to(out)),
        "instances": method,
        "val_score": {p: own["score"] for p, own in scores.items() if was_validated(own)} or None,
        "val_aji": ajis,
    }
    write_json(selection_path(out), value)
    words = ", ".join(f"{name} {score:.3f}" for name, score in ajis.items())
    return f"{phase} checkpoint, instances by {method}{words and f'; val AJI {words}'}"


def _validation_aji(options: Options, checkpoint: Path) -> dict[str, float]:
    """Mean AJI of each method on the validation images, seen as test images are."""
    device = choose_device(options)
    network, tiling = load_network(checkpoint, device, "segmentation"), tiling_of(options, device)
    images, points, truth = load_validation(options, load_split(options.data_dir)["val"])
    probs = [
        predict_nuclei(network, image, detected, tiling, options.nucleus_radius)
        for image, detected in zip(images, points, strict=True)
    ]
    return mean_aji(probs, points, truth, options.min_area)
