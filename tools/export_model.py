"""Pack a trained run (weights, settings, scores) into one file for predict.py."""

import argparse
import io
import sys
import warnings
from inspect import signature
from pathlib import Path

import torch
from torch import Tensor, nn

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.errors import InputError, run_script
from code_common.files.run_folder import STAGES
from code_common.files.writing import write_bytes
from code_common.inference.tiling import probability
from code_common.inference.trained_run import read
from code_common.learning.checkpoints import checkpoint_bytes, network_of


class _Probability(nn.Module):
    """A network that ends with the probability [B, 1, H, W]; what it gives is what ONNX gives."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        return probability(self.network(image))


def onnx_bytes(network: nn.Module) -> bytes:
    """A network as ONNX: 'image' float32 [B, 3, H, W], RGB in 0..1, of any B, H and W (from 32 up)
    -> 'probability' [B, 1, H, W]. Raises InputError where the package onnx is absent.
    """
    file = io.BytesIO()
    sides = {0: "batch", 2: "height", 3: "width"}
    # The exporter that needs no package but onnx; the newer one is the default where there are two.
    old = {"dynamo": False} if "dynamo" in signature(torch.onnx.export).parameters else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                _Probability(network).eval(),
                (torch.rand(1, 3, 64, 64),),
                file,
                input_names=["image"],
                output_names=["probability"],
                dynamic_axes={"image": sides, "probability": sides},
                **old,
            )
    except ModuleNotFoundError as error:
        raise InputError(f"--onnx: {error} (pip install onnx)") from None
    return file.getvalue()


def main() -> None:
    """Export a run, or tell what a file holds."""
    parser = argparse.ArgumentParser(
        description="Pack a trained run (weights, settings, scores) into one file for predict.py. "
        "It holds no code and no training data."
    )
    parser.add_argument("--run", type=Path, required=True, metavar="DIR",
                        help="folder that holds detection/ and segmentation/ (.../repeat_1), or "
                        "an exported file, of which the card is printed")  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="FILE", help="the file to write (.pt)")
    parser.add_argument("--onnx", type=Path, metavar="DIR",
                        help="folder for detection.onnx and segmentation.onnx")  # fmt: skip
    arguments = parser.parse_args()
    state = read(arguments.run)
    for stage in STAGES:
        for name, value in {**state.get(stage, {}).get("card", {})}.items():
            print(f"{stage} {name}: {value}")
    if arguments.out:
        write_bytes(arguments.out, checkpoint_bytes(state))
        print(f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.0f} MB")
    for stage in set(STAGES) & set(state) if arguments.onnx else ():
        network = network_of(state[stage], arguments.run, torch.device("cpu"))
        write_bytes(arguments.onnx / f"{stage}.onnx", onnx_bytes(network))
        print(arguments.onnx / f"{stage}.onnx")


if __name__ == "__main__":
    run_script(main)
