"""The training loop of both stages: one epoch on one screen, resumable at any moment."""

import itertools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from code_common.errors import InputError, reason
from code_common.files.run_folder import best_path, last_path, log_path
from code_common.files.writing import write_bytes
from code_common.learning import distributed
from code_common.learning.checkpoints import (
    checkpoint_bytes,
    load_state,
    misfit_of,
    save_network,
)
from code_common.learning.crops import CropDataset, make_loader
from code_common.learning.loss_terms import Loss, LossTerm, add_terms
from code_common.learning.network import ResUNet, draw_dropout, mixed_precision, to_network
from code_common.learning.parts import Parts, threads_of_a_part
from code_common.learning.precision import precision_name
from code_common.learning.stopwatch import Stopwatch
from code_common.learning.training_log import Progress, TrainingLog

# () -> named scores of the validation images; 'score' chooses the best checkpoint
Validate = Callable[[], dict[str, float]]

SAVE_EVERY_S = 60.0  # a killed run loses at most this much and one epoch
CALIBRATION_BATCHES = 64


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained: the part of the options that the loop needs."""

    epochs: int
    batch_size: int
    lr: float  # Adam's learning rate
    weight_decay: float
    seed: int
    workers: int  # processes that make crops
    val_every: int  # epochs between two validations
    precision: torch.dtype
    batch_parts: int = 1  # of a batch, each with batch norms of its own
    dropout: float = 0.0  # rate in the decoder
    compile: bool = False  # torch.compile the training step
    tensorboard: bool = False  # write the scalars of log.csv for TensorBoard, too
    schedule: str = "constant"  # of the learning rate: constant, or cosine down to 0

    def parts(self) -> int:
        """Parts of a batch in this process; several processes do a batch as one part."""
        return self.batch_parts if distributed.size() == 1 else 1

    def rate(self, epoch: int) -> float:
        """Learning rate of an epoch, from 0."""
        if self.schedule == "constant":
            return self.lr
        return self.lr * (1 + math.cos(math.pi * epoch / self.epochs)) / 2

    def seed_of(self, epoch: int) -> int:
        """Seed of everything random in an epoch but its crops, which have their own."""
        return int(np.random.default_rng((self.seed, epoch)).integers(2**62))


def _settings(network: ResUNet, recipe: Recipe, made_of: Mapping[str, object]) -> dict[str, object]:
    """What must stay as it is for a training to go on; the random numbers follow from the seed."""
    shape = {k: getattr(network, k) for k in ("model", "width", "stem_stride")}
    names = "batch_size batch_parts lr weight_decay seed val_every dropout schedule".split()
    # The rate of a cosine depends on the number of epochs; else a training may go on for more.
    names += ["epochs"] if recipe.schedule != "constant" else []
    return {**made_of, **shape, **{name: getattr(recipe, name) for name in names}}


def train_epoch(
    parts: Parts,
    loader: DataLoader,
    loss_fn: Loss,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    device: torch.device,
    names: list[str],
    title: str,
) -> dict[str, float]:
    """One pass over the crops: the mean of each loss term, and where the time went.

    parts: of the network; names: of the images, by their index. Raises InputError, naming the
    images of the batch, at the first loss that is not finite.
    """

    def forward(network: nn.Module, part: dict[str, Tensor]) -> dict[str, LossTerm]:
        image = to_network(part["image"], device)  # [B, 3, H, W]
        with mixed_precision(recipe.precision, device):
            logits = network(image, part.get("dropout"))
        return loss_fn(logits.float(), {**part, "image": image})

    parts.train()
    sums: dict[str, float] = {}
    batches, watch = loader.batch_sampler, Stopwatch(device)
    share = slice(batches.rank, None, batches.size)  # this process' crops of a whole batch
    # None: a bar where the output is a terminal.
    bar = tqdm(loader, desc=title, leave=False, disable=None if distributed.is_main() else True)
    for step, batch in enumerate(bar):
        batch = {k: v.to(device, non_blocking=True) for k, v in batch.items()}
        watch.lap("data")
        # Drawn for the whole batch, so that the number of processes does not matter.
        dropout = draw_dropout(batches.whole(step), recipe.dropout, parts.plain[0].width, device)
        if dropout is not None:
            batch["dropout"] = dropout[share]
        cut = zip(*(parts.cut(v) for v in batch.values()), strict=True)
        terms = parts.map(forward, [dict(zip(batch, part, strict=True)) for part in cut])
        losses, values = add_terms(terms)
        _check_finite(values, batch["image_index"], names, title)
        watch.lap("forward")
        optimizer.zero_grad(set_to_none=True)
        # DistributedDataParallel takes the mean of the gradients where their sum is meant.
        parts.map(lambda _, loss: (loss * batches.size).backward(), losses)
        parts.add_gradients()
        optimizer.step()
        watch.lap("backward")
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + value
        bar.set_postfix(loss=f"{sum(values.values()):.4f}", refresh=False)
    means = {name: value / len(loader) for name, value in sums.items()}
    seconds = watch.seconds()
    total = sum(seconds.values())
    shares = {f"{name}_share": seconds[name] / total for name in ("data", "forward", "backward")}
    return {**means, "loss": sum(means.values()), "images_per_s": batches.count / total, **shares}


def _check_finite(
    values: dict[str, float], image_index: Tensor, names: list[str], title: str
) -> None:
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if not bad:
        return
    seen = itertools.chain(*distributed.from_all(image_index.tolist()))
    images = ", ".join(sorted({names[i] for i in seen}))
    raise InputError(
        f"{title}: the loss ({', '.join(bad)}) is not finite on {images}; the last good checkpoint "
        "is kept; try a smaller --lr or --precision fp32"
    )


def make_optimizer(
    network: nn.Module, recipe: Recipe, device: torch.device
) -> torch.optim.Optimizer:
    """Adam with the paper's betas; fused, where torch has that for the device."""
    return torch.optim.Adam(
        network.parameters(),
        lr=recipe.lr,
        betas=(0.9, 0.99),
        weight_decay=recipe.weight_decay,
        fused=device.type in ("cpu", "cuda"),
    )


