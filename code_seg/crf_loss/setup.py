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
openmp = [] if sys.platform in ("win32", "darwin") else ["-fopenmp"]
optimise = ["/O2"] if sys.platform == "win32" else ["-O3", "-Wall", "-fno-math-errno"]

setup(
    name="crf_loss_native",
    version="1.0.0",
    ext_modules=[
        CppExtension(
            "crf_loss_native",
            ["csrc/ops.cpp"],
            depends=["csrc/permutohedral.h", "csrc/window.h"],
            extra_compile_args=optimise + openmp,
            extra_link_args=openmp,
        )
    ],
    cmdclass={"build_ext": BuildExtension.with_options(use_ninja=False)},
)
