"""The training loop of both stages: one epoch on one screen, resumable at any moment."""

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from code_common.errors import InputError
from code_common.files.reading import read_table
from code_common.files.writing import write_bytes, write_table
from code_common.learning import distributed
from code_common.learning.checkpoints import (
    checkpoint_bytes,
    load_network,
    load_state,
    save_network,
)
from code_common.learning.crops import CropDataset, make_loader
from code_common.learning.network import Ensemble, draw_dropout, to_network

# (logits, batch) -> named terms, already weighted, each as a sum over what the batch holds and
# the number to divide it by; the sum of the quotients is minimised
Loss = Callable[[Tensor, dict[str, Tensor]], dict[str, tuple[Tensor, Tensor]]]
# () -> named scores of the validation images; 'score' chooses the best checkpoint
Validate = Callable[[], dict[str, float]]

SAVE_EVERY_S = 60.0  # a killed run loses at most this much and one epoch
CALIBRATION_BATCHES = 64
TELL_EVERY_S = 60.0  # a line at least this often, beside those of the validations


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: the part of the options that the loop needs."""

    model: str
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    seed: int
    workers: int
    val_every: int
    precision: torch.dtype
    dropout: float = 0.0
    compile: bool = False  # torch.compile the training step
    tensorboard: bool = False  # write the scalars of log.csv for TensorBoard, too
    schedule: str = "constant"  # of the learning rate: constant, or cosine down to 0
    width: float = 1.0  # of the network
    stem_stride: int = 2

    def rate(self, epoch: int) -> float:
        """Learning rate of an epoch, from 0."""
        if self.schedule == "constant":
            return self.lr
        return self.lr * (1 + math.cos(math.pi * epoch / self.epochs)) / 2


def _silent(*_: object) -> None:
    pass


def _told(scores: dict[str, float]) -> str:
    """Validation scores as a line tells them."""
    return "".join(f"  val {name} {v:.3f}" for name, v in scores.items() if name != "score")


def _scalar_writer(folder: Path, start: int) -> Callable[[dict[str, float]], None]:
    """A function that shows a row of log.csv in TensorBoard; InputError where it is absent."""
    if distributed.rank():
        return _silent
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError("--tensorboard: not installed (pip install tensorboard)") from None
    writer = SummaryWriter(str(folder / "tensorboard"), purge_step=start)

    def write(row: dict[str, float]) -> None:
        for name, value in row.items():
            writer.add_scalar(name.replace("val_", "val/"), value, int(row["epoch"]))
        writer.flush()

    return write


def _fixed(recipe: Recipe) -> dict[str, object]:
    """What must stay as it is for a run to go on; the random numbers follow from the seed."""
    names = "model width stem_stride batch_size lr weight_decay seed val_every dropout".split()
    fixed = {name: getattr(recipe, name) for name in names}
    # The rate of a cosine depends on the number of epochs; else a training may go on for more.
    length = {"epochs": recipe.epochs} if recipe.schedule != "constant" else {}
    return fixed | {"schedule": recipe.schedule} | length


def _check_same(before: dict[str, object], recipe: Recipe, path: Path) -> None:
    for name, value in _fixed(recipe).items():
        if before.get(name, value) != value:
            raise InputError(
                f"{path}: holds a training with {name} {before[name]}, not {value}; remove it to "
                "begin anew, or give another --save-dir"
            )


def _log_rows(path: Path, before_epoch: int) -> tuple[list[str], list[list[float]]]:
    """Header and rows of log.csv up to an epoch: what a resumed run goes on from."""
    if not path.is_file():
        return [], []
    table = read_table(path)
    rows = np.stack(list(table.values()), 1)
    return list(table), rows[rows[:, 0] < before_epoch].tolist()


class Stopwatch:
    """Where the time goes: seconds between laps, summed by name, also of kernels on a GPU."""

    def __init__(self, device: torch.device):
        self.cuda = device.type == "cuda"
        self.laps: list[tuple[str, object]] = [("", self._now())]

    def _now(self) -> object:
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # read at the end: nothing waits for it
        event.record()
        return event

    def lap(self, name: str) -> None:
        """What was done since the last lap is called `name`."""
        self.laps.append((name, self._now()))

    def seconds(self) -> dict[str, float]:
        """Seconds by name."""
        if self.cuda:
            torch.cuda.synchronize()
        sums: dict[str, float] = {}
        for (_, before), (name, after) in itertools.pairwise(self.laps):
            took = before.elapsed_time(after) / 1000 if self.cuda else after - before
            sums[name] = sums.get(name, 0.0) + took
        return sums


def _global_terms(terms: dict[str, tuple[Tensor, Tensor]]) -> tuple[Tensor, dict[str, float]]:
    """The loss of this process' share of the batch, and each term's value over all processes.

    Divided by the counts of all processes, the shares' losses add up to that of one process.
    """
    sums, counts = (torch.stack([t[k].detach().float() for t in terms.values()]) for k in (0, 1))
    sums, counts = distributed.add_up(torch.stack([sums, counts]))
    counts = counts.clamp(min=1)
    loss = sum(s / n for (s, _), n in zip(terms.values(), counts, strict=True))
    return loss, dict(zip(terms, (sums / counts).tolist(), strict=True))


def train_epoch(
    network: nn.Module,
    loader: torch.utils.data.DataLoader,
    loss_fn: Loss,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    device: torch.device,
    names: list[str],
    title: str,
) -> dict[str, float]:
    """One pass over the crops: the mean of each loss term, and where the time went.

    Raises InputError, naming the images of the batch, at the first loss that is not finite.
    """
    network.train()
    sums: dict[str, float] = {}
    batches, watch = loader.batch_sampler, Stopwatch(device)
    mixed = recipe.precision != torch.float32
    own = slice(batches.rank, None, batches.size)  # of a whole batch
    bar = tqdm(loader, desc=title, leave=False, disable=None if distributed.rank() == 0 else True)
    for step, batch in enumerate(bar):
        batch = {k: v.to(device, non_blocking=True) for k, v in batch.items()}
        image = to_network(batch["image"], device)  # [B, 3, H, W]
        watch.lap("data")
        dropout = draw_dropout(batches.whole(step), recipe.dropout, recipe.width, device)[own]
        with torch.autocast(device.type, dtype=recipe.precision, enabled=mixed):
            logits = network(image, dropout)
        loss, values = _global_terms(loss_fn(logits.float(), {**batch, "image": image}))
        if not np.isfinite(list(values.values())).all():
            bad = ", ".join(k for k, v in values.items() if not np.isfinite(v))
            seen = distributed.from_all(batch["image_index"].tolist())
            images = ", ".join(sorted({names[i] for i in itertools.chain(*seen)}))
            raise InputError(
                f"{title}: the loss ({bad}) is not finite on {images}; the last good checkpoint "
                "is kept; try a smaller --lr or --precision fp32"
            )
        watch.lap("forward")
        optimizer.zero_grad(set_to_none=True)
        # DistributedDataParallel takes the mean of the gradients where their sum is meant.
        (loss * batches.size).backward()
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


@torch.no_grad()
def calibrate_norms(
    network: nn.Module, loader: torch.utils.data.DataLoader, recipe: Recipe, device: torch.device
) -> None:
    """Set the batch norms' statistics to those of the present weights over training crops.

    Behind a ReLU, a channel that is rarely active has a moving variance near 0 most of the time,
    and inference would multiply its next activation by hundreds: whole validation images fail
    between two good epochs. An average over many batches sees such a channel for what it is.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain average
    network.train()
    for batch in itertools.islice(loader, CALIBRATION_BATCHES):
        image = to_network(batch["image"], device)
        mixed = recipe.precision != torch.float32
        with torch.autocast(device.type, dtype=recipe.precision, enabled=mixed):
            network(image)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def member_folder(folder: Path, member: int, members: int) -> Path:
    """Where one network of an ensemble is trained, from 0: in `folder` itself if it is alone."""
    return folder if members == 1 else folder / f"member_{member + 1}"