def resume(
    last: Path,
    network: ResUNet,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    made_of: Mapping[str, object],
    device: torch.device,
    title: str,
) -> tuple[int, float]:
    """Take up the state that a killed training left in `last`: the epoch to go on with, best score.

    Without that file a training begins: (0, -inf). Raises InputError where the training in it has
    another recipe or is made of something else, since its end would be neither the one nor the
    other, and where it is damaged: whether to give up what it holds is for the user to say.
    """
    if not last.is_file():
        return 0, float("-inf")
    anew = "remove it to begin this training anew"
    try:
        state = load_state(last)
    except InputError as error:
        raise InputError(f"{error}; {anew}") from None
    before, epoch, best_score = (state.get(k) for k in ("recipe", "epoch", "best_score"))
    known = isinstance(before, dict) and isinstance(epoch, int) and isinstance(best_score, float)
    if not known or any(isinstance(value, Tensor) for value in before.values()):
        raise InputError(f"{last}: not the last state of a training; {anew}")
    for name, value in _settings(network, recipe, made_of).items():  # older files lack some
        if before.get(name, value) != value:
            raise InputError(
                f"{last}: holds a training with {name} {before[name]}, not {value}; remove it to "
                "begin anew, or give another --save-dir"
            )
    start = epoch + 1
    if not 0 < start <= recipe.epochs or math.isnan(best_score):
        raise InputError(
            f"{last}: holds a training after epoch {start} with score {best_score:g}, expected one "
            f"of {recipe.epochs} epochs; {anew}"
        )
    misfit = misfit_of(state.get("network"), network.state_dict())
    misfit = misfit or _take_up_optimizer(optimizer, state.get("optimizer"))
    if misfit:
        raise InputError(f"{last}: not the last state of this training ({misfit}); {anew}")
    network.load_state_dict(state["network"])
    if distributed.is_main():
        print(f"{title}: going on after epoch {start} of {recipe.epochs}", flush=True)
        _tell_other_format(state.get("precision"), precision_name(recipe.precision), title)
        if device.type == "cpu":
            now = threads_of_a_part(recipe.parts(), device)
            _tell_other_threads(state.get("threads"), now, title)
    return start, best_score


def _take_up_optimizer(optimizer: torch.optim.Optimizer, state: object) -> str:
    """Give the optimizer a state; what of it does not fit, or ''."""
    try:
        optimizer.load_state_dict(state)
    except Exception as error:  # a state of another shape raises almost anything
        return f"its optimizer: {reason(error)}"
    if not optimizer.state:
        return "its optimizer: no moments"
    for parameter, of_parameter in optimizer.state.items():
        wanted = {"step": torch.tensor(1.0), "exp_avg": parameter, "exp_avg_sq": parameter}
        if misfit := misfit_of(of_parameter, wanted):
            return f"its optimizer: {misfit}"
    return ""


def _tell_other_threads(before: object, now: int, title: str) -> None:
    """Say that a training goes on with another number of threads than it had `before`.

    Sums are then added up in another order. Older checkpoints do not tell the number.
    """
    if isinstance(before, int) and before != now:
        print(
            f"{title}: goes on with {now} threads for each part of a batch instead of {before}, so "
            "the last bits of its weights change; OMP_NUM_THREADS would keep them",
            flush=True,
        )


def _tell_other_format(before: object, now: str, title: str) -> None:
    """Say that a training goes on in another number format than it had `before`.

    Older checkpoints do not tell the format.
    """
    if isinstance(before, str) and before != now:
        print(f"{title}: goes on in {now} instead of {before}; --precision chooses", flush=True)


