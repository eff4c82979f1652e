"""Train the segmentation network on both labels, a second one on the first one's nuclei if
--self-training-epochs says so, and fine-tune the last with the dense CRF loss."""

import sys
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.config import read_command_line
from code_seg.options import PHASES, Options, TrainOptions

if __name__ == "__main__":
    options = read_command_line(TrainOptions, __doc__)

from functools import partial

import numpy as np
import torch

from code_common.annotations.text import some_names
from code_common.files.data_set import ImageFiles, load_split
from code_common.files.images import read_image
from code_common.files.run_folder import best_path, detections_path, phase_folder
from code_common.inference.magnification import factor_of
from code_common.inference.tiling import Tiling, predict_prob
from code_common.launch import choose_device, first_network, made_of, recipe_of, run, tiling_of
from code_common.learning import distributed
from code_common.learning.checkpoints import load_network
from code_common.learning.loss_terms import Loss, LossTerm
from code_common.learning.network import ResUNet
from code_common.learning.training import Validate, fit
from code_common.runs.steps import do_alone
from code_seg.crf_loss import choose_backend
from code_seg.dataset import (
    label_paths,
    load_training,
    load_validation,
    magnified_like,
    read_labels,
)
from code_seg.evaluate import label_likelihood, mean_aji
from code_seg.labels import IGNORED
from code_seg.losses import crf_loss, label_loss
from code_seg.magnify import predict_enlarged
from code_seg.options import METHODS
from code_seg.selection import select
from code_seg.self_training import write_self_training_labels

# Options of train.py that the training of a phase does not depend on, or of which its labels tell.
OF_NO_PHASE = (
    "views", "crf_epochs", "self_training_epochs", "self_training_points", "nucleus_radius",
)  # fmt: skip
OF_CRF = ("crf_weight", "crf_sigma_xy", "crf_sigma_rgb", "crf_backend")


def make_validate(
    options: Options, network: ResUNet, tiling: Tiling, phase: str
) -> Validate | None:
    """A function that scores the network on the validation images (D1).

    None without any, and where some lack a mask and no label of any knows a pixel.
    """
    image_files = load_split(options.data_dir)["val"]
    if not image_files:
        return None
    labels = [read_labels(options, files, phase) for files in image_files]
    if not all(files.instances for files in image_files):
        if all((label == IGNORED).all() for pair in labels for label in pair):
            return None
        images = [
            magnified_like(read_image(files.image), pair[0])
            for files, pair in zip(image_files, labels, strict=True)
        ]
        return _validate_by_likelihood(network, tiling, images, labels)
    images, points, truth = load_validation(options, image_files)
    factors = [factor_of(pair[0], image) for pair, image in zip(labels, images, strict=True)]
    wanted = METHODS if options.instances == "auto" else (options.instances,)

    def validate() -> dict[str, float]:
        """Mean AJI of the best method, after the same post-processing as in the test (D14)."""
        pairs = zip(images, factors, strict=True)
        probs = [predict_enlarged(network, image, tiling, factor) for image, factor in pairs]
        scores = mean_aji(probs, points, truth, options.min_area)
        best = max(scores[method] for method in wanted)
        return {"score": best, **{f"aji_{method}": v for method, v in scores.items()}}

    return validate


def _validate_by_likelihood(
    network: ResUNet,
    tiling: Tiling,
    images: list[np.ndarray],
    labels: list[list[np.ndarray]],
) -> Validate:
    """A function that scores a network without masks, by the likelihood of the images' labels."""

    def validate() -> dict[str, float]:
        probs = [predict_prob(network, image, tiling) for image in images]
        pairs = zip(probs, labels, strict=True)
        likelihood = float(np.nanmean([label_likelihood(prob, pair) for prob, pair in pairs]))
        return {"score": likelihood, "log_likelihood": likelihood}

    return validate


def make_loss(options: Options, crf_backend: str | None) -> Loss:
    """Cross entropy on both labels and, with a backend, the dense CRF loss."""

    def loss(logits: torch.Tensor, batch: dict[str, torch.Tensor]) -> dict[str, LossTerm]:
        terms = label_loss(logits, batch["voronoi"], batch["clusters"], options.alpha)
        if crf_backend:
            terms |= crf_loss(
                logits,
                batch["image"],
                batch["inside"],
                weight=options.crf_weight,
                sigma_xy=options.crf_sigma_xy,
                sigma_rgb=options.crf_sigma_rgb,
                backend=crf_backend,
            )
        return terms

    return loss


def train_phase(options: Options, phase: str) -> dict[str, str]:
    """Train one phase; returns what was really used.

    'labels' and 'self_training' start from the first weights, 'crf' from the best checkpoint of
    the phase before it, at lr / 10. Writes PHASE/best.pt and PHASE/log.csv.
    """
    device, out = choose_device(options), options.save_dir
    seed = options.seed(PHASES[phase])
    torch.manual_seed(seed)
    changes = {"epochs": options.phases()[phase]}
    split = load_split(options.data_dir)
    learnt_from = _learnt_from(options, split, phase)
    if phase == "crf":
        before = "self_training" if options.self_training_epochs else "labels"
        first = best_path(phase_folder(out, before))
        network = load_network(first, device, "segmentation")
        learnt_from["first weights"] = [first]
        backend = choose_backend(options.crf_backend, device)
        used = {"crf_backend_used": backend}
        changes["lr"] = options.lr / 10
    else:
        network, used = first_network(options, "segmentation")
        backend = None

    image_files = split["train"]
    dataset = load_training(options, image_files, phase, options.cache)
    validate = make_validate(options, network, tiling_of(options, device).one_view(), phase)
    bare = [files.name for files in split["val"] if not files.instances]
    if 0 < len(bare) < len(split["val"]) and distributed.is_main():
        print(
            f"{some_names(bare)} of {len(split['val'])} validation images have no masks: the "
            "checkpoint that fits the labels of all best is taken"
        )
    if validate is None and distributed.is_main():
        why = "nothing was found in the" if split["val"] else "no"
        print(f"{why} validation images: the last epoch is taken as the best")
    fit(
        network,
        dataset,
        names=[files.name for files in image_files],
        loss_fn=make_loss(options, backend),
        validate=validate,
        recipe=recipe_of(options, device, seed, **changes),
        made_of=made_of(
            options, TrainOptions, learnt_from, OF_NO_PHASE + (() if backend else OF_CRF)
        ),
        device=device,
        folder=phase_folder(out, phase),
        title=f"segmentation ({phase})",
    )
    return used


def _learnt_from(
    options: Options, split: dict[str, list[ImageFiles]], phase: str
) -> dict[str, list[Path]]:
    """The files that a phase is made of, also by its validation: what they are -> their paths."""
    val = split["val"]
    seen, stage_1 = split["train"] + val, options.detection_dir()
    return {
        "images": [files.image for files in seen],
        "labels": [path for files in seen for path in label_paths(options, files, phase)],
        "validation masks": [files.instances for files in val if files.instances],
        "validation detections": [detections_path(stage_1, files.name) for files in val],
    }


def train(options: Options) -> None:
    """All phases and the selection."""
    for phase in options.phases():
        if phase == "self_training":
            if distributed.is_main():
                print(f"self-training labels: {write_self_training_labels(options)}")
            distributed.wait_for_all()
        train_phase(options, phase)
    if distributed.is_main():
        print(select(options))
    distributed.wait_for_all()


if __name__ == "__main__":
    run(partial(do_alone, train, trains=True), options)
