"""The options that both stages have; each stage's options.py adds its own and may change these.

Nothing here imports torch: --help answers at once.
"""

import json
import re
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from pathlib import Path
from typing import ClassVar

from code_common.config import check_bounds, check_choices, flag_of, from_json
from code_common.errors import InputError, reason
from code_common.files.image_kinds import MICROSCOPES
from code_common.files.layout import IMAGES, SPLIT, TCGA_PATIENT
from code_common.files.run_folder import options_path, ratio_folder, stage_folder
from code_common.learning.encoders import ENCODERS, STEM_STRIDES, WIDTHS
from code_common.old_runs import kept_options, options_today

PROJECT = Path(__file__).resolve().parents[1]
PACKAGED = PROJECT / "data" / "models" / "tnbc.pt"  # the model that comes with the project
# Bounds of lengths (pixels), areas (square pixels) and epochs: far above what anybody needs, and
# still without overflow.
LENGTH, AREA, EPOCHS = 1000, 1_000_000, 100_000
# What both stages have of the profile 'scratch', for computers without a GPU: the best measured on
# MO without ImageNet weights, and fast (docs/explanation/results.md).
SCRATCH = dict(
    model="resnet18", width=0.25, pretrained="none", dropout=0.0,
    batch_size=8, batch_parts=2, lr=2e-3, schedule="cosine",
)  # fmt: skip


class Purpose(IntEnum):
    """What random numbers are for: each purpose has a seed of its own, see `CommonOptions.seed`."""

    DRAW = 0  # the partial points of stage 1, k-means of stage 2
    DETECTION = 1  # first weights, and crops of the initial round; those of round r have 1 + r
    LABELS = 20  # first weights and crops of stage 2's first network
    CRF = 21  # crops of its fine-tuning
    SELF_TRAINING = 22  # first weights and crops of its second network


@dataclass(frozen=True)
class InferenceOptions:
    """How a network is run; what prediction and both stages have in common."""

    # --- inference
    tile: int = 224  # side in pixels of the tiles that an image is cut into
    overlap: int = 80  # pixels that neighbouring tiles share
    test_batch_size: int = 8  # tiles per step
    views: int = 1  # 2, 4 or 8: the network sees every tile twice (as it is, and mirrored), at
    #   four quarter turns, or at these and their mirror images; the probabilities are
    #   averaged, and it takes as many times as long. Validations during training take one view
    # --- hardware
    device: str = "auto"  # auto, cpu, cuda, cuda:1, mps
    gpus: tuple[int, ...] = ()  # numbers of the GPUs to use; several work as one, on one batch
    precision: str = "auto"  # fp32, bf16, or auto: the faster one on this device

    LAST_SECTIONS: ClassVar[tuple] = ("inference", "hardware")
    INFERENCE_CHOICES: ClassVar[dict] = {
        "precision": ("auto", "fp32", "bf16"),
        "views": (1, 2, 4, 8),
    }
    # The inclusive bounds of every number; each number of each script has some.
    BOUNDS: ClassVar[dict[str, tuple[float, float]]] = {
        "tile": (32, 2048),
        "overlap": (0, 1536),
        "test_batch_size": (1, 1024),
        "views": (1, 8),
        "gpus": (0, 63),
    }


