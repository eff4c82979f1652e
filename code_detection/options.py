"""Options of stage 1, nuclei detection. Edit a default here, or give it as a flag."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from code_common.config import flag_of, shown_fields
from code_common.errors import InputError
from code_common.options import (
    AREA,
    LENGTH,
    SCRATCH,
    CommonOptions,
    OfRun,
    PredictOptions,
    ShardOptions,
    check_own_images,
)

# What depends on the data set; lengths in pixels, areas in square pixels. A new data set is one
# row: r1 is the radius of a nucleus of mean area (stage 2 calls the same number merge_radius),
# r2 = 2 r1, sigma = r1 / 4. 'default' serves the sets without a row (40x, as MO).
_PAPER = dict(
    rounds=3, epochs=80, batch_size=16, batch_parts=1, patch_size=250, input_size=224, lr=1e-4,
    model="resnet34", width=1.0, pretrained="imagenet",
    loss="mse", unknown_weight=0.0, auto_threshold=False,
)  # fmt: skip
DATASETS = {
    "default": dict(r1=11, r2=22, sigma=2.75, max_area=200, **_PAPER),
    "MO": dict(r1=11, r2=22, sigma=2.75, max_area=200, **_PAPER),
    "LC": dict(r1=8, r2=16, sigma=2.0, max_area=150, **_PAPER),
    # The embedded sample: from random weights, in minutes, on a CPU.
    "sample": dict(
        r1=10, r2=20, sigma=2.5, max_area=200,
        rounds=1, epochs=40, batch_size=4, batch_parts=2, patch_size=128, input_size=128,
        lr=2e-3, model="resnet18", width=0.25, pretrained="none",
        loss="bce", unknown_weight=0.1, auto_threshold=True,
    ),
}  # fmt: skip
PROFILES = {
    "scratch": SCRATCH
    | dict(rounds=0, epochs=80, loss="bce", unknown_weight=0.1, auto_threshold=True),
}


@dataclass(frozen=True)
class Options(CommonOptions):
    """Options of stage 1, which main.py takes."""

    # --- extended Gaussian mask
    r1: float | None = None  # radius in pixels of a nucleus: a detection at most this far off is
    #   right
    r2: float | None = None  # radius in pixels beyond which nothing is known around a point
    sigma: float | None = None  # standard deviation in pixels of the Gaussian
    peak_weight: float = 10.0  # weight of the pixels under a Gaussian; the ring around has 1
    unknown_weight: float | None = None  # weight as background of what is neither near a point nor
    #   known to be background; 0 (as published) leaves it out
    loss: str | None = None  # mse (as published), or bce: binary cross-entropy
    # --- self-training with background propagation
    rounds: int | None = None  # rounds after the initial one
    final_round: str = "last"  # the round whose detections stage 2 gets: last (as published), or
    #   best (highest F1 on the validation images)
    background_below: float = 0.1  # probability under which a pixel becomes background
    merged_above: float = 0.7  # probability over which pixels are joined; a component of them that
    #   is larger than max_area becomes background
    # --- detections
    threshold: float = 0.35  # probability over which pixels form a detection
    auto_threshold: bool | None = None  # choose the threshold on the validation images, for each
    #   checkpoint, from 0.15, 0.2, ... 0.6
    min_area: int = 12  # smallest component in square pixels
    max_area: int | None = None  # largest component in square pixels; a larger one is split
    val_points: str = "all"  # points of the validation images that choose the best checkpoint:
    #   all, or partial (only `ratio` of them; scored near these points alone)

    STAGE: ClassVar[str] = "detection"
    DATASETS: ClassVar[dict] = DATASETS
    PROFILES: ClassVar[dict] = CommonOptions.PROFILES | PROFILES
    BOUNDS: ClassVar[dict] = CommonOptions.BOUNDS | {
        "r1": (1, LENGTH),
        "r2": (1, LENGTH),
        "sigma": (0.1, LENGTH),
        "peak_weight": (0, 1000),
        "unknown_weight": (0, 1),
        "rounds": (0, 20),
        "background_below": (0, 1),
        "merged_above": (0, 1),
        "threshold": (0, 1),
        "min_area": (0, AREA),
        "max_area": (1, AREA),
    }
    CHOICES: ClassVar[dict] = {
        "loss": ("mse", "bce"),
        "val_points": ("all", "partial"),
        "final_round": ("last", "best"),
    }
    IDLE: ClassVar[dict] = {
        "threshold": ("auto_threshold", True),
        "background_below": ("rounds", 0),
        "merged_above": ("rounds", 0),
        "final_round": ("rounds", 0),
    }

    def resolved(self) -> "Options":
        """The options, checked; raises InputError, also where two contradict each other."""
        done = super().resolved()
        shown = {field.name for field in shown_fields(type(self))}
        for smaller, larger in (("r1", "r2"), ("sigma", "r1"), ("min_area", "max_area")):
            low, high = getattr(done, smaller), getattr(done, larger)
            if {smaller, larger} <= shown and low > high:
                raise InputError(
                    f"{flag_of(larger)} must be at least {flag_of(smaller)}, {low:g}, not {high:g}"
                )
        return done


@dataclass(frozen=True)
class PrepareOptions(Options):
    """Options of prepare_data.py."""

    USES: ClassVar[tuple] = (
        "dataset", "data_root", "data_dir", "ratio", "repeat", "random_seed", "root_save_dir",
        "save_dir", "val_points",
    )  # fmt: skip


@dataclass(frozen=True)
class RoundOptions(Options):
    """Options of the scripts that do one round."""

    # --- this round
    round: int = 0  # the round to do: 0 is the initial one

    BOUNDS: ClassVar[dict] = Options.BOUNDS | {"round": (0, 20)}


@dataclass(frozen=True)
class TrainOptions(RoundOptions):
    """Options of train.py."""

    USES: ClassVar[tuple] = (
        "this round", "data", "root_save_dir", "save_dir", "network", "training",
        "extended Gaussian mask", "detections", "tile", "overlap", "test_batch_size", "hardware",
    )  # fmt: skip


@dataclass(frozen=True)
class TestOptions(OfRun, RoundOptions, ShardOptions):
    """Options of test.py."""

    # --- this round
    round: int | None = None  # the round to test: 0 is the initial one; none: the one that the run
    #   chose
    # --- images of your own
    model_path: Path | None = None  # checkpoint; none: the best one of the round
    img_dir: Path | None = None  # folder of images; none: the data set's test images
    label_dir: Path | None = None  # folder of their labels, where scores are wanted

    USES: ClassVar[tuple] = (
        "this round", "images of your own", "many jobs", "dataset", "data_root", "data_dir",
        "ratio", "repeat", "profile", "root_save_dir", "save_dir", "scores", "r1", "threshold",
        "auto_threshold", "min_area", "max_area", "inference", "hardware",
    )  # fmt: skip

    def resolved(self) -> "TestOptions":
        """The options, checked; raises InputError."""
        check_own_images(self, "label_dir")
        return super().resolved()


@dataclass(frozen=True)
class PicturesOptions(OfRun, Options):
    """Options of pictures.py."""

    USES: ClassVar[tuple] = (
        "data", "root_save_dir", "save_dir", "r1", "r2", "sigma", "peak_weight",
        "unknown_weight", "rounds", "background_below", "patch_size", "input_size",
        "stain_augmentation",
    )  # fmt: skip


@dataclass(frozen=True)
class DetectionPredictOptions(PredictOptions):
    """Options of predict.py."""

    # --- results
    annotate: bool = False  # write annotate.html, too: a page in which the detections of the images
    #   are corrected in a browser
