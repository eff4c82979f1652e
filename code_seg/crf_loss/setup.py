"""Build the native operators of the dense CRF loss: crf_loss_native, beside crf_loss.py.

python setup.py build_ext --inplace      or      pip install --no-build-isolation .
"""

import os
import sys
from pathlib import Path

from setuptools import setup

try:
    from torch.utils.cpp_extension import BuildExtension, CppExtension
except ImportError:
    sys.exit("error: torch is not installed; run: pip install -r requirements.txt")

os.chdir(Path(__file__).resolve().parent)


def machine_flags() -> list[str]:
    """AVX2 where this machine has it: the lattice is built twice as fast.

    CRF_LOSS_MARCH names another -march; an empty value builds for any machine.
    """
    wanted = os.environ.get("CRF_LOSS_MARCH")
    if wanted is not None:
        return [f"-march={wanted}"] if wanted else []
    cpuinfo = Path("/proc/cpuinfo")
    flags = set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()
    return ["-march=x86-64-v3"] if {"avx2", "fma", "bmi2"} <= flags else []


openmp = [] if sys.platform in ("win32", "darwin") else ["-fopenmp"]
if sys.platform == "win32":
    optimise = ["/O2"]
else:
    # No trapping: comparisons may be turned into selects, which vectorise.
    optimise = ["-O3", "-Wall", "-fno-math-errno", "-fno-trapping-math", *machine_flags()]

setup(
    name="crf_loss_native",
    version="1.0.0",
    ext_modules=[
        CppExtension(
            "crf_loss_native",
            ["csrc/ops.cpp"],
            depends=sorted(str(p) for p in Path("csrc").glob("*.h")),
            extra_compile_args=optimise + openmp,
            extra_link_args=openmp,
        )
    ],
    cmdclass={"build_ext": BuildExtension.with_options(use_ninja=False)},
)
