"""Build the native operators of the dense CRF loss: crf_loss_native, beside crf_loss.py.

python setup.py build_ext --inplace      or      pip install .

CUDA kernels are also compiled if nvcc and a CUDA build of torch are found. Environment variables:
  FORCE_CUDA            1: compile the CUDA kernels, or stop with the reason why that is impossible;
                        0: do not compile them
  CUDA_HOME             folder of the CUDA toolkit (default: that of nvcc on the PATH)
  TORCH_CUDA_ARCH_LIST  GPU architectures, such as "8.6;9.0+PTX" (default: those of the GPUs of this
                        machine; without a GPU 8.0 and 9.0, and PTX of 9.0 for newer ones)
  CRF_LOSS_MARCH        -march of the C++ kernels (default: AVX2 if this machine has it; empty: code
                        that runs on any machine)
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import setup


def cuda_toolkit() -> Path | None:
    """Folder of the CUDA toolkit, or None. nvcc is asked for it, because it may be a wrapper."""
    for name in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(name):
            return Path(os.environ[name])
    nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    try:
        command = [nvcc, "--dryrun", "-x", "cu", os.devnull]
        output = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except OSError:
        return None
    top = re.search(r"^#\$ TOP=(.+)$", output.stdout + output.stderr, re.MULTILINE)
    return Path(os.path.realpath(top.group(1).strip())) if top else None


# torch.utils.cpp_extension reads CUDA_HOME when it is imported.
toolkit = cuda_toolkit()
if toolkit is not None:
    os.environ["CUDA_HOME"] = str(toolkit)

# pip builds in an isolated environment, which hides the packages of this Python. But the build
# needs the same torch that will load the operators.
sys.path.append(sysconfig.get_path("purelib"))

try:
    import torch
    from torch.utils.cpp_extension import BuildExtension, CppExtension, CUDAExtension
except ImportError:
    sys.exit("error: torch is not installed; run: pip install -r requirements.txt")

os.chdir(Path(__file__).resolve().parent)


def without_cuda() -> str:
    """The reason why the CUDA kernels cannot be compiled here, or '' if they can."""
    if torch.version.cuda is None:
        return "this torch was built without CUDA"
    if toolkit is None:
        return "nvcc was not found"
    nvcc = toolkit / "bin" / "nvcc"
    try:
        output = subprocess.run([nvcc, "--version"], capture_output=True, text=True, timeout=60)
    except OSError:
        return f"{nvcc} does not run"
    release = re.search(r"release (\d+)\.", output.stdout)
    if not release or release.group(1) != torch.version.cuda.split(".")[0]:
        found = release.group(1) if release else "of unknown version"
        return f"{nvcc} is CUDA {found}, torch was built with CUDA {torch.version.cuda}"
    return ""


def machine_flags() -> list[str]:
    """Compiler flags for AVX2, if this machine has it. The lattice is then built twice as fast."""
    wanted = os.environ.get("CRF_LOSS_MARCH")
    if wanted is not None:
        return [f"-march={wanted}"] if wanted else []
    cpuinfo = Path("/proc/cpuinfo")
    flags = set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()
    return ["-march=x86-64-v3"] if {"avx2", "fma", "bmi2"} <= flags else []


class Build(BuildExtension):
    """Stops with a clear message if there is no compiler."""

    def build_extensions(self) -> None:
        compiler = os.environ.get("CXX", "c++").split()[0]
        if sys.platform != "win32" and not shutil.which(compiler):
            sys.exit(
                f"error: the C++ compiler {compiler} was not found. Debian, Ubuntu: "
                "apt install g++; macOS: xcode-select --install; another one: CXX=/path/to/it. "
                "Without the extension the CRF loss runs in plain PyTorch, slower."
            )
        super().build_extensions()


openmp = [] if sys.platform in ("win32", "darwin") else ["-fopenmp"]
if sys.platform == "win32":
    optimise = ["/O2"]
else:
    # Python's own flags ask for debug symbols (-g), which take half of the compiler's time.
    # Without trapping the compiler may turn comparisons into selects, which vectorise.
    optimise = ["-O3", "-g0", "-Wall", "-fno-math-errno", "-fno-trapping-math", *machine_flags()]

force = os.environ.get("FORCE_CUDA", "")
obstacle = "FORCE_CUDA is 0" if force == "0" else without_cuda()
if force not in ("", "0") and obstacle:
    sys.exit(f"error: FORCE_CUDA is set, but {obstacle}")
if obstacle:
    print(f"C++ kernels only: {obstacle}")
else:
    print(f"C++ and CUDA kernels, with the CUDA toolkit {toolkit}")
    if not torch.cuda.is_available():
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", "8.0;9.0+PTX")

kinds = {"cxx": optimise + openmp, "nvcc": ["-O3", "-ftz=true"]}
sources = ["csrc/ops.cpp"] + ([] if obstacle else ["csrc/ops_cuda.cpp", "csrc/cuda_filters.cu"])
setup(
    name="crf_loss_native",
    version="1.0.0",
    py_modules=[],
    ext_modules=[
        (CppExtension if obstacle else CUDAExtension)(
            "crf_loss_native",
            sources,
            depends=sorted(str(path) for path in Path("csrc").glob("*.h")),
            extra_compile_args=kinds,
            extra_link_args=openmp,
        )
    ],
    cmdclass={"build_ext": Build.with_options(use_ninja=False)},
)
