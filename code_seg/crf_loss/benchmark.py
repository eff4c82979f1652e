"""Time the dense CRF loss on real tiles beside a plain lattice: correctness first, then times.

python code_seg/crf_loss/benchmark.py [--images DIR] [--threads 1 2] [--out FILE.json]
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

from code_common.data import find_samples, read_image, write_json
from code_common.errors import InputError, run_script
from code_seg.crf_loss import available, dense_crf_loss

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


def median_ms(action, repeats: int) -> float:
    """Median time after a warm-up."""
    action()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return 1e3 * statistics.median(times)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = PROJECT.parent / "shared" / "data" / "MO" / "images"
    parser.add_argument("--images", type=Path, default=default, help="folder of real tiles")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="thread counts")
    parser.add_argument("--repeats", type=int, default=9, help="timed repeats (default: 9)")
    parser.add_argument("--out", type=Path, help="write the figures as JSON, too")
    args = parser.parse_args()
    if reason := available("lattice", torch.device("cpu")):
        raise InputError(reason)
    plain = plain_lattice()
    rows = []
    for name, count, size in (("8 x 2 x 224 x 224", 8, 224), ("1 x 2 x 1000 x 1000", 1, 1000)):
        image = crops(args.images, count, size)
        noise = torch.randn(count, 2, size, size, generator=torch.Generator().manual_seed(0))
        prob = (9 * torch.nn.functional.avg_pool2d(noise, 9, 1, 4)).softmax(1)
        loss, _ = forward_backward(prob, image, "lattice")
        old = old_loss(plain, prob, image)[0].item()
        # The mean of both blur orders differs from one order by what the order matters.
        assert abs(loss.item() / old - 1) < 0.02, (loss.item(), old)
        exact_error = None
        if size == 224:
            _, true = forward_backward(prob.double(), image.double(), "exact")
            _, low_rank = forward_backward(prob, image, "torch")
            exact_error = ((low_rank - true).norm() / true.norm()).item()
            print(f"{name}: loss {loss.item():.4f} (plain {old:.4f}); "
                  f"gradient of 'torch' against 'exact': {exact_error:.1e}")  # fmt: skip
        torch.set_num_threads(1)
        base = median_ms(lambda p=prob, i=image: old_loss(plain, p, i), args.repeats)
        print(f"{name}: plain lattice, two builds, 1 thread {base:.1f} ms")
        for threads in args.threads:
            torch.set_num_threads(threads)
            for backend in ("lattice", "torch") if size == 224 else ("lattice",):
                action = lambda p=prob, i=image, b=backend: forward_backward(p, i, b)  # noqa: E731
                repeats = args.repeats if backend == "lattice" else 3
                ms = median_ms(action, repeats)
                print(f"{name}: {backend:8s} {threads} thread(s) {ms:8.1f} ms {base / ms:6.1f}x")
                row = dict(case=name, backend=backend, threads=threads, ms=ms, plain_ms=base)
                rows.append({**row, "ratio": base / ms, "exact_error": exact_error})
    if args.out:
        write_json(args.out, rows)


if __name__ == "__main__":
    run_script(main)
