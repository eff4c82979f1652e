"""A network as an ONNX file, for programs that have no PyTorch."""

import io
import warnings
from importlib.util import find_spec
from inspect import signature

import torch
from torch import Tensor, nn

from code_common.errors import InputError
from code_common.inference.tiling import probability

OPEN_SIDES = {0: "batch", 2: "height", 3: "width"}  # axes of any length


class _Probability(nn.Module):
    """A network that ends with the probability [B, 1, H, W], which is the output of the file."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        return probability(self.network(image))


def onnx_bytes(network: nn.Module) -> bytes:
    """A network as ONNX: 'image' float32 [B, 3, H, W], RGB in 0..1, -> 'probability' [B, 1, H, W].

    B is from 1, H and W are from 32. Raises InputError where the package onnx is absent.
    """
    if find_spec("onnx") is None:
        raise InputError("--onnx: the package onnx is not installed (pip install onnx)")
    file = io.BytesIO()
    # The older exporter needs no package but onnx. PyTorch versions with two prefer the newer one.
    older = {"dynamo": False} if "dynamo" in signature(torch.onnx.export).parameters else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Probability(network).eval(),
            (torch.rand(1, 3, 64, 64),),
            file,
            input_names=["image"],
            output_names=["probability"],
            dynamic_axes={"image": OPEN_SIDES, "probability": OPEN_SIDES},
            **older,
        )
    return file.getvalue()
