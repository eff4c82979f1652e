"""Device and precision are chosen, or what is not there is named."""

import pytest
import torch

from code_common.errors import InputError
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
