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
from pathlib import Path

import numpy as np
import torch

PROJECT = Path(__file__).resolve().parents[2]
if not __package__:
    sys.path.insert(0, str(PROJECT))

from code_common.errors import InputError, run_script
from code_common.files.data_set import find_samples
from code_common.files.reading import read_image
from code_common.files.writing import write_json
from code_seg.crf_loss import available, dense_crf_loss
from code_seg.crf_loss.crf_loss import window_radius

SIGMA_XY, SIGMA_RGB = 9.0, 0.1


def crops(folder: Path, count: int, size: int) -> torch.Tensor:
    """`count` random crops [N, 3, size, size] in 0..1 of the folder's first tiles."""
    rng, out = np.random.default_rng(0), []
    for sample in find_samples(folder, None)[: max(1, count // 2)]:
        image = read_image(sample.image)
        for _ in range(-(-count // max(1, count // 2))):
            row, col = (rng.integers(0, n - size + 1) for n in image.shape[:2])
            out.append(image[row : row + size, col : col + size])
    stack = np.stack(out[:count]).transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(stack)).float() / 255


def plain_lattice():
    """The plain lattice of tests/native, compiled on the spot: (image, values) -> filtered."""
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
            function(
                pointer(image[k]), pointer(values[k]), pointer(out[k]), *image.shape[2:],
                ctypes.c_float(SIGMA_XY), ctypes.c_float(SIGMA_RGB),
            )  # fmt: skip
        return out

    return run


def old_loss(lattice, prob: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Two-class loss and gradient of class 1 in the old design: a lattice for each of them."""
    nucleus = prob[:, 1].contiguous()
    value = 2 * (nucleus * lattice(image, 1 - nucleus)).sum()
    gradient = lattice(image, (1 - 2 * nucleus).contiguous())
    return torch.stack([value, gradient.sum()]) / nucleus[0].numel() / len(prob)


def forward_backward(prob: torch.Tensor, image: torch.Tensor, backend: str):
    """Loss and gradient through the public function."""
    p = prob.clone().requires_grad_()
    loss = dense_crf_loss(p, image, None, SIGMA_XY, SIGMA_RGB, backend)
    loss.backward()
    return loss.detach(), p.grad


def median_seconds(action, repeats: int) -> float:
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


def check_values(plain, prob: torch.Tensor, image: torch.Tensor, backends: list[str]) -> dict:
    """Relative error of each backend's gradient: of 'lattice' the loss, against the plain one."""
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
        _, ours = forward_backward(prob, image, backend)
        errors[backend] = ((ours - true).norm() / true.norm()).item()
        if errors[backend] > 0.01:
            raise InputError(f"the gradient of '{backend}' is off by {errors[backend]:.1%}")
    return errors


# Of each case, backend and number of threads: the least ratio to the plain lattice.
GOALS = {
    ("8 x 224 x 224", "lattice", 1): 4,
    ("8 x 224 x 224", "lattice", 2): 8,
    ("8 x 224 x 224", "exact", 1): 1,
    ("1 x 1000 x 1000", "lattice", 2): 6,
}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--images", type=Path, default=PROJECT / "data" / "MO" / "images",
        help="folder of real tiles of at least 1000 x 1000 pixels (default: data/MO/images)",
    )  # fmt: skip
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

    def report(case, backend, where, seconds, base, errors, more="") -> None:
        row = dict(case=case, backend=backend, where=where, ms=1e3 * seconds, plain_ms=1e3 * base)
        rows.append({**row, "ratio": base / seconds, "error": errors.get(backend)})
        print(f"{case:16s} {backend:8s} {where:10s} {1e3 * seconds:8.2f} ms {base / seconds:7.1f}x"
              f"{more}", flush=True)  # fmt: skip

    for count, size in ((8, 224), (1, 1000)):
        case = f"{count} x {size} x {size}"
        backends = ["lattice", "exact", "torch"] if size == 224 else ["lattice", "exact"]
        image = crops(args.images, count, size)
        noise = torch.randn(count, 2, size, size, generator=torch.Generator().manual_seed(0))
        prob = (9 * torch.nn.functional.avg_pool2d(noise, 9, 1, 4)).softmax(1)
        errors = check_values(plain, prob, image, backends) if size == 224 else {}
        for backend, error in errors.items():
            what = "loss against the plain lattice" if backend == "lattice" else "gradient"
            print(f"{case:16s} {backend:8s} relative error of the {what}: {error:.1e}")
        torch.set_num_threads(1)
        base = median_seconds(lambda p=prob, i=image: old_loss(plain, p, i), args.repeats)
        report(case, "plain", "1 thread", base, base, errors)
        for threads in args.threads:
            torch.set_num_threads(threads)
            for backend in backends:
                repeats = 3 if backend == "torch" else args.repeats
                seconds = median_seconds(
                    lambda p=prob, i=image, b=backend: forward_backward(p, i, b), repeats
                )
                report(case, backend, f"{threads} threads", seconds, base, errors)
                goal = GOALS.get((case, backend, threads), 0)
                if base / seconds < goal:
                    missed.append(f"{case} {backend} {threads} threads: {goal}x")
        gpu = torch.device("cuda")
        if torch.cuda.is_available():
            for backend in backends:
                if available(backend, gpu):
                    continue
                p, i = prob.to(gpu), image.to(gpu)
                seconds = median_seconds(
                    lambda p=p, i=i, b=backend: forward_backward(p, i, b), 5 * args.repeats
                )
                least = floor_ms(gpu, count, size)
                of_floor = f"  {least / (1e3 * seconds):.0%} of the floor {least:.2f} ms"
                name = torch.cuda.get_device_name()
                report(case, backend, name, seconds, base, errors,
                       of_floor if backend == "exact" else "")  # fmt: skip
    if args.out:
        write_json(args.out, rows)
    if missed and args.check:
        sys.exit("goals missed: " + "; ".join(missed))


if __name__ == "__main__":
    run_script(main)