def spread(network: ResUNet, recipe: Recipe) -> Parts:
    """The network as a step calls it: in parts, or one over all processes; compiled if asked for.

    Batch norms over all processes are those of the whole batch.
    """

    def wrap(one: nn.Module) -> nn.Module:
        one = torch.compile(one) if recipe.compile else one
        return nn.parallel.DistributedDataParallel(one) if distributed.size() > 1 else one

    if distributed.size() > 1:
        distributed.share_norms(network)
        if recipe.batch_parts > 1 and distributed.is_main():
            print("several processes: a batch is one part; --batch-parts is left out", flush=True)
    return Parts(network, recipe.parts(), wrap)


def validate_epoch(
    parts: Parts,
    loader: DataLoader,
    validate: Validate | None,
    precision: torch.dtype,
    device: torch.device,
) -> dict[str, float]:
    """Make the network ready for inference; its scores, where there are validation images.

    The first process validates, and tells the others.
    """

    def forward(network: nn.Module, images: Tensor) -> None:
        with mixed_precision(precision, device):
            network(to_network(images, device))

    batches = itertools.islice(loader, CALIBRATION_BATCHES)
    parts.calibrate_norms((batch["image"] for batch in batches), forward)
    parts.plain[0].eval()
    if validate is None:
        return {}
    return distributed.from_first(validate() if distributed.is_main() else None)


def _write_checkpoint(path: Path, network: ResUNet, **extra: object) -> None:
    if distributed.is_main():
        write_bytes(path, checkpoint_bytes(save_network(network, **extra)))


def fit(
    network: ResUNet,
    dataset: CropDataset,
    names: list[str],
    loss_fn: Loss,
    validate: Validate | None,
    recipe: Recipe,
    made_of: Mapping[str, object],
    device: torch.device,
    folder: Path,
    title: str,
) -> Path:
    """Train a network; returns the path of its best checkpoint in `folder`.

    names: of the dataset's images; made_of: what else the result follows from, by name: plain
    values, hashes of files. `validate` is called every `val_every` epochs and after the last;
    without it the last epoch is the best. Killed at any moment, the same call goes on from the last
    checkpoint and ends with the same bits on a CPU. Raises InputError where the last checkpoint is
    of another training, and where no epoch had a score.
    """
    network.to(device, memory_format=torch.channels_last)
    optimizer = make_optimizer(network, recipe, device)
    loader = make_loader(
        dataset, recipe.batch_size, recipe.workers, pin=device.type == "cuda",
        rank=distributed.rank(), size=distributed.size(),
    )  # fmt: skip
    best, last = best_path(folder), last_path(folder)
    start, best_score = resume(last, network, optimizer, recipe, made_of, device, title)
    if start == 0 and distributed.is_main():
        best.unlink(missing_ok=True)  # of an earlier training, which was given up
    distributed.wait_for_all()  # all have read what the first will overwrite
    log = TrainingLog(folder, start, recipe.tensorboard)
    parts, saved = spread(network, recipe), time.monotonic()
    threads = threads_of_a_part(recipe.parts(), device)
    alone = device.type == "cpu" and distributed.size() < 2  # else others may be of this training
    progress = Progress(start, recipe.epochs, threads if alone else 1)
    for epoch in range(start, recipe.epochs):
        # The random numbers of an epoch depend on seed and epoch alone, so a training that goes on
        # sees what an uninterrupted one would have seen.
        torch.manual_seed(recipe.seed_of(epoch))
        loader.batch_sampler.epoch = epoch
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate(epoch)
        epoch_title = f"{title} epoch {epoch + 1}/{recipe.epochs}"
        row = train_epoch(parts, loader, loss_fn, optimizer, recipe, device, names, epoch_title)

        final = epoch + 1 == recipe.epochs
        scores: dict[str, float] = {}
        if final or (epoch + 1) % recipe.val_every == 0:
            scores = validate_epoch(parts, loader, validate, recipe.precision, device)
        # An epoch without a score is never the best, but for the last one of a training without
        # validation images.
        unscored_end = final and validate is None
        score = 0.0 if unscored_end else scores.get("score", float("nan"))
        if score > best_score or unscored_end:
            best_score = score
            _write_checkpoint(best, network, epoch=epoch, score=score, scores=scores)

        row = {"epoch": epoch, "seconds": progress.elapsed(), **row}
        row |= {f"val_{name}": value for name, value in scores.items()}
        log.add(row)
        progress.tell(epoch_title, row, scores)
        # Last: what it says is done must be on the disk by now.
        if final or time.monotonic() - saved > SAVE_EVERY_S:
            _write_checkpoint(
                last, network, epoch=epoch, best_score=best_score,
                optimizer=optimizer.state_dict(), recipe=_settings(network, recipe, made_of),
                threads=threads, precision=precision_name(recipe.precision),
            )  # fmt: skip
            saved = time.monotonic()
    distributed.wait_for_all()
    if not best.is_file():
        raise InputError(f"{folder}: no epoch gave a score; see {log_path(folder)}")
    return best
