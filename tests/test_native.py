"""The C++ kernels under the sanitizers: memory, undefined behaviour, data races."""

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent / "native" / "fuzz.cpp"


@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")
@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_random_images_under_a_sanitizer(tmp_path, sanitizer):
    program = tmp_path / "fuzz"
    command = ["g++", "-std=c++17", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pthread",
               f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all",
               str(SOURCE), "-o", str(program)]  # fmt: skip
    built = subprocess.run(command, capture_output=True, text=True)
    if "cannot find -l" in built.stderr or "libasan" in built.stderr or "libtsan" in built.stderr:
        pytest.skip(f"the compiler has no runtime for -fsanitize={sanitizer}")
    assert built.returncode == 0, built.stderr
    # No randomised addresses: newer kernels place memory where the thread sanitizer has none.
    plain = ["setarch", "--addr-no-randomize"] if shutil.which("setarch") else []
    done = subprocess.run([*plain, str(program), "1", "25"], capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert "25 rounds" in done.stdout