def check_inference(options: InferenceOptions) -> None:
    """Raise InputError for tiles that hardly advance, and for a device that nothing here knows."""
    # More than three quarters in common is more than 16 times the work.
    check_bounds(options, {"overlap": (0, options.tile * 3 // 4)})
    if not re.fullmatch(r"auto|cpu|mps|cuda(:[0-9]{1,2})?", options.device):
        raise InputError(
            f"--device must be auto, cpu, cuda, cuda:NUMBER or mps, not {options.device}"
        )
    if len(set(options.gpus)) < len(options.gpus):
        raise InputError(f"--gpus {' '.join(map(str, options.gpus))}: names a GPU twice")


@dataclass(frozen=True)
class PredictInference(InferenceOptions):
    """How a network is run on images without labels: as well as with eight views, in a quarter of
    the time (docs/explanation/performance.md).
    """

    overlap: int = 32
    views: int = 2


@dataclass(frozen=True)
class ShardOptions:
    """How many jobs share the images."""

    # --- many jobs
    shard: str = ""  # I/N: do every N-th image from the I-th (0 to N - 1) that is not done; the
    #   default is all images, or what a SLURM job array says


def is_weights_file(name: str, value: object) -> bool:
    """Whether an option of this name is one of first weights, and its value names a file."""
    return name in ("pretrained", "start_from") and Path(str(value)).is_file()


@dataclass(frozen=True)
class CommonOptions(InferenceOptions):
    """Data, network, training and inference. A field of None takes the data set's row."""

    # --- data
    dataset: str = "sample"  # name of the data set: a folder under data_root and a row of DATASETS
    data_root: Path = PROJECT / "data"  # folder that holds the data sets
    data_dir: Path | None = None  # the data set's own folder, if not data_root/dataset
    ratio: float = 0.10  # share of the nuclei of each training image that is annotated, 0..1;
    #   1 takes all points there are, so also a set that was only partly annotated
    repeat: int = 1  # number of the repeat; each one draws other points and other weights
    random_seed: int = 1  # everything random follows from it and the repeat
    profile: str = "paper"  # where the other defaults come from: paper (the data set's row), or
    #   scratch: small networks trained from scratch, the best measured without a GPU and without
    #   ImageNet weights (docs/explanation/results.md)
    # --- output
    root_save_dir: Path = PROJECT / "experiments"  # folder of all experiments
    save_dir: Path | None = None  # this run's own folder, if not
    #   root_save_dir/DATASET/ratio_RATIO/repeat_REPEAT/STAGE
    restart: bool = False  # throw away what the run folder holds and begin anew
    # --- scores
    patient: str = TCGA_PATIENT  # regular expression of what the image names of one patient
    #   have in common: the scores' intervals are drawn over patients; other names stand alone
    # --- network
    model: str | None = None  # encoder of the ResUNet: {choices}
    width: float | None = None  # share of the channels of the paper's network that every layer has;
    #   at 0.25 it trains eight times as fast, from random weights only
    stem_stride: int = 2  # stride of the first convolution: 2 (as published), or 1 for features
    #   twice as fine, at more than twice the work
    pretrained: str | None = None  # encoder's first weights: imagenet, a file, or none
    start_from: Path | None = None  # trained model (.pt, of tools/export_model.py) whose weights
    #   both stages start from, encoder and decoder; --pretrained then means nothing
    # --- training
    dropout: float = 0.1  # rate of the 2-D dropout in the decoder, 0..1
    stain_augmentation: float = 0.0  # by what share haematoxylin and eosin of each training crop
    #   are randomly made stronger or weaker, 0..1; 0: not (as published)
    patch_size: int | None = None  # side in pixels of the patches an image is cut into;
    #   one crop of each is seen per epoch
    input_size: int | None = None  # side in pixels of a training crop
    batch_size: int | None = None  # crops per step
    batch_parts: int | None = None  # parts of a batch, each with batch norms of its own (published:
    #   1), which the cores of a CPU do side by side; what they bring is in docs/guides/scaling.md.
    #   Several processes do a batch as one part
    epochs: int | None = None  # passes over the patches
    lr: float | None = None  # Adam's learning rate
    schedule: str = "constant"  # of the learning rate: constant (as published), or cosine, which
    #   falls to 0 over the epochs of each training
    weight_decay: float = 1e-4  # Adam's weight decay
    val_every: int = 5  # epochs between two validations
    workers: int = -1  # processes that make crops; -1: none on a CPU, up to 8 for a GPU
    cache: str = "auto"  # where the decoded training images are kept: memory, disk, or auto: in
    #   memory where they take no more than half of it
    compile: bool = False  # torch.compile the training step: a minute first, then faster on a GPU
    tensorboard: bool = False  # write the scalars of log.csv for TensorBoard, too

    SHORTHANDS: ClassVar[dict] = {"--no-pretrained": ("pretrained", "none")}
    STAGE: ClassVar[str] = ""
    DATASETS: ClassVar[dict[str, dict]] = {}
    PROFILES: ClassVar[dict[str, dict]] = {"paper": {}}
    # Options that leave the result as it is, so that a run may go on with others.
    NOT_IN_RESULT: ClassVar[frozenset] = frozenset(
        "data_root data_dir root_save_dir save_dir restart workers device gpus "
        "test_batch_size cache compile tensorboard profile "
        # Of scripts of one step.
        "shard round model_path img_dir label_dir points_dir".split()
    )
    COMMON_CHOICES: ClassVar[dict] = {
        "model": tuple(ENCODERS),
        **InferenceOptions.INFERENCE_CHOICES,
        "cache": ("auto", "memory", "disk"),
        "schedule": ("constant", "cosine"),
    }
    CHOICES: ClassVar[dict[str, tuple[str, ...]]] = {}
    # Flags of other scripts of a stage.
    ELSEWHERE: ClassVar[tuple[str, ...]] = ("--shard",)
    BOUNDS: ClassVar[dict[str, tuple[float, float]]] = InferenceOptions.BOUNDS | {
        "ratio": (1e-9, 1),
        "repeat": (1, 999_999),
        "random_seed": (0, 2**31),
        "width": WIDTHS,
        "stem_stride": STEM_STRIDES,
        "dropout": (0, 0.99),
        "stain_augmentation": (0, 1),
        "patch_size": (32, 10_000),
        "input_size": (64, 2048),
        "batch_size": (1, 1024),
        "batch_parts": (1, 16),
        "epochs": (1, EPOCHS),
        "lr": (1e-12, 1),
        "weight_decay": (0, 1),
        "val_every": (1, EPOCHS),
        "workers": (-1, 128),
    }

    NEEDS: ClassVar[dict] = {
        "data_dir": ("dataset", "the name of the results, and of the row with the constants"),
    }

    def resolved(self) -> "CommonOptions":
        """The options with every None filled from the data set's row, and checked.

        A data set without a row takes the row 'default'. Raises InputError out of bounds.
        """
        row = self.DATASETS["default"] | self.DATASETS.get(self.dataset, {})
        known = {f.name for f in fields(self)}
        assert set(row) <= known, f"DATASETS row {self.dataset}: unknown {set(row) - known}"
        values = {k: v for k, v in row.items() if getattr(self, k) is None}
        values["data_dir"] = self.data_dir or self.data_root / self.dataset
        values["save_dir"] = self.save_dir or self.stage_folder(self.STAGE)
        done = replace(self, **values)
        if not done.restart:
            done = replace(done, **_of_older_run(done.save_dir))
        check_name(done.dataset)
        check_results_folder(done)
        check_bounds(done, self.BOUNDS)
        check_inference(done)
        profiles = {"profile": tuple(self.PROFILES)}
        check_choices(done, profiles | self.COMMON_CHOICES | self.CHOICES)
        if done.start_from is None:  # here, too: not after hours of another stage
            check_width(done.width, done.pretrained)
        if done.begins():
            check_first_weights(done)
        try:
            re.compile(done.patient)
        except re.error as error:
            raise InputError(f"--patient {done.patient}: no regular expression ({error})") from None
        return done

    def begins(self) -> bool:
        """Whether the run needs its first weights: where it goes on, weights are in it already."""
        return self.restart or not options_path(self.save_dir).is_file()

    def stage_folder(self, stage: str) -> Path:
        """Run folder of a stage of this repeat, if nothing else was asked for."""
        return stage_folder(self.root_save_dir, self.dataset, self.ratio, self.repeat, stage)

    def detection_dir(self) -> Path | None:
        """Run folder of the stage 1 that this run goes on from; None: it is stage 1."""
        return None

    def experiment_folder(self) -> Path:
        """Folder of all repeats of this data set and ratio."""
        return ratio_folder(self.root_save_dir, self.dataset, self.ratio)

    def seed(self, purpose: Purpose | int) -> int:
        """A seed of its own for each purpose, repeat and random_seed."""
        return (self.random_seed * 1000 + self.repeat) * 100 + purpose


class OfRun:
    """Options of a script that looks at a run: those that are not given are those of the run."""

    def of_run(self) -> dict:
        """The options by name on which the results of the run in the run folder depend; none where
        there is no run.
        """
        # What is wrong with the file is told where it is read again. `read_json` imports numpy.
        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            text = options_path(self.save_dir).read_text(encoding="utf-8")
            saved = from_json(type(self), options_today(json.loads(text)["options"]))
            return {name: v for name, v in saved.items() if name not in self.NOT_IN_RESULT}
        return {}


def _of_older_run(folder: Path) -> dict:
    """The options with which a run that is there goes on, as it was begun before they were."""
    # No run, or what is refused where it is used. `read_json` would import numpy.
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        saved = json.loads(options_path(folder).read_text(encoding="utf-8"))["options"]
        return kept_options(saved) if isinstance(saved, dict) else {}
    return {}


def check_name(dataset: str) -> None:
    """Raise InputError where the name of a data set leads out of the folder that it is looked for
    in, and its results with it.
    """
    if dataset in ("", ".", "..") or re.search(r"[/\\\0]", dataset) or Path(dataset).is_absolute():
        raise InputError(
            f"--dataset must be a plain name, not {dataset!r}; give the data set's own folder with "
            "--data-dir"
        )


def resolved_path(path: Path, flag: str) -> Path:
    """The absolute path without links. Raises InputError for links that lead in a circle."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{flag} {path}: not a path ({reason(error)})") from None


def check_results_folder(options: CommonOptions) -> None:
    """Raise InputError where results would be written into the data, or around it."""
    for name in ("save_dir", "root_save_dir"):
        if getattr(options, name) == Path():
            raise InputError(f"{flag_of(name)} must be a folder for results, not the present one")
    flag, given = "--save-dir", options.save_dir
    if options.save_dir == options.stage_folder(options.STAGE):
        flag, given = "--root-save-dir", options.root_save_dir
    results = resolved_path(options.save_dir, flag)
    data = resolved_path(options.data_dir, "--data-dir")
    # The data set of this run, and any other one that is or holds the folder. What a run folder
    # itself holds is the user's, and --restart leaves it alone.
    around = [results, *results.parents][options_path(results).is_file() :]
    sets = [data, *(p for p in around if (p / SPLIT).is_file() and (p / IMAGES).is_dir())]
    for folder in sets:
        if results == folder or results in folder.parents or folder in results.parents:
            raise InputError(
                f"{flag} {given}: results must lie outside of the data set {folder}, and not "
                "around it"
            )


def check_own_images(options: object, *names: str) -> None:
    """Raise InputError where one of the folders that belong to --img-dir is given without it."""
    for name in names:
        if getattr(options, name) and options.img_dir is None:
            raise InputError(f"{flag_of(name)} is for images of your own; give --img-dir, too")


def check_width(width: float, pretrained: str) -> None:
    """Raise InputError where first weights are wanted that are there for width 1 alone."""
    if pretrained == "imagenet" and width != 1:
        raise InputError(
            f"--width {width:g}: ImageNet weights are those of width 1; train from scratch with "
            "--no-pretrained, or give a file with --pretrained FILE"
        )


def check_first_weights(options: CommonOptions) -> None:
    """Raise InputError where first weights are wanted of a file that is not there."""
    pretrained, start_from = options.pretrained, options.start_from
    if start_from and not start_from.is_file():
        raise InputError(
            f"--start-from {start_from}: {'a folder' if start_from.is_dir() else 'no such file'}; "
            "expected a file of tools/export_model.py"
        )
    if pretrained not in ("imagenet", "none") and not Path(pretrained).is_file():
        raise InputError(
            f"--pretrained {pretrained}: no such file; expected imagenet, none or a file of weights"
        )


@dataclass(frozen=True)
class PredictOptions(PredictInference, ShardOptions):
    """Options of prediction on images without labels."""

    # --- prediction
    model: Path = PACKAGED  # a run's folder (.../repeat_1), or the file it was exported to;
    #   data/models/tnbc.md tells what the default one was trained on
    images: tuple[Path, ...] = ()  # images, whole slides, or folders of them
    out: Path | None = None  # folder of the results
    mpp: float | None = None  # microns per pixel to read the images at, which is that of the
    #   training images; none: images are read as they are
    file_mpp: float | None = None  # microns per pixel of the files, where they state none or a
    #   wrong one
    tissue: str = "auto"  # auto: glass is left out of slides and TIFFs over 8192 x
    #   8192 pixels; or all

    BOUNDS: ClassVar[dict] = InferenceOptions.BOUNDS | {
        "mpp": MICROSCOPES,
        "file_mpp": MICROSCOPES,
    }

    def resolved(self) -> "PredictOptions":
        """The options, checked; raises InputError."""
        for name in ("images", "out"):
            if not getattr(self, name):
                raise InputError(f"--{name} is missing (--help lists every option)")
        check_bounds(self, self.BOUNDS)
        check_inference(self)
        check_choices(self, {**self.INFERENCE_CHOICES, "tissue": ("auto", "all")})
        out = resolved_path(self.out, "--out")
        for path in self.images:
            real = resolved_path(path, "--images")
            folders = {real}
            if not real.is_dir():
                folders = {real.parent, resolved_path(path.parent, "--images")}
            if out in folders:
                raise InputError(
                    f"--out {self.out}: holds images to predict on; give another folder, so that "
                    "results are never taken for images"
                )
        return self
