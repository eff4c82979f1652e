"""Checkpoints, and the first weights of an encoder."""

import io
import math
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor

from code_common.errors import InputError, reason
from code_common.learning.encoders import ENCODERS, STEM_STRIDES, WIDTHS
from code_common.learning.network import OUTPUTS, ResUNet


def _why(error: Exception) -> str:
    """Why torch could not read a file. Its own words advise to run the code in it."""
    if isinstance(error, pickle.UnpicklingError):
        return "it holds something else"
    return reason(error)


def load_state(path: Path) -> dict:
    """Read a checkpoint without running any code in it; InputError names a file that is none."""
    if not Path(path).is_file():
        raise InputError(f"{path}: no such checkpoint")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of TorchScript and the like, which is refused
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(
            f"{path}: not a checkpoint of plain weights, refused ({_why(error)})"
        ) from None
    if not isinstance(state, dict):
        raise InputError(f"{path}: not a checkpoint, but a {type(state).__name__}")
    return state


def _load_imagenet(model: str) -> tuple[dict, str]:
    """ImageNet weights, downloaded where they are not there, and the name of their file."""
    weights = ENCODERS[model].weights(model)
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / weights.url.rsplit("/", 1)[-1]
    ways = "or give a file with --pretrained FILE, or train from scratch with --no-pretrained"
    there = file.is_file()
    try:
        state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
        if not isinstance(state, dict):
            raise TypeError(f"a {type(state).__name__}")
    except Exception as error:  # pickle's are many: a web page or an empty file, say
        if there:
            raise InputError(
                f"{file}: not the ImageNet weights ({_why(error)}); remove it and download "
                f"{weights.url} into {folder}, {ways}"
            ) from None
        if not isinstance(error, (URLError, OSError, RuntimeError)):
            raise
        raise InputError(
            f"no ImageNet weights ({error}): download {weights.url} into {folder}, {ways}"
        ) from None
    return state, file.name


def load_encoder(network: ResUNet, model: str, pretrained: str) -> str:
    """Start the encoder from 'imagenet', 'none', or a file; returns what was really loaded.

    A file may hold a torchvision ResNet's state dict or a checkpoint of this project. Raises
    InputError where the weights cannot be had or do not fit: training on without them would
    silently be another experiment.
    """
    if pretrained == "none":
        return "none"
    if pretrained == "imagenet":
        state, name = _load_imagenet(model)
        loaded = f"imagenet: {name}"
    else:
        state = load_state(Path(pretrained))
        loaded = f"file: {Path(pretrained).name}"
    state = state.get("network", state.get("state_dict", state))
    if not isinstance(state, dict):
        raise InputError(f"{pretrained}: not a checkpoint of plain weights")
    state = {str(k).removeprefix("module."): v for k, v in state.items()}
    if any(k.startswith("encoder.") for k in state):
        state = {
            k.removeprefix("encoder."): v for k, v in state.items() if k.startswith("encoder.")
        }
    # Weights of other precision are taken as what they are.
    state = {k: v.float() if torch.is_floating_point(v) else v for k, v in tensors(state).items()}
    if misfit := misfit_of(state, network.encoder.state_dict(), more=True):
        raise InputError(f"{pretrained}: the weights do not fit a {model} ({misfit})")
    network.encoder.load_state_dict(state, strict=False)
    return loaded


def tensors(state: Mapping) -> dict[str, Tensor]:
    """The tensors of a state that are plain arrays of numbers: not sparse, quantized or nested."""
    found = {str(k): v for k, v in state.items() if isinstance(v, Tensor) and not v.is_nested}
    return {
        k: v
        for k, v in found.items()
        if v.layout == torch.strided and not v.is_quantized and not v.is_meta
    }


def misfit_of(state: object, wanted: Mapping[str, Tensor], more: bool = False) -> str:
    """What of a state is not as `wanted`: same names, shapes and types, finite; '' for nothing.

    more: whether it may have other names, too.
    """
    if not isinstance(state, dict):
        return "no weights by their names"
    plain, others = tensors(state), [name for name in state if name not in wanted]
    if others and not more:
        return f"other weights than expected (first: {str(others[0])[:40]})"
    for name, value in wanted.items():
        found = plain.get(name)
        if found is None:
            return f"no plain array {name}"
        if found.shape != value.shape or found.dtype != value.dtype:
            return (
                f"{name} is {list(found.shape)} {found.dtype}, expected {list(value.shape)} "
                f"{value.dtype}"
            )
        if not torch.isfinite(found).all():
            return f"weights that are no finite numbers (first: {name})"
    return ""


def save_network(network: ResUNet, **extra: object) -> dict:
    """What a checkpoint holds to build the network again: see `load_network`."""
    state = {k: getattr(network, k) for k in ("model", "width", "stem_stride")}
    state |= {"out_channels": network.head.out_channels, "network": network.state_dict()}
    return {**state, **extra}


def checkpoint_bytes(state: dict) -> memoryview:
    """A checkpoint as the bytes of its file."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getbuffer()


def network_of(state: dict, path: Path, device: torch.device, stage: str = "") -> ResUNet:
    """The network that a checkpoint's state describes, ready for inference; `path` names it.

    stage: the stage that it must be of, '' for any. Raises InputError where it is something else.
    """
    members = state.get("members", 1)
    if type(members) is int and members != 1:
        raise InputError(
            f"{path}: an average of {members} networks (--members), which this version "
            "does not read; give one of them, member_K/best.pt, or use the version that made it"
        )
    # Older checkpoints tell no width or stride: they are the paper's.
    model, channels, width, stem_stride = (
        state.get(*k) for k in (("model",), ("out_channels",), ("width", 1.0), ("stem_stride", 2))
    )
    # First that they are plain numbers: a tensor may be neither in a tuple nor not in it.
    known = all(type(number) is int for number in (members, channels, stem_stride))
    known = known and channels in (1, 2) and stem_stride in STEM_STRIDES
    known = known and isinstance(model, str) and model in ENCODERS
    if not known or type(width) not in (int, float) or not WIDTHS[0] <= width <= WIDTHS[1]:
        raise InputError(f"{path}: not a checkpoint of this project")
    if channels != OUTPUTS.get(stage, channels):
        raise InputError(f"{path}: a network of the other stage; expected one of the {stage}")
    network = ResUNet(model, channels, width=width, stem_stride=stem_stride)
    if misfit := misfit_of(state.get("network"), network.state_dict()):
        raise InputError(f"{path}: not a checkpoint of this project ({misfit})")
    network.load_state_dict(state["network"])
    return network.to(device, memory_format=torch.channels_last).eval()


def scores_of(state: dict, path: Path) -> dict[str, float]:
    """The validation scores of a best checkpoint by name; 'score' is that which it was chosen by.

    Raises InputError, which names `path`, where there are none.
    """
    others = state.get("scores", {})
    if isinstance(others, dict):
        scores = {**others, "score": state.get("score")}
        numbers = all(isinstance(value, float | int) for value in scores.values())
        if numbers and math.isfinite(scores["score"]):
            return scores
    raise InputError(f"{path}: not the best checkpoint of a training, expected its scores")


def was_validated(scores: dict[str, float]) -> bool:
    """Whether validation images chose a best checkpoint. scores: what `scores_of` gives.

    Without them it is the last epoch's, and its only score is a 0 that says nothing.
    """
    return len(scores) > 1


def load_network(path: Path, device: torch.device, stage: str = "") -> ResUNet:
    """The network of a checkpoint, ready for inference."""
    return network_of(load_state(path), path, device, stage)