def train_members(
    folder: Path,
    title: str,
    members: int,
    train_one: Callable[[int, Path, str], dict],
    validating: Callable[[nn.Module], Validate | None],
    model: str,
    device: torch.device,
    say: Callable[[str], None] = print,
) -> dict:
    """Train the networks of an ensemble one after the other, and make one checkpoint of them.

    `train_one` trains the one of a number into a folder, under a title, and returns what it used.
    The best checkpoints of all become one network in `folder/best.pt`, scored by what `validating`
    makes for it; `folder/log.csv` is the mean of their logs. Killed, the same call goes on.
    """
    if members == 1:
        return train_one(0, folder, title)
    folders = [member_folder(folder, k, members) for k in range(members)]
    for k, own in enumerate(folders):
        used = train_one(k, own, f"{title}, network {k + 1} of {members}")
    if distributed.rank() == 0:
        network = Ensemble([load_network(own / "best.pt", device) for own in folders]).eval()
        validate = validating(network)
        scores = validate() if validate else {}
        state = save_network(network, model, score=scores.get("score", 0.0), scores=scores)
        write_bytes(folder / "best.pt", checkpoint_bytes(state))
        logs = [read_table(own / "log.csv") for own in folders]
        mean = np.mean([np.stack(list(log.values()), 1) for log in logs], axis=0)
        write_table(folder / "log.csv", list(logs[0]), [[f"{v:.6g}" for v in r] for r in mean])
        say(f"{title}, all {members} networks together{_told(scores)}")
    distributed.wait_for_all()
    return used


