"""Train the segmentation network on both labels, again on its own nuclei if --mask-epochs says so,
and fine-tune it with the dense CRF loss."""

import sys
from pathlib import Path

import numpy as np
import torch

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.config import parse
from code_common.errors import InputError, run_script
from code_common.files.data_set import Sample, load_split
from code_common.files.reading import read_image, read_instances, read_points
from code_common.files.writing import write_json
from code_common.inference.magnification import enlarged, factor_of
from code_common.inference.tiling import predict_prob
from code_common.learning import distributed
from code_common.learning.checkpoints import load_encoder, load_network, load_state
from code_common.learning.colours import read_colours
from code_common.learning.crops import CropDataset
from code_common.learning.image_cache import keeper
from code_common.learning.network import ResUNet
from code_common.learning.training import fit, member_folder, train_members
from code_common.learning.transforms import Augmentation, Warp
from code_seg.crf_loss import choose_backend
from code_seg.evaluate import label_likelihood, mean_aji, predict_enlarged, predict_nuclei
from code_seg.instances import METHODS
from code_seg.labels import IGNORED, from_colours
from code_seg.losses import crf_term, label_terms
from code_seg.options import Options
from code_seg.prepare_data import detections_path
from code_seg.prepare_masks import write_mask_labels

PHASES = {"labels": 20, "masks": 22, "crf": 21}  # in order; each with its purpose of random numbers


def phases(options: Options) -> dict[str, int]:
    """The phases of training that have epochs, in order, and how many."""
    epochs = (options.epochs, options.mask_epochs, options.crf_epochs)
    return {phase: number for phase, number in zip(PHASES, epochs, strict=True) if number}


def read_labels(options: Options, name: str, phase: str = "labels") -> list[np.ndarray]:
    """Voronoi label and cluster label [H, W] of a prepared image; of a phase after the network's
    own masks these, in place of both.
    """
    own = phase != "labels" and options.mask_epochs
    folders = ["labels_masks"] * 2 if own else ["labels_voronoi", "labels_cluster"]
    return [from_colours(read_image(options.save_dir / f / f"{name}.png")) for f in folders]


def as_label(image: np.ndarray, label: np.ndarray) -> np.ndarray:
    """The image [H, W, 3], magnified as its label was when it was prepared."""
    return enlarged(image, factor_of(label, image))


def load_training(
    options: Options, samples: list[Sample], seed: int, phase: str = "labels"
) -> CropDataset:
    """The crops of training images with the labels of a phase."""
    keep = keeper(options.save_dir / "cache", [s.image for s in samples], 5, options.cache)
    images, labels = [], []
    for sample in samples:
        own = read_labels(options, sample.name, phase)
        image = as_label(read_image(sample.image), own[0])
        images.append(keep(f"{sample.name}_image", image))
        labels.append([keep(f"{sample.name}_{k}", label) for k, label in enumerate(own)])

    def make_crop(index: int, warp: Warp) -> dict[str, np.ndarray]:
        voronoi, clusters = (warp.label(label, IGNORED) for label in labels[index])
        inside = warp.inside(images[index].shape[:2])
        image = warp.image(images[index])
        return {"image": image, "voronoi": voronoi, "clusters": clusters, "inside": inside}

    augmentation = Augmentation(size=options.input_size, elastic=options.elastic)
    shapes = [image.shape[:2] for image in images]
    return CropDataset(
        shapes, make_crop, augmentation, options.patch_size, seed, options.stain_augmentation
    )


