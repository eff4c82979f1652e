"""Device and precision are chosen; what is not there, memory too, is named."""

import cv2
import numpy as np
import pytest
import torch

from code_common.errors import InputError, run_script
from code_common.learning.hardware import choose_device, choose_precision


def test_auto_takes_a_device_that_is_there():
    assert choose_device("auto").type in ("cpu", "cuda", "mps")


@pytest.mark.parametrize(("name", "expected"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_a_precision_that_is_asked_for_is_taken(name, expected):
    assert choose_precision(name, torch.device("cpu")) == expected


@pytest.mark.parametrize("name", ["nonsense", "cuda"])
def test_a_device_that_is_absent_is_named(name):
    if name == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(InputError, match=f"--device {name}"):
        choose_device(name)


def out_of_gpu_memory():
    raise torch.cuda.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 20.00 GiB.\nMore words"
    )


@pytest.mark.parametrize(
    "too_much",
    [
        lambda: torch.empty(10**15),
        lambda: np.zeros(10**15),
        lambda: cv2.resize(np.zeros((9, 9), np.uint8), (10**9, 10**9)),
        out_of_gpu_memory,
    ],
    ids=["torch", "numpy", "opencv", "gpu"],
)
def test_full_memory_is_one_line_that_says_what_to_lower(too_much, capsys):
    with pytest.raises(SystemExit) as stopped:
        run_script(too_much)
    message = capsys.readouterr().err
    assert stopped.value.code == 2 and message.count("\n") == 1, message
    assert "out of memory" in message and "--batch-size" in message and "--tile" in message


def test_other_errors_of_torch_keep_their_traceback():
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        run_script(lambda: torch.ones(2, 3) @ torch.ones(2, 3))
