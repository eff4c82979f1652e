"""Time the dense CRF loss on real tiles beside a plain lattice: correctness first, then times.

python tests/benchmarks/crf_loss.py [--images DIR] [--threads 1 2] [--out FILE.json] [--check]

The plain lattice (tests/native/plain_lattice.cpp) is the published design: one thread, a lattice
for the value and one for the gradient. Times on noise mean nothing: its colours fill the lattice.
"""

import argparse
import ctypes
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

PROJECT = Path(__file__).resolve().parents[2]
if not __package__:
    sys.path.insert(0, str(PROJECT))

from code_common.errors import InputError, run_script
from code_common.files.data_set import find_images
from code_common.files.images import read_image
from code_common.files.writing import write_json
from code_seg.crf_loss import available, dense_crf_loss
from code_seg.crf_loss.crf_loss import window_radius

SIGMA_XY, SIGMA_RGB = 9.0, 0.1
# (image [B, 3, H, W], values [B, H, W]) -> the filtered values
Filter = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def crops(folder: Path, count: int, size: int) -> torch.Tensor:
    """`count` random crops [N, 3, size, size] in 0..1 of the folder's first tiles."""
    rng, out = np.random.default_rng(0), []
    tiles = max(1, count // 2)
    for files in find_images(folder, None)[:tiles]:
        image = read_image(files.image)
        for _ in range(-(-count // tiles)):
            row, col = (rng.integers(0, n - size + 1) for n in image.shape[:2])
            out.append(image[row : row + size, col : col + size])
    stack = np.stack(out[:count]).transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(stack)).float() / 255


def plain_lattice() -> Filter:
    """The plain lattice of tests/native, compiled on the spot."""
    source = PROJECT / "tests" / "native" / "plain_lattice.cpp"
    library = Path(tempfile.mkdtemp()) / "plain_lattice.so"
    command = ["g++", "-O3", "-shared", "-fPIC", str(source), "-o", str(library)]
    subprocess.run(command, check=True)
    function = ctypes.CDLL(str(library)).plain_lattice
    floats = ctypes.POINTER(ctypes.c_float)

    def pointer(tensor: torch.Tensor):
        return ctypes.cast(tensor.data_ptr(), floats)

    def run(image: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(values)
        for k in range(len(image)):
            arrays = (pointer(array[k]) for array in (image, values, out))
            sigmas = (ctypes.c_float(sigma) for sigma in (SIGMA_XY, SIGMA_RGB))
            function(*arrays, *image.shape[2:], *sigmas)
        return out

    return run


def old_loss(lattice: Filter, prob: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Two-class loss and gradient of class 1 in the published design: a lattice for each."""
    nucleus = prob[:, 1].contiguous()
    value = 2 * (nucleus * lattice(image, 1 - nucleus)).sum()
    gradient = lattice(image, (1 - 2 * nucleus).contiguous())
    return torch.stack([value, gradient.sum()]) / nucleus[0].numel() / len(prob)


def forward_backward(
    prob: torch.Tensor, image: torch.Tensor, backend: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and gradient through the public function."""
    p = prob.clone().requires_grad_()
    loss = dense_crf_loss(p, image, None, SIGMA_XY, SIGMA_RGB, backend)
    loss.backward()
    return loss.detach(), p.grad


def median_seconds(action: Callable[[], object], repeats: int) -> float:
    """Median time after a warm-up; what a GPU was given to do is waited for."""

    def finish() -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    action()
    finish()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        action()
        finish()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def floor_ms(device: torch.device, batch: int, size: int) -> float:
    """Least time of the window kernel on a GPU: an exponential and 9 operations for each pair.

    Of each multiprocessor 16 exponentials and 128 operations a clock, one after the other in the
    same issue slots; at the clock that the driver calls the highest.
    """
    gpu = torch.cuda.get_device_properties(device)
    pairs = batch * size**2 * (2 * window_radius(SIGMA_XY) + 1) ** 2
    clock = getattr(gpu, "clock_rate", 1.7e6) * 1e3  # kHz
    return 1e3 * pairs / (gpu.multi_processor_count * clock) * max(1 / 16, 10 / 128)


def check_values(
    plain: Filter, prob: torch.Tensor, image: torch.Tensor, backends: list[str]
) -> dict[str, float]:
    """Relative error of each backend's gradient: of 'lattice' the loss, against the plain one.

    Raises InputError where one is larger than the method allows.
    """
    errors = {}
    value, _ = forward_backward(prob, image, "lattice")
    old = old_loss(plain, prob, image)[0].item()
    errors["lattice"] = abs(value.item() / old - 1)
    # The mean of both blur orders differs from one order by what the order matters.
    if errors["lattice"] > 0.02:
        raise InputError(f"the lattice's loss is {value.item()}, the plain lattice's {old}")
    _, true = forward_backward(prob.double(), image.double(), "exact")
    for backend in backends:
        if backend == "lattice":
            continue
        _, gradient = forward_backward(prob, image, backend)
        errors[backend] = ((gradient - true).norm() / true.norm()).item()
        if errors[backend] > 0.01:
            raise InputError(f"the gradient of '{backend}' is off by {errors[backend]:.1%}")
    return errors


class Case(NamedTuple):
    """Images and probability maps that all backends are timed on."""

    name: str
    image: torch.Tensor  # [B, 3, H, W]
    prob: torch.Tensor  # [B, 2, H, W]
    backends: list[str]
    errors: dict[str, float]  # of `check_values`
    plain_seconds: float  # what the plain lattice takes

    def row(self, backend: str, where: str, seconds: float, note: str = "") -> dict:
        """Print a line of the table and return it for JSON."""
        ratio = self.plain_seconds / seconds
        columns = f"{self.name:16s} {backend:8s} {where:10s}"
        print(f"{columns} {1e3 * seconds:8.2f} ms {ratio:7.1f}x{note}", flush=True)
        return {
            "case": self.name,
            "backend": backend,
            "where": where,
            "ms": 1e3 * seconds,
            "plain_ms": 1e3 * self.plain_seconds,
            "ratio": ratio,
            "error": self.errors.get(backend),
        }

    def seconds(self, backend: str, device: torch.device, repeats: int) -> float:
        """What loss and gradient take with a backend."""
        prob, image = self.prob.to(device), self.image.to(device)
        return median_seconds(lambda: forward_backward(prob, image, backend), repeats)


# Of each case, backend and number of threads: the least ratio to the plain lattice.
GOALS = {
    ("8 x 224 x 224", "lattice", 1): 4,
    ("8 x 224 x 224", "lattice", 2): 8,
    ("8 x 224 x 224", "exact", 1): 1,
    ("1 x 1000 x 1000", "lattice", 2): 6,
}
SMALL = 224  # side in pixels of the images that every backend is checked and timed on


def make_case(plain: Filter, images: Path, count: int, size: int, repeats: int) -> Case:
    """A case of crops of real tiles; the small ones are checked first."""
    name = f"{count} x {size} x {size}"
    backends = ["lattice", "exact", "torch"] if size == SMALL else ["lattice", "exact"]
    image = crops(images, count, size)
    noise = torch.randn(count, 2, size, size, generator=torch.Generator().manual_seed(0))
    prob = (9 * torch.nn.functional.avg_pool2d(noise, 9, 1, 4)).softmax(1)
    errors = check_values(plain, prob, image, backends) if size == SMALL else {}
    for backend, error in errors.items():
        what = "loss against the plain lattice" if backend == "lattice" else "gradient"
        print(f"{name:16s} {backend:8s} relative error of the {what}: {error:.1e}")
    torch.set_num_threads(1)
    plain_seconds = median_seconds(lambda: old_loss(plain, prob, image), repeats)
    return Case(name, image, prob, backends, errors, plain_seconds)


def time_on_cpu(case: Case, threads: int, repeats: int) -> tuple[list[dict], list[str]]:
    """The rows of a number of threads, and the goals that were missed."""
    torch.set_num_threads(threads)
    rows, missed = [], []
    for backend in case.backends:
        seconds = case.seconds(backend, torch.device("cpu"), 3 if backend == "torch" else repeats)
        rows.append(case.row(backend, f"{threads} threads", seconds))
        goal = GOALS.get((case.name, backend, threads), 0)
        if rows[-1]["ratio"] < goal:
            missed.append(f"{case.name} {backend} {threads} threads: {goal}x")
    return rows, missed


def time_on_gpu(case: Case, repeats: int) -> list[dict]:
    """The rows of the GPU; none without one."""
    device, rows = torch.device("cuda"), []
    if not torch.cuda.is_available():
        return rows
    batch, _, size, _ = case.image.shape
    least = floor_ms(device, batch, size)
    for backend in case.backends:
        if available(backend, device):
            continue
        seconds = case.seconds(backend, device, 5 * repeats)
        note = f"  {least / (1e3 * seconds):.0%} of the floor {least:.2f} ms"
        name = torch.cuda.get_device_name()
        rows.append(case.row(backend, name, seconds, note if backend == "exact" else ""))
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--images",
        type=Path,
        default=PROJECT / "data" / "MO" / "images",
        help="folder of real tiles of at least 1000 x 1000 pixels (default: data/MO/images)",
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="thread counts")
    parser.add_argument("--repeats", type=int, default=9, help="timed repeats (default: 9)")
    parser.add_argument("--out", type=Path, help="write the figures as JSON, too")
    parser.add_argument(
        "--check", action="store_true", help="exit with status 1 where a goal is missed"
    )
    args = parser.parse_args()
    if not args.images.is_dir():
        raise InputError(f"{args.images}: no such folder; expected one of real tiles (--images)")
    if reason := available("lattice", torch.device("cpu")):
        raise InputError(reason)
    plain = plain_lattice()
    rows, missed = [], []
    for count, size in ((8, SMALL), (1, 1000)):
        case = make_case(plain, args.images, count, size, args.repeats)
        rows.append(case.row("plain", "1 thread", case.plain_seconds))
        for threads in args.threads:
            rows_of_cpu, missed_on_cpu = time_on_cpu(case, threads, args.repeats)
            rows, missed = rows + rows_of_cpu, missed + missed_on_cpu
        rows += time_on_gpu(case, args.repeats)
    if args.out:
        write_json(args.out, rows)
    if missed and args.check:
        sys.exit("goals missed: " + "; ".join(missed))


if __name__ == "__main__":
    run_script(main)