def load_validation(
    options: Options, samples: list[Sample]
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Images, detections and instance maps of validation samples with masks."""
    images = [read_image(s.image) for s in samples]
    points, truth = [], []
    for sample, image in zip(samples, images, strict=True):
        path = detections_path(options.detection_dir(), sample.name)
        points.append(read_points(path, image.shape[:2]))
        truth.append(read_instances(sample.instances, image.shape[:2]))
    return images, points, truth


def make_validate(options: Options, network: torch.nn.Module, tiling: dict, phase: str):
    """A function that scores the network on the validation images (D1), or None without any.

    With masks the score is the mean AJI of the best method, after the same post-processing as
    in the test (D14); without masks it is the likelihood of the images' own labels of the phase.
    """
    samples = load_split(options.data_dir)["val"]
    if not samples:
        return None
    if all(s.instances for s in samples):
        images, points, truth = load_validation(options, samples)
        labels = [read_labels(options, s.name, phase)[0] for s in samples]
        factors = [factor_of(own, image) for own, image in zip(labels, images, strict=True)]

        def validate() -> dict[str, float]:
            pairs = zip(images, factors, strict=True)
            probs = [predict_enlarged(network, image, tiling, factor) for image, factor in pairs]
            scores = mean_aji(probs, points, truth, options.min_area)
            wanted = METHODS if options.instances == "auto" else (options.instances,)
            best = max(scores[m] for m in wanted)
            return {"score": best, **{f"aji_{m}": v for m, v in scores.items()}}

        return validate
    labels = [read_labels(options, s.name, phase) for s in samples]
    images = [as_label(read_image(s.image), own[0]) for s, own in zip(samples, labels, strict=True)]

    def validate_without_masks() -> dict[str, float]:
        probs = [predict_prob(network, image, tiling) for image in images]
        pairs = zip(probs, labels, strict=True)
        likelihood = float(np.nanmean([label_likelihood(p, own) for p, own in pairs]))
        return {"score": likelihood, "log_likelihood": likelihood}

    return validate_without_masks


def train_one(
    options: Options, phase: str, member: int, folder: Path, title: str, say=print
) -> dict:
    """Train one network in a phase; returns what was really used."""
    device = options.choose_device()
    seed = options.seed(PHASES[phase], member)
    torch.manual_seed(seed)
    used: dict[str, str] = {}
    if phase != "crf":
        colours = read_colours(options.save_dir / "colours.json")
        network = ResUNet(options.model, 2, *colours, options.width, options.stem_stride)
        used["pretrained_loaded"] = load_encoder(network, options.model, options.pretrained)
        recipe = options.recipe(device, seed, epochs=phases(options)[phase])
    else:
        before = options.save_dir / ("masks" if options.mask_epochs else "labels")
        before = member_folder(before, member, options.members)
        network = load_network(before / "best.pt", device)
        backend = choose_backend(options.crf_backend, device)
        used["crf_backend_used"] = backend
        recipe = options.recipe(device, seed, lr=options.lr / 10, epochs=options.crf_epochs)
    samples = load_split(options.data_dir)["train"]
    dataset, names = load_training(options, samples, seed, phase), [s.name for s in samples]
    validate = make_validate(options, network, {**options.tiling(device), "views": 1}, phase)
    if validate is None and distributed.rank() == 0:
        say("no validation images: the last epoch is taken as the best")

    def loss(logits: torch.Tensor, batch: dict) -> dict:
        terms = label_terms(logits, batch["voronoi"], batch["clusters"], options.alpha)
        if phase == "crf":
            terms |= crf_term(
                logits,
                batch["image"],
                batch["inside"],
                options.crf_weight,
                options.crf_sigma_xy,
                options.crf_sigma_rgb,
                backend,
            )
        return terms

    best = fit(network, dataset, names, loss, validate, recipe, device, folder, title, say)
    if not best.is_file():
        raise InputError(f"{folder}: no epoch gave a score; see {folder / 'log.csv'}")
    return used


def train_phase(options: Options, phase: str, say=print) -> dict:
    """Train one phase: 'labels' and 'masks' from the first weights, 'crf' from the best of the
    phase before it at lr / 10.

    Writes PHASE/best.pt and PHASE/log.csv; returns what was really used.
    """
    device = options.choose_device()
    return train_members(
        options.save_dir / phase,
        f"segmentation ({phase})",
        options.members,
        lambda member, folder, title: train_one(options, phase, member, folder, title, say),
        lambda network: make_validate(options, network, options.tiling(device), phase),
        options.model,
        device,
        say,
    )


def select(options: Options) -> str:
    """Choose, on the validation images, the checkpoint and the instance method.

    Writes selection.json, which test.py reads.
    """
    split = load_split(options.data_dir)
    scored = bool(split["val"])
    scores = {}
    for phase in PHASES:
        path = options.save_dir / phase / "best.pt"
        if path.is_file():
            scores[phase] = load_state(path)["score"]
    with_masks = scored and all(s.instances for s in split["val"])
    # Likelihoods of other labels do not compare; without validation images the network of the last
    # phase is the method's result.
    able = [p for p in scores if p != "labels" or with_masks or "masks" not in scores]
    phase = max(able, key=scores.get) if scored else able[-1]
    method, ajis = options.instances, {}
    if with_masks:
        device = options.choose_device()
        network = load_network(options.save_dir / phase / "best.pt", device)
        images, points, truth = load_validation(options, split["val"])
        tiling, radius = options.tiling(device), options.magnify_to
        probs = [
            predict_nuclei(network, image, own, tiling, radius)
            for image, own in zip(images, points, strict=True)
        ]
        ajis = mean_aji(probs, points, truth, options.min_area)
        if method == "auto":
            method = max(ajis, key=ajis.get)
    elif method == "auto":
        method = "convex"  # the best on every set measured (docs/experiments.md)
    write_json(
        options.save_dir / "selection.json",
        {
            "checkpoint": f"{phase}/best.pt",
            "instances": method,
            "val_score": scores if scored else None,
            "val_aji": ajis,
        },
    )
    told = "".join(f", {m} {v:.3f}" for m, v in ajis.items())
    return f"{phase} checkpoint, instances by {method}{told and '; val AJI' + told[1:]}"


def train(options: Options, say=print) -> dict:
    """All phases and the selection; returns what was really used."""
    used = {}
    for phase in phases(options):
        if phase == "masks":
            if distributed.rank() == 0:
                say(f"labels of the masks: {write_mask_labels(options)}")
            distributed.wait_for_all()
        used |= train_phase(options, phase, say)
    if distributed.rank() == 0:
        say(select(options))
    distributed.wait_for_all()
    return used


if __name__ == "__main__":
    run_script(lambda: parse(Options, __doc__).run(train))
