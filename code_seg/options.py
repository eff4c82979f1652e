"""Options of stage 2, nuclei segmentation. Edit a default here, or give it as a flag."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from code_common.config import check_choices
from code_common.errors import InputError
from code_common.options import (
    AREA,
    EPOCHS,
    LENGTH,
    SCRATCH,
    CommonOptions,
    OfRun,
    PredictOptions,
    Purpose,
    ShardOptions,
    check_own_images,
)

# What depends on the data set; lengths in pixels. A new data set is one row; 'default' serves the
# sets without a row (40x, as MO). merge_radius is the radius of a nucleus, r1 of stage 1.
_PAPER = dict(
    epochs=100, crf_epochs=20, batch_size=8, batch_parts=1, patch_size=250, input_size=224, lr=1e-4,
    model="resnet34", width=1.0, pretrained="imagenet",
)  # fmt: skip
DATASETS = {
    "default": dict(merge_radius=11, crf_weight=0.005, crf_sigma_rgb=0.1, **_PAPER),
    "MO": dict(merge_radius=11, crf_weight=0.005, crf_sigma_rgb=0.1, **_PAPER),
    "LC": dict(merge_radius=8, crf_weight=0.001, crf_sigma_rgb=0.2, **_PAPER),
    # The embedded sample: from random weights, in minutes, on a CPU.
    "sample": dict(
        merge_radius=10, crf_weight=0.005, crf_sigma_rgb=0.1,
        epochs=40, crf_epochs=8, batch_size=4, batch_parts=2, patch_size=128, input_size=128,
        lr=2e-3, model="resnet18", width=0.25, pretrained="none",
    ),
}  # fmt: skip
PROFILES = {
    "scratch": SCRATCH
    | dict(
        epochs=60, self_training_epochs=60, crf_epochs=0, cluster_colours="red",
        stain_augmentation=0.4, nucleus_radius=13.5, views=8,
    ),
}  # fmt: skip

# How instances are made of a probability map. components: the paper's; points: these, split among
# the detections in them; convex: cut at their necks, completed, and weak ones removed.
METHODS = ("components", "points", "convex")
# What clustering sees of the colours, and what these (0..255) are divided by.
CLUSTER_COLOURS = {"rgb": 10.0, "red": 4.0}
# The phases of training in order, each with its purpose of random numbers.
PHASES = {
    "labels": Purpose.LABELS,  # on Voronoi and cluster label
    "self_training": Purpose.SELF_TRAINING,  # another network, on the nuclei of the first
    "crf": Purpose.CRF,  # the last one is fine-tuned with the CRF loss
}


@dataclass(frozen=True)
class Options(CommonOptions):
    """Options of stage 2, which main.py takes."""

    # --- points
    detection_results_dir: Path | None = None  # run folder of stage 1, if not
    #   root_save_dir/DATASET/ratio_RATIO/repeat_REPEAT/detection
    merge_radius: float | None = None  # a detection this near (pixels) to an annotated point, each
    #   other's nearest, is the same nucleus
    # --- labels
    clusters: int = 3  # k of the k-means clustering
    cluster_colours: str = "rgb"  # what clustering sees of the colour: rgb (as published), or red:
    #   haematoxylin absorbs it and eosin hardly does
    distance_limit: float = 20.0  # largest distance to a point, in pixels, that clustering sees
    # --- self-training
    self_training_epochs: int = 0  # epochs of training a second network on the nuclei that the
    #   first one found in the training images; 0: no second network (as published)
    self_training_points: str = "all"  # a nucleus counts where it holds one point: all (annotated
    #   or detected), or annotated, for sets in which every nucleus is annotated
    # --- small nuclei
    nucleus_radius: float = 0.0  # median radius in pixels of nuclei; an image of smaller ones is
    #   magnified up to that, at most twofold, for the training of --self-training-epochs and for
    #   every prediction; 0: never (as published)
    # --- loss
    alpha: float = 0.5  # weight of the Voronoi label; the cluster label has 1 - alpha
    crf_epochs: int | None = None  # epochs of fine-tuning with the CRF loss at lr / 10; 0: none
    crf_weight: float | None = None  # weight of the dense CRF loss, as published (lattice)
    crf_sigma_xy: float = 9.0  # spatial deviation of its kernel in pixels
    crf_sigma_rgb: float | None = None  # colour deviation of its kernel, for colours in 0..1
    crf_backend: str = "lattice"  # lattice (as published), exact, or torch (needs no compiler)
    # --- deformation
    elastic: float = 15.0  # deviation in pixels of the B-spline control points that deform a
    #   crop; 0: no deformation
    # --- instances
    min_area: int = 20  # smallest nucleus in square pixels
    instances: str = "auto"  # components (the paper's), points (split at the detections), convex
    #   (split at necks, gaps filled, weak ones removed), or auto: the best on the validation
    #   images, convex where these have no masks

    STAGE: ClassVar[str] = "segmentation"
    DATASETS: ClassVar[dict] = DATASETS
    PROFILES: ClassVar[dict] = CommonOptions.PROFILES | PROFILES
    NOT_IN_RESULT: ClassVar[frozenset] = CommonOptions.NOT_IN_RESULT | {"detection_results_dir"}
    BOUNDS: ClassVar[dict] = CommonOptions.BOUNDS | {
        "merge_radius": (0, LENGTH),
        "nucleus_radius": (0, 100),
        "clusters": (2, 10),
        "distance_limit": (0, LENGTH),
        "alpha": (0, 1),
        "self_training_epochs": (0, EPOCHS),
        "crf_epochs": (0, EPOCHS),
        "crf_weight": (0, 1000),
        "crf_sigma_xy": (0.1, LENGTH),
        "crf_sigma_rgb": (1e-3, 100),
        "elastic": (0, LENGTH),
        "min_area": (0, AREA),
    }
    CHOICES: ClassVar[dict] = {
        "cluster_colours": tuple(CLUSTER_COLOURS),
        "self_training_points": ("all", "annotated"),
        "crf_backend": ("lattice", "exact", "torch"),
        "instances": ("auto", *METHODS),
    }
    IDLE: ClassVar[dict] = {
        "self_training_points": ("self_training_epochs", 0),
        **dict.fromkeys(
            ("crf_weight", "crf_sigma_xy", "crf_sigma_rgb", "crf_backend"), ("crf_epochs", 0)
        ),
    }

    def detection_dir(self) -> Path:
        """Run folder of the stage 1 that this run goes on from."""
        return self.detection_results_dir or self.stage_folder("detection")

    def phases(self) -> dict[str, int]:
        """The phases of training that have epochs, in order, and how many."""
        epochs = (self.epochs, self.self_training_epochs, self.crf_epochs)
        return {phase: number for phase, number in zip(PHASES, epochs, strict=True) if number}


@dataclass(frozen=True)
class PrepareOptions(Options):
    """Options of prepare_data.py."""

    USES: ClassVar[tuple] = ("data", "root_save_dir", "save_dir", "points", "labels")


@dataclass(frozen=True)
class PrepareSelfTrainingOptions(Options):
    """Options of prepare_self_training.py."""

    USES: ClassVar[tuple] = (
        "dataset", "data_root", "data_dir", "ratio", "repeat", "profile", "root_save_dir",
        "save_dir", "detection_results_dir", "self_training_points", "small nuclei", "min_area",
        "inference", "hardware",
    )  # fmt: skip


@dataclass(frozen=True)
class TrainOptions(Options):
    """Options of train.py."""

    USES: ClassVar[tuple] = (
        "data", "root_save_dir", "save_dir", "network", "training", "detection_results_dir",
        "self-training", "small nuclei", "loss", "deformation", "instances", "inference",
        "hardware",
    )  # fmt: skip


@dataclass(frozen=True)
class TestOptions(OfRun, Options, ShardOptions):
    """Options of test.py."""

    # --- images of your own
    model_path: Path | None = None  # checkpoint; none: the run's selected one
    img_dir: Path | None = None  # folder of images; none: the data set's test images
    label_dir: Path | None = None  # folder of their instance maps, where scores are wanted
    points_dir: Path | None = None  # folder of their detections (NAME_points.csv), which points and
    #   convex need; none: connected components

    USES: ClassVar[tuple] = (
        "images of your own", "many jobs", "dataset", "data_root", "data_dir", "ratio", "repeat",
        "profile", "root_save_dir", "save_dir", "scores", "detection_results_dir", "merge_radius",
        "small nuclei", "instances", "inference", "hardware",
    )  # fmt: skip

    def resolved(self) -> "TestOptions":
        """The options, checked; raises InputError."""
        check_own_images(self, "label_dir", "points_dir")
        return super().resolved()


@dataclass(frozen=True)
class PicturesOptions(OfRun, Options):
    """Options of pictures.py."""

    USES: ClassVar[tuple] = (
        "data", "root_save_dir", "save_dir", "detection_results_dir", "self_training_epochs",
        "patch_size", "input_size", "stain_augmentation", "deformation", "min_area",
    )  # fmt: skip


@dataclass(frozen=True)
class OracleOptions(OfRun, Options):
    """Options of oracles.py."""

    # --- images to look at
    part: str = "val"  # val, or test (to know, never to choose by)

    USES: ClassVar[tuple] = (
        "images to look at", "data", "root_save_dir", "save_dir", "detection_results_dir",
        "merge_radius", "labels", "small nuclei", "min_area", "inference", "hardware",
    )  # fmt: skip

    def resolved(self) -> "OracleOptions":
        """The options, checked; raises InputError."""
        check_choices(self, {"part": ("val", "test")})
        return super().resolved()


@dataclass(frozen=True)
class SegPredictOptions(PredictOptions):
    """Options of predict.py."""

    # --- results
    coco: bool = False  # write coco.json of all images, too, once they are done
    instances: str = "auto"  # components, points (split at the run's detections), convex (split at
    #   necks, gaps filled, weak ones removed), or auto: the run's validation images chose
    points: Path | None = None  # points of your own in place of detections, one for each nucleus:
    #   a folder with a file for each image, or one file, in any format of data/import_labels.py
    only_points: bool = False  # leave out nuclei without one of these points

    def resolved(self) -> "SegPredictOptions":
        """The options, checked; raises InputError."""
        check_choices(self, {"instances": ("auto", *METHODS)})
        if self.only_points and not self.points:
            raise InputError("--only-points: give --points, too")
        return super().resolved()
