"""A trained run as one thing: what prediction needs of both stages, from its folder or one file."""

import argparse
import io
import sys
import warnings
from dataclasses import dataclass
from inspect import signature
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor, nn

from code_common.config import fingerprint
from code_common.data import read_json, write_bytes
from code_common.errors import InputError, run_script
from code_common.model import checkpoint_bytes, load_state, network_of
from code_common.tiling import probability

FORMAT = "nuclei from partial points, version 1"
STAGES = ("detection", "segmentation")
# The options of each stage that its results depend on.
SETTINGS = {
    "detection": ("r1", "threshold", "min_area", "max_area"),
    "segmentation": ("min_area", "magnify_to"),
}
# What runs and files have that are older than the option.
LATER = {"detection": {}, "segmentation": {"magnify_to": 0.0}}
CHOSEN = ("threshold", "instances")  # those that a run may have chosen by its validation images
CARD = ("dataset", "ratio", "repeat", "random_seed", "model", "epochs")


@dataclass(frozen=True)
class Trained:
    """A stage's network, ready for inference, and the settings that it was selected with."""

    network: nn.Module
    settings: dict
    key: str  # changes with the weights or the settings


def _pack_stage(folder: Path, stage: str) -> dict:
    saved = read_json(folder / "options.json")
    selection = read_json(folder / "selection.json")
    try:
        checkpoint = folder / selection["checkpoint"]
        settings = {k: (LATER[stage] | saved["options"])[k] for k in SETTINGS[stage]}
        card = {k: saved["options"][k] for k in CARD}
    except (KeyError, TypeError):
        raise InputError(
            f"{folder}: options.json or selection.json is not of this project"
        ) from None
    state = load_state(checkpoint)
    settings |= {k: selection[k] for k in CHOSEN if k in selection}
    card |= {k: saved.get(k) for k in ("pretrained_loaded", "commit", "torch")}
    metrics = folder / "test" / "metrics.json"
    if metrics.is_file():
        scores = read_json(metrics)
        card["test"] = scores.get("pooled", scores.get("mean"))
    names = ("model", "members", "width", "stem_stride", "out_channels", "network")
    weights = {k: state[k] for k in names if k in state}  # older checkpoints tell less
    return {**weights, "settings": settings, "card": card}


def pack(run: Path) -> dict:
    """What prediction needs of a run: a folder that holds detection/, segmentation/ or both, or
    one of these. Raises InputError where neither was finished.
    """
    stages = {stage: run / stage for stage in STAGES}
    if run.name in STAGES:
        stages = {run.name: run}
    done = {s: f for s, f in stages.items() if (f / "selection.json").is_file()}
    if not done:
        raise InputError(f"{run}: no finished run; expected detection/ and segmentation/ in it")
    return {"format": FORMAT, **{s: _pack_stage(f, s) for s, f in done.items()}}


def read(path: Path) -> dict:
    """What `pack` gives of a run's folder, or gave of the one that a file was exported from."""
    state = pack(path) if path.is_dir() else load_state(path)
    if state.get("format") != FORMAT:
        raise InputError(f"{path}: no exported run; expected a file of code_common/bundle.py")
    return state


def load(path: Path, device: torch.device) -> dict[str, Trained]:
    """The stages of a run's folder, or of the one file that it was exported to, by name."""
    state, stages = read(path), {}
    for stage in set(STAGES) & set(state):
        own = state[stage]
        weights = {k: v.sum(dtype=torch.float64).item() for k, v in own["network"].items()}
        key = fingerprint(weights, own["settings"])
        settings = LATER[stage] | own["settings"]
        stages[stage] = Trained(network_of(own, path, device), settings, key)
    return stages


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
