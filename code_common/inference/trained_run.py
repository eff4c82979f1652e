"""A trained run as one thing: what prediction needs of both stages, from its folder or one file."""

from dataclasses import dataclass
from pathlib import Path

import torch

from code_common.config import fingerprint
from code_common.errors import InputError
from code_common.files.reading import read_json
from code_common.files.run_folder import (
    STAGES,
    metrics_path,
    options_path,
    results_folder,
    selection_path,
)
from code_common.learning.checkpoints import load_state, network_of
from code_common.learning.network import ResUNet
from code_common.old_runs import checkpoint_path, options_today

FORMAT = "nuclei from partial points, version 1"
# The options of each stage that its results depend on.
SETTINGS = {
    "detection": ("r1", "threshold", "min_area", "max_area"),
    "segmentation": ("min_area", "nucleus_radius"),
}
# What the validation images of a run may have chosen; it comes from selection.json.
CHOSEN_ON_VALIDATION = ("threshold", "instances")
# The options that a packed run tells about itself.
CARD_FIELDS = ("dataset", "ratio", "repeat", "random_seed", "model", "epochs")
# What a packed run holds of a checkpoint; `members` is that of older ones, see network_of.
WEIGHTS = ("model", "members", "width", "stem_stride", "out_channels", "network")


@dataclass(frozen=True)
class TrainedStage:
    """A stage's network, ready for inference, and the settings that it was selected with."""

    network: ResUNet
    settings: dict
    key: str  # changes with the weights or the settings


def _pack_stage(folder: Path, stage: str) -> dict:
    saved, selection = read_json(options_path(folder)), read_json(selection_path(folder))
    try:
        checkpoint = checkpoint_path(folder, selection["checkpoint"])
        options = options_today(saved["options"])
        settings = {k: options[k] for k in SETTINGS[stage]}
        card = {k: options[k] for k in CARD_FIELDS}
    except (AttributeError, KeyError, TypeError):
        raise InputError(
            f"{folder}: options.json or selection.json is not of this project"
        ) from None
    state = load_state(checkpoint)
    settings |= {k: selection[k] for k in CHOSEN_ON_VALIDATION if k in selection}
    card |= {k: saved.get(k) for k in ("pretrained_loaded", "commit", "torch")}
    if metrics_path(results_folder(folder)).is_file():
        scores = read_json(metrics_path(results_folder(folder)))
        card["test"] = scores.get("pooled", scores.get("mean"))
    weights = {k: state[k] for k in WEIGHTS if k in state}  # older checkpoints tell less
    return {**weights, "settings": settings, "card": card}


def pack_run(run: Path) -> dict:
    """What prediction needs of a run: a folder that holds detection/, segmentation/ or both, or
    one of these. Raises InputError where neither was finished.
    """
    stages = {stage: run / stage for stage in STAGES}
    if run.name in STAGES:
        stages = {run.name: run}
    done = {s: f for s, f in stages.items() if selection_path(f).is_file()}
    if not done:
        raise InputError(f"{run}: no finished run; expected detection/ and segmentation/ in it")
    return {"format": FORMAT, **{s: _pack_stage(f, s) for s, f in done.items()}}


def read_packed_run(path: Path) -> dict:
    """What `pack_run` gives of a run's folder, or gave of the run that a file was made from."""
    state = pack_run(path) if path.is_dir() else load_state(path)
    if state.get("format") != FORMAT:
        raise InputError(f"{path}: no exported run; expected a file of tools/export_model.py")
    return state


def load_trained_run(path: Path, device: torch.device) -> dict[str, TrainedStage]:
    """The stages of a run's folder, or of the one file that it was exported to, by name."""
    state, stages = read_packed_run(path), {}
    for stage in STAGES:
        if stage in state:
            packed = state[stage]
            weights = {k: v.sum(dtype=torch.float64).item() for k, v in packed["network"].items()}
            settings = options_today(packed["settings"])
            settings = {k: settings[k] for k in (*SETTINGS[stage], *CHOSEN_ON_VALIDATION)
                        if k in settings}  # fmt: skip
            key = fingerprint(weights, settings)
            stages[stage] = TrainedStage(network_of(packed, path, device), settings, key)
    return stages