def remove_unfinished(folder: Path) -> None:
    """Remove what a training in `folder` would go on from, once it is done."""
    for path in (folder / "last.pt", *folder.glob("member_*/last.pt")):
        path.unlink(missing_ok=True)


def fit(
    network: nn.Module,
    dataset: CropDataset,
    names: list[str],
    loss_fn: Loss,
    validate: Validate | None,
    recipe: Recipe,
    device: torch.device,
    folder: Path,
    title: str,
    say: Callable[[str], None] = print,
) -> Path:
    """Train a network; returns the path of its best checkpoint, `folder/best.pt`.

    `validate` is called every `val_every` epochs and after the last; without it the last epoch is
    the best. Killed at any moment, the same call goes on from `folder/last.pt` and ends with the
    same bits on a CPU: the random numbers of an epoch depend on seed and epoch alone.
    """
    if distributed.rank():
        say = _silent
    network.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(
        network.parameters(),
        lr=recipe.lr,
        betas=(0.9, 0.99),
        weight_decay=recipe.weight_decay,
        fused=device.type in ("cpu", "cuda"),
    )
    place = distributed.rank(), distributed.size()
    pin = device.type == "cuda"
    loader = make_loader(dataset, recipe.batch_size, recipe.workers, pin, *place)
    last, best = folder / "last.pt", folder / "best.pt"
    start, best_score = 0, float("-inf")
    if last.is_file():
        state = load_state(last)
        _check_same(state.get("recipe", {}), recipe, last)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        start, best_score = state["epoch"] + 1, state["best_score"]
        say(f"{title}: going on after epoch {start} of {recipe.epochs}")
    distributed.wait_for_all()  # all have read what the first will overwrite
    stepping = torch.compile(network) if recipe.compile else network
    if distributed.size() > 1:
        distributed.share_norms(network)
        stepping = nn.parallel.DistributedDataParallel(stepping)
    header, rows = _log_rows(folder / "log.csv", start)
    write_scalars = _scalar_writer(folder, start) if recipe.tensorboard else _silent
    saved = began = told_at = time.monotonic()
    for epoch in range(start, recipe.epochs):
        torch.manual_seed(int(np.random.default_rng((recipe.seed, epoch)).integers(2**62)))
        loader.batch_sampler.epoch = epoch
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate(epoch)
        epoch_title = f"{title} epoch {epoch + 1}/{recipe.epochs}"
        row = train_epoch(stepping, loader, loss_fn, optimizer, recipe, device, names, epoch_title)
        final = epoch + 1 == recipe.epochs
        scores: dict[str, float] = {}
        if final or (epoch + 1) % recipe.val_every == 0:
            calibrate_norms(network, loader, recipe, device)
            network.eval()
            if validate:
                scores = distributed.from_first(validate() if distributed.rank() == 0 else None)
        score = 0.0 if final and not validate else scores.get("score", float("nan"))
        better, best_score = score > best_score, max(best_score, score)
        elapsed = time.monotonic() - began
        row = {"epoch": epoch, "seconds": elapsed, **row}
        row |= {f"val_{k}": v for k, v in scores.items()}
        if distributed.rank() == 0:
            if better:
                state = {"epoch": epoch, "score": score, "scores": scores}
                state = save_network(network, recipe.model, **state)
                write_bytes(best, checkpoint_bytes(state))
            header += [k for k in row if k not in header]
            rows = [r + [float("nan")] * (len(header) - len(r)) for r in rows]
            rows.append([row.get(k, float("nan")) for k in header])
            write_table(folder / "log.csv", header, [[f"{v:.6g}" for v in r] for r in rows])
            write_scalars(row)
            if final or time.monotonic() - saved > SAVE_EVERY_S:
                state = {"optimizer": optimizer.state_dict(), "epoch": epoch}
                state |= {"best_score": best_score, "recipe": _fixed(recipe)}
                write_bytes(last, checkpoint_bytes(save_network(network, recipe.model, **state)))
                saved = time.monotonic()
        left = elapsed / (epoch + 1 - start) * (recipe.epochs - epoch - 1)
        if scores or final or time.monotonic() - told_at > TELL_EVERY_S:
            told_at = time.monotonic()
            speed = f"{row['images_per_s']:.1f} crops/s, {left / 60:.1f} min left"
            say(f"{epoch_title}  loss {row['loss']:.4f}{_told(scores)}  ({speed})")
    distributed.wait_for_all()
    return best
