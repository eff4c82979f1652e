"""The options that both stages have; each stage's options.py adds its own and may change these."""

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import ClassVar

import torch

from code_common.config import check_bounds, check_choices
from code_common.errors import InputError
from code_common.learning import distributed
from code_common.learning.checkpoints import check_width
from code_common.learning.hardware import choose_device, choose_precision, choose_workers
from code_common.learning.network import MODELS
from code_common.learning.training import Recipe

PROJECT = Path(__file__).resolve().parents[1]
BIG = float("inf")
# What both stages have of the profile 'narrow': the best without a GPU and without ImageNet weights
# on MO (docs/experiments.md).
NARROW = dict(
    model="resnet18", width=0.25, pretrained="none", dropout=0.0,
    batch_size=8, lr=2e-3, schedule="cosine",
)  # fmt: skip


@dataclass(frozen=True)
class InferenceOptions:
    """How a network is run; what prediction and both stages have in common."""

    # --- inference and hardware
    tile: int = 224  # side in pixels of the tiles of inference
    overlap: int = 80  # pixels that neighbouring tiles share
    test_batch_size: int = 8  # tiles per step of inference
    views: int = 1  # 4 or 8: every tile is seen at four turns, or these and their mirror images,
    #   and the probabilities are averaged; it takes as many times as long. Validations during
    #   training see one
    shard: str = ""  # I/N: test.py and predict.py do every N-th image from the I-th, 0 to N - 1,
    #   that is not done; the default is all, or what a SLURM job array says
    device: str = "auto"  # auto, cpu, cuda, cuda:1, mps
    gpus: tuple[int, ...] = ()  # numbers of the GPUs to use; several work as one, on one batch
    precision: str = "auto"  # fp32, bf16, or auto: bf16 where the hardware multiplies it

    INFERENCE_CHOICES: ClassVar[dict] = {"precision": ("auto", "fp32", "bf16"), "views": (1, 4, 8)}

    def choose_device(self) -> torch.device:
        """The device of this process; InputError where it is absent."""
        number = distributed.local_rank() or 0
        if self.gpus and number >= len(self.gpus):
            raise InputError(f"--gpus: {len(self.gpus)} GPUs, but this is process {number + 1}")
        return choose_device(self.device, self.gpus[number] if self.gpus else None)

    def run(self, action: Callable[["InferenceOptions"], object]) -> None:
        """Do a script's action: in this process or, with several --gpus, in one for each."""
        if len(self.gpus) > 1 and distributed.local_rank() is None:
            sys.exit(distributed.launch(len(self.gpus)))
        told = distributed.work_together(self.choose_device(), lambda: action(self))
        if isinstance(told, str):
            print(told)

    def tiling(self, device: torch.device) -> dict:
        """How `predict_image` cuts and computes."""
        return {
            "tile": self.tile,
            "overlap": self.overlap,
            "batch_size": self.test_batch_size,
            "views": self.views,
            "precision": choose_precision(self.precision, device),
        }


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
    #   narrow: a network of a quarter of the width, other losses, and a second network on the first
    #   one's nuclei; the best measured without a GPU and ImageNet weights (docs/experiments.md)
    # --- output
    root_save_dir: Path = PROJECT / "experiments"  # folder of all experiments
    save_dir: Path | None = None  # this run's own folder, if not
    #   root_save_dir/DATASET/ratio_RATIO/repeat_REPEAT/STAGE
    restart: bool = False  # throw away what the run folder holds and begin anew
    patient: str = "TCGA-..-[^-]+"  # regular expression of what the image names of one patient
    #   have in common: the scores' intervals are drawn over patients; other names stand alone
    # --- network
    model: str | None = None  # encoder of the ResUNet: resnet18, resnet34, resnet50 or resnet101
    width: float | None = None  # share of the channels of the paper's network that every layer has;
    #   at 0.25 it trains eight times as fast, from random weights only
    stem_stride: int = 2  # stride of the first convolution: 2 (as published), or 1 for features
    #   twice as fine, at more than twice the work
    pretrained: str | None = None  # encoder's first weights: imagenet, a file, or none
    dropout: float = 0.1  # rate of the 2-D dropout in the decoder, 0..1
    members: int = 1  # networks that are trained from other first weights on other crops, and whose
    #   probabilities are averaged; both training and inference take as many times as long
    # --- training
    stain_augmentation: float = 0.0  # by what share haematoxylin and eosin of each training crop
    #   are randomly made stronger or weaker, 0..1; 0: not (as published)
    patch_size: int | None = None  # side in pixels of the patches an image is cut into;
    #   one crop of each is seen per epoch
    input_size: int | None = None  # side in pixels of a training crop
    batch_size: int | None = None  # crops per step
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
        "data_root data_dir root_save_dir save_dir restart workers device gpus precision "
        "test_batch_size shard cache compile tensorboard patient profile".split()
    )
    COMMON_CHOICES: ClassVar[dict] = {
        "model": MODELS,
        **InferenceOptions.INFERENCE_CHOICES,
        "cache": ("auto", "memory", "disk"),
        "schedule": ("constant", "cosine"),
    }
    CHOICES: ClassVar[dict[str, tuple[str, ...]]] = {}
    BOUNDS: ClassVar[dict[str, tuple[float, float]]] = {
        "ratio": (1e-9, 1),
        "repeat": (1, BIG),
        "random_seed": (0, 2**31),
        "width": (0.1, 4),
        "stem_stride": (1, 2),
        "dropout": (0, 0.99),
        "members": (1, 100),
        "stain_augmentation": (0, 1),
        "patch_size": (32, BIG),
        "input_size": (64, BIG),
        "batch_size": (1, BIG),
        "epochs": (1, BIG),
        "lr": (1e-12, 1),
        "weight_decay": (0, 1),
        "val_every": (1, BIG),
        "workers": (-1, 256),
        "tile": (32, BIG),
        "overlap": (0, BIG),
        "test_batch_size": (1, BIG),
    }

    def resolved(self) -> "CommonOptions":
        """The options with every None filled from the data set's row, and checked.

        A data set without a row takes the row 'default'. Raises InputError out of bounds.
        """
        row = self.DATASETS["default"] | self.DATASETS.get(self.dataset, {})
        known = {f.name for f in fields(self)}
        assert set(row) <= known, f"DATASETS row {self.dataset}: unknown {set(row) - known}"
        values = {k: v for k, v in row.items() if getattr(self, k) is None}
        run = f"ratio_{self.ratio:g}/repeat_{self.repeat}/{self.STAGE}"
        values["data_dir"] = self.data_dir or self.data_root / self.dataset
        values["save_dir"] = self.save_dir or self.root_save_dir / self.dataset / run
        done = replace(self, **values)
        check_bounds(done, {**self.BOUNDS, "overlap": (0, done.tile - 1)})
        profiles = {"profile": tuple(self.PROFILES)}
        check_choices(done, profiles | self.COMMON_CHOICES | self.CHOICES)
        check_width(done.width, done.pretrained)  # here, too: not after hours of another stage
        try:
            re.compile(done.patient)
        except re.error as error:
            raise InputError(f"--patient {done.patient}: no regular expression ({error})") from None
        return done

    def seed(self, purpose: int, member: int = 0) -> int:
        """A seed of its own for each purpose, member of the ensemble, repeat and random_seed."""
        return ((member * 2**32 + self.random_seed) * 1000 + self.repeat) * 100 + purpose

    def recipe(self, device: torch.device, seed: int, **changes: float) -> Recipe:
        """What the training loop needs of the options."""
        return replace(
            Recipe(
                self.model,
                self.epochs,
                self.batch_size,
                self.lr,
                self.weight_decay,
                seed,
                choose_workers(self.workers, device),
                self.val_every,
                choose_precision(self.precision, device),
                self.dropout,
                self.compile,
                self.tensorboard,
                self.schedule,
                self.width,
                self.stem_stride,
            ),
            **changes,
        )
