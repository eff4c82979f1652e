"""The CUDA kernels: compiled for the CPU on any machine, run for real where there is a GPU."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from crf_twins import brute_filter, tissue

from code_seg.crf_loss import crf_loss
from code_seg.crf_loss.crf_loss import available, dense_crf_loss, gaussian_filter

SOURCE = Path(__file__).resolve().parents[1] / "native" / "cuda_on_cpu.cpp"
COMPILE = ["g++", "-std=c++20", "-O1", "-g", "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-pthread"]
NAMES = {torch.float32: "float", torch.float64: "double"}

NO_CUDA = not torch.cuda.is_available() or bool(available("exact", torch.device("cuda")))
GPU = pytest.mark.skipif(NO_CUDA, reason="no GPU, or the extension has no CUDA kernels")
NATIVE = pytest.mark.skipif(bool(crf_loss.NATIVE_ABSENT), reason=crf_loss.NATIVE_ABSENT)
needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")


@pytest.fixture(scope="session")
def emulated(tmp_path_factory):
    """(image, values, sigmas, radius or None: lattice) -> filtered, by the CUDA kernels."""
    library = tmp_path_factory.mktemp("cuda") / "cuda_on_cpu.so"
    done = subprocess.run(
        [*COMPILE, "-shared", "-fPIC", str(SOURCE), "-o", str(library)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    functions = ctypes.CDLL(str(library))

    def run(image, values, sigma_xy, sigma_rgb, radius=None):
        image, values, out = image.contiguous(), values.contiguous(), torch.empty_like(values)
        batch, channels, height, width = values.shape
        name = ("lattice_" if radius is None else "window_") + NAMES[values.dtype]
        getattr(functions, name)(
            *(ctypes.c_void_p(t.data_ptr()) for t in (image, values, out)),
            ctypes.c_int64(batch),
            ctypes.c_int(channels),
            ctypes.c_int64(height),
            ctypes.c_int64(width),
            ctypes.c_double(sigma_xy),
            ctypes.c_double(sigma_rgb),
            *([] if radius is None else [ctypes.c_int64(radius)]),
        )
        return out

    return run


def signals(channels, shape, dtype, seed=3):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(shape[0], channels, *shape[2:], generator=rng, dtype=dtype)


@needs_compiler
@pytest.mark.parametrize(
    "height, width, channels", [(1, 1, 1), (5, 70, 2), (37, 20, 3), (33, 33, 6)]
)
@pytest.mark.parametrize("dtype", NAMES)
def test_the_window_equals_brute_force(emulated, height, width, channels, dtype):
    """Tiles that end in the middle of the image, chunks of rows, more channels than one pass."""
    image, _ = tissue(2, height, width, dtype=dtype)
    values = signals(channels, image.shape, dtype)
    ours = emulated(image, values, 6.0, 0.2, radius=80)
    true = brute_filter(image, values, 6.0, 0.2)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    assert (ours - true).norm() < tolerance * true.norm()


@NATIVE
@needs_compiler
@pytest.mark.parametrize("radius", [0, 1, 7])
def test_the_window_ends_where_it_ends_on_the_cpu(emulated, radius):
    image, values = tissue(1, 21, 40)
    ours = emulated(image, values, 9.0, 0.3, radius=radius)
    twin = torch.ops.crf_loss.window_filter(image, values, 9.0, 0.3, radius)
    assert torch.allclose(ours, twin, rtol=1e-10, atol=1e-12)


@NATIVE
@needs_compiler
@pytest.mark.parametrize("height, width, channels", [(1, 1, 1), (20, 31, 2), (15, 9, 5)])
@pytest.mark.parametrize("dtype", NAMES)
def test_the_lattice_equals_that_of_the_cpu(emulated, height, width, channels, dtype):
    image, _ = tissue(2, height, width, dtype=dtype)
    values = 100 * signals(channels, image.shape, dtype)
    ours = emulated(image, values, 4.0, 0.2)
    twin = gaussian_filter(image, values, 4.0, 0.2, "lattice")
    tolerance = 1e-5 if dtype == torch.float32 else 1e-11
    assert (ours - twin).norm() < tolerance * twin.norm()
    assert torch.equal(ours, emulated(image, values, 4.0, 0.2))  # in whatever order threads ran


@needs_compiler
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
def test_a_bad_feature_makes_its_own_image_nan(emulated, bad):
    image, values = tissue(2, 8, 8, dtype=torch.float32)
    image[1, 1, 3, 3] = bad
    ours = emulated(image, values, 4.0, 0.2)
    assert torch.isfinite(ours[0]).all() and torch.isnan(ours[1]).all()


@needs_compiler
def test_values_that_are_no_numbers_give_none(emulated):
    image, values = tissue(1, 8, 8, dtype=torch.float32)
    assert (emulated(image, torch.zeros_like(values), 4.0, 0.2) == 0).all()
    values[0, 0, 2, 2] = float("nan")
    assert torch.isnan(emulated(image, values, 4.0, 0.2)).all()


@GPU
@pytest.mark.parametrize("backend", ["lattice", "exact", "torch"])
@pytest.mark.parametrize("dtype", NAMES)
def test_a_gpu_gives_what_the_cpu_gives(backend, dtype):
    image, logits = tissue(3, 100, 130, dtype=dtype)
    mask = (torch.rand(3, 100, 130, generator=torch.Generator().manual_seed(1)) > 0.2).to(dtype)
    results = []
    for device in ("cpu", "cuda"):
        x = logits.to(device).requires_grad_()
        loss = dense_crf_loss(x.softmax(1), image.to(device), mask.to(device), 9.0, 0.1, backend)
        loss.backward()
        results.append((loss.item(), x.grad.cpu()))
    (loss, grad), (loss_gpu, grad_gpu) = results
    # 'exact' on the CPU is low-rank in float32, certified to 0.1 %.
    tolerance = 2e-3 if backend == "exact" and dtype == torch.float32 else 1e-4
    assert loss_gpu == pytest.approx(loss, rel=tolerance)
    assert (grad_gpu - grad).norm() < tolerance * grad.norm()


@GPU
@pytest.mark.parametrize("backend", ["lattice", "exact"])
def test_a_gpu_repeats_itself_bit_for_bit(backend):
    image, values = (t.cuda() for t in tissue(2, 200, 200, dtype=torch.float32))
    first, again = (gaussian_filter(image, values, 9.0, 0.1, backend) for _ in range(2))
    assert torch.equal(first, again)


@GPU
@pytest.mark.parametrize("op", ["lattice_filter", "window_filter"])
def test_operators_on_a_gpu_follow_the_rules_of_torch_library(op):
    image, logits = (t.cuda() for t in tissue(1, 6, 7))
    arguments = (image, logits.requires_grad_(), 3.0, 0.3) + ((4,) if "window" in op else ())
    torch.library.opcheck(getattr(torch.ops.crf_loss, op).default, arguments)
