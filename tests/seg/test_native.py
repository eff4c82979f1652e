"""The C++ and CUDA kernels under the sanitizers: memory, undefined behaviour, data races."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

NATIVE = Path(__file__).resolve().parents[1] / "native"
SETUP = NATIVE.parents[1] / "code_seg" / "crf_loss" / "setup.py"

needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")

SANITIZERS = ["address,undefined", "thread"]
ROUNDS = [3, pytest.param(25, marks=pytest.mark.slow)]  # of random images


def run_under(sanitizer, rounds, program, *arguments):
    """Compile with a sanitizer and run; what it printed."""
    flags = ["-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pthread"]
    flags += [f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"]
    command = ["g++", *flags, *arguments, "-o", str(program)]
    built = subprocess.run(command, capture_output=True, text=True)
    if "cannot find -l" in built.stderr or "libasan" in built.stderr or "libtsan" in built.stderr:
        pytest.skip(f"the compiler has no runtime for -fsanitize={sanitizer}")
    assert built.returncode == 0, built.stderr
    # No randomised addresses: newer kernels place memory where the thread sanitizer has none.
    plain = ["setarch", "--addr-no-randomize"] if shutil.which("setarch") else []
    done = subprocess.run([*plain, str(program), "1", str(rounds)], capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


@needs_compiler
@pytest.mark.parametrize("sanitizer", SANITIZERS)
@pytest.mark.parametrize("rounds", ROUNDS)
def test_random_images_under_a_sanitizer(tmp_path, sanitizer, rounds):
    out = run_under(sanitizer, rounds, tmp_path / "fuzz", "-std=c++17", str(NATIVE / "fuzz.cpp"))
    assert f"{rounds} rounds" in out


@needs_compiler
@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_cuda_kernels_under_a_sanitizer(tmp_path, sanitizer):
    """On the CPU: out of bounds in global or shared memory, races, missing barriers."""
    source = str(NATIVE / "cuda_on_cpu.cpp")
    flags = ["-std=c++20", "-DWITH_MAIN", "-Wno-unknown-pragmas"]
    run_under(sanitizer, 1, tmp_path / "kernels", *flags, source)


def build(tmp_path, **environment):
    """setup.py of the extension in a copy of its folder."""
    folder = tmp_path / "crf_loss"
    shutil.copytree(SETUP.parent, folder, ignore=shutil.ignore_patterns("build", "*.so"))
    return subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def test_without_a_compiler_the_build_says_what_to_install(tmp_path):
    done = build(tmp_path, CXX="no-such-compiler", FORCE_CUDA="0")
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert "error: the C++ compiler no-such-compiler was not found" in done.stderr
    assert "apt install" in done.stderr


def test_cuda_that_is_forced_but_absent_is_an_error(tmp_path):
    done = build(tmp_path, CUDA_HOME=str(tmp_path / "none"), FORCE_CUDA="1")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "FORCE_CUDA is set, but" in done.stderr


@pytest.mark.skipif(not shutil.which("nvcc"), reason="no nvcc")
def test_where_nvcc_is_the_extension_has_cuda_kernels():
    """They are compiled on every run of the tests, whether there is a GPU or not."""
    import torch

    from code_seg.crf_loss import available

    version = subprocess.run(["nvcc", "--version"], capture_output=True, text=True).stdout
    if torch.version.cuda is None or f"release {torch.version.cuda.split('.')[0]}." not in version:
        pytest.skip("torch and nvcc are not of one CUDA version")
    assert available("exact", torch.device("cuda")) == ""
    assert available("lattice", torch.device("cuda")) == ""
