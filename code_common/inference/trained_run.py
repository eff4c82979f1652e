"""A trained run as one thing: what prediction needs of both stages, from its folder or one file."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from code_common.config import fingerprint
from code_common.errors import InputError
from code_common.files.reading import read_json
from code_common.files.run_folder import STAGES
from code_common.learning.checkpoints import load_state, network_of

FORMAT = "nuclei from partial points, version 1"
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
        raise InputError(f"{path}: no exported run; expected a file of tools/export_model.py")
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
