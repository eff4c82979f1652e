"""A trained run as one thing: what prediction needs of both stages, from its folder or one file."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

from code_common.config import fingerprint
from code_common.errors import InputError
from code_common.files.contents import refuse_unfinished
from code_common.files.reading import read_json, read_table
from code_common.files.run_folder import (
    STAGES,
    all_points_paths,
    metrics_path,
    options_path,
    results_folder,
    selection_path,
)
from code_common.learning.checkpoints import load_state, network_of
from code_common.learning.network import ResUNet
from code_common.old_runs import checkpoint_path, options_today

FORMAT = "nuclei from partial points, version 1"
_LARGE = 1e9
# The options of each stage that its results depend on, and the inclusive bounds of each.
SETTINGS = {
    "detection": {"r1": (1, 1e4), "threshold": (0, 1), "min_area": (0, _LARGE),
                  "max_area": (1, _LARGE)},
    "segmentation": {"min_area": (0, _LARGE), "nucleus_radius": (0, 1e4)},
}  # fmt: skip
# What the validation images of a run may have chosen; it comes from selection.json.
CHOSEN_ON_VALIDATION = ("threshold", "instances")
# The options that a packed run tells about itself.
CARD_FIELDS = ("dataset", "ratio", "repeat", "random_seed", "profile", "model", "width", "epochs")
# What a packed run holds of a checkpoint; `members` is that of older ones, see network_of.
WEIGHTS = ("model", "members", "width", "stem_stride", "out_channels", "network")


@dataclass(frozen=True)
class TrainedStage:
    """A stage's network, ready for inference, and the settings that it was selected with."""

    network: ResUNet
    settings: dict
    key: str  # changes with the weights or the settings
    path: Path = Path()  # where it comes from


def _pack_stage(folder: Path, stage: str) -> dict:
    refuse_unfinished(folder)
    saved, selection = read_json(options_path(folder)), read_json(selection_path(folder))
    try:
        checkpoint = checkpoint_path(folder, selection["checkpoint"])
        options = options_today(saved["options"])
        settings = {k: options[k] for k in SETTINGS[stage]}
        card = {k: options[k] for k in CARD_FIELDS if k in options}
    except (AttributeError, KeyError, TypeError):
        raise InputError(
            f"{folder}: options.json or selection.json is not of this project"
        ) from None
    state = load_state(checkpoint)
    settings |= {k: selection[k] for k in CHOSEN_ON_VALIDATION if k in selection}
    card |= {k: saved.get(k) for k in ("pretrained_loaded", "commit", "torch")}
    if metrics_path(results_folder(folder)).is_file():
        scores = read_json(metrics_path(results_folder(folder)))
        if isinstance(scores, dict):
            card["test"] = scores.get("pooled", scores.get("mean"))
    if stage == "detection":
        tables = [read_table(path, "row")["row"] for path in all_points_paths(folder)]
        card |= {"training_images": len(tables), "annotated_points": sum(map(len, tables))}
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
    """What `pack_run` gives of a run's folder, or gave of the run that a file was made from.

    Raises InputError where it is something else, or where a setting is out of its bounds.
    """
    state = pack_run(path) if path.is_dir() else load_state(path)
    if state.get("format") != FORMAT:
        raise InputError(f"{path}: no exported run; expected a file of tools/export_model.py")
    for stage in STAGES:
        if stage in state:
            _check_stage(state[stage], stage, path)
    return state


def _check_stage(packed: object, stage: str, path: Path) -> None:
    """Raise InputError where a stage of a packed run is none, or has a setting out of bounds."""
    parts = [packed.get(key) for key in ("settings", "card")] if isinstance(packed, dict) else []
    if not parts or not all(isinstance(part, dict) for part in parts):
        raise InputError(f"{path}: {stage} is damaged; expected a file of tools/export_model.py")
    settings = options_today(parts[0])
    for name, (low, high) in SETTINGS[stage].items():
        value = settings.get(name)
        if type(value) not in (int, float) or not low <= value <= high:
            raise InputError(
                f"{path}: {stage} has the setting {name} = {str(value)[:40]}; expected a number "
                f"from {low:g} to {high:g}"
            )


def start_from(path: Path, network: ResUNet, stage: str) -> str:
    """Give a network all weights of a stage of a packed run; returns what was loaded.

    Raises InputError where the file lacks the stage, or its network is another one.
    """
    packed = read_packed_run(path).get(stage)
    if packed is None:
        raise InputError(f"{path}: holds no network of the {stage} to start from")
    trained = network_of(packed, path, torch.device("cpu"), stage)
    shape = trained.model, trained.width, trained.stem_stride
    if shape != (network.model, network.width, network.stem_stride):
        flags = "--model {} --width {:g} --stem-stride {}".format(*shape)
        raise InputError(
            f"--start-from {path}: the {stage} is another network; give {flags}, or the --profile "
            "that it was trained with"
        )
    network.load_state_dict(trained.state_dict())
    return f"model: {path.name}"


def content_of(tensor: torch.Tensor) -> str:
    """Hash of the values of a tensor on the CPU: other weights may have the same sum."""
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


def load_trained_run(path: Path, device: torch.device) -> dict[str, TrainedStage]:
    """The stages of a run's folder, or of the one file that it was exported to, by name.

    Raises InputError where the path holds something else.
    """
    state, stages = read_packed_run(path), {}
    for stage in STAGES:
        if stage in state:
            packed = state[stage]
            network = network_of(packed, path, device, stage)
            weights = {k: content_of(v) for k, v in packed["network"].items()}
            settings = options_today(packed["settings"])
            settings = {k: settings[k] for k in (*SETTINGS[stage], *CHOSEN_ON_VALIDATION)
                        if k in settings}  # fmt: skip
            stages[stage] = TrainedStage(network, settings, fingerprint(weights, settings), path)
    return stages
