"""The training loop of both stages: one epoch on one screen, resumable at any moment."""

import io
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from code_common.data import read_table, write_bytes, write_table
from code_common.dataset import CropDataset, make_loader
from code_common.errors import InputError
from code_common.model import load_state, save_network
from code_common.tiling import to_network

# (logits, batch) -> named terms, already weighted; their sum is minimised
Loss = Callable[[Tensor, dict[str, Tensor]], dict[str, Tensor]]
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


def choose_device(name: str, gpu: int | None = None) -> torch.device:
    """'auto' takes CUDA, then Apple's MPS, then the CPU; InputError where the choice is absent.

    `gpu` picks one of the CUDA devices that CUDA_VISIBLE_DEVICES leaves visible.
    """
    if gpu is not None and name in ("auto", "cuda"):
        name = f"cuda:{gpu}"
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
        if name == "cpu" and torch.backends.mps.is_available():
            name = "mps"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name}: {str(error).splitlines()[0]}") from None
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """'auto' takes bfloat16 where the hardware multiplies it (CUDA >= Ampere, AVX512-BF16, AMX)."""
    if name != "auto":
        return torch.float32 if name == "fp32" else torch.bfloat16
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        cpuinfo = Path("/proc/cpuinfo")
        flags = cpuinfo.read_text() if device.type == "cpu" and cpuinfo.exists() else ""
        fast = "avx512_bf16" in flags or "amx_bf16" in flags
    return torch.bfloat16 if fast else torch.float32


def choose_workers(workers: int, device: torch.device) -> int:
    """Processes that make crops; -1 chooses: none on a CPU, where the network is the bottleneck."""
    if workers >= 0:
        return workers
    return min(8, torch.get_num_threads()) if device.type == "cuda" else 0


def _save(path: Path, state: dict) -> None:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes(path, buffer.getbuffer())


def _log_rows(path: Path, before_epoch: int) -> tuple[list[str], list[list[float]]]:
    """Header and rows of log.csv up to an epoch: what a resumed run goes on from."""
    if not path.is_file():
        return [], []
    table = read_table(path)
    rows = np.stack(list(table.values()), 1)
    return list(table), rows[rows[:, 0] < before_epoch].tolist()


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
    """One pass over the crops; returns the mean of each loss term.

    Raises InputError, naming the images of the batch, at the first loss that is not finite.
    """
    network.train()
    sums: dict[str, float] = {}
    for batch in tqdm(loader, desc=title, leave=False, disable=None):
        batch = {k: v.to(device, non_blocking=True) for k, v in batch.items()}
        image = to_network(batch["image"], device)  # [B, 3, H, W]
        mixed = recipe.precision != torch.float32
        with torch.autocast(device.type, dtype=recipe.precision, enabled=mixed):
            logits = network(image)
        terms = loss_fn(logits.float(), {**batch, "image": image})
        loss = sum(terms.values())
        if not torch.isfinite(loss):
            bad = ", ".join(k for k, v in terms.items() if not torch.isfinite(v)) or "sum"
            images = ", ".join(sorted({names[i] for i in batch["image_index"].tolist()}))
            raise InputError(
                f"{title}: the loss ({bad}) is not finite on {images}; the last good checkpoint "
                "is kept; try a smaller --lr or --precision fp32"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + value.item()
    return {name: value / len(loader) for name, value in sums.items()}


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
    network.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(
        network.parameters(), lr=recipe.lr, betas=(0.9, 0.99), weight_decay=recipe.weight_decay
    )
    loader = make_loader(dataset, recipe.batch_size, recipe.workers, device.type == "cuda")
    last, best = folder / "last.pt", folder / "best.pt"
    start, best_score = 0, float("-inf")
    if last.is_file():
        state = load_state(last)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        start, best_score = state["epoch"] + 1, state["best_score"]
        say(f"{title}: going on after epoch {start} of {recipe.epochs}")
    header, rows = _log_rows(folder / "log.csv", start)
    saved = began = told_at = time.monotonic()
    for epoch in range(start, recipe.epochs):
        torch.manual_seed(int(np.random.default_rng((recipe.seed, epoch)).integers(2**62)))
        loader.sampler.epoch = epoch
        epoch_title = f"{title} epoch {epoch + 1}/{recipe.epochs}"
        means = train_epoch(network, loader, loss_fn, optimizer, recipe, device, names, epoch_title)
        final = epoch + 1 == recipe.epochs
        scores: dict[str, float] = {}
        if final or (epoch + 1) % recipe.val_every == 0:
            calibrate_norms(network, loader, recipe, device)
            network.eval()
            scores = validate() if validate else {}
        score = 0.0 if final and not validate else scores.get("score", float("nan"))
        if score > best_score:
            best_score = score
            _save(best, save_network(network, recipe.model, epoch=epoch, score=score))
        elapsed = time.monotonic() - began
        row = {"epoch": epoch, "seconds": elapsed, **means, "loss": sum(means.values())}
        row |= {f"val_{k}": v for k, v in scores.items()}
        header += [k for k in row if k not in header]
        rows = [r + [float("nan")] * (len(header) - len(r)) for r in rows]
        rows.append([row.get(k, float("nan")) for k in header])
        write_table(folder / "log.csv", header, [[f"{v:.6g}" for v in r] for r in rows])
        if final or time.monotonic() - saved > SAVE_EVERY_S:
            state = {"optimizer": optimizer.state_dict(), "epoch": epoch, "best_score": best_score}
            _save(last, save_network(network, recipe.model, **state))
            saved = time.monotonic()
        left = elapsed / (epoch + 1 - start) * (recipe.epochs - epoch - 1)
        if scores or final or time.monotonic() - told_at > TELL_EVERY_S:
            told_at = time.monotonic()
            told = "".join(f"  val {k} {v:.3f}" for k, v in scores.items() if k != "score")
            say(f"{epoch_title}  loss {row['loss']:.4f}{told}  ({left / 60:.1f} min left)")
    return best
