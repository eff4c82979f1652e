"""Checkpoints, and the first weights of an encoder."""

import io
import pickle
from pathlib import Path
from urllib.error import URLError

import torch

from code_common.errors import InputError, reason
from code_common.learning.encoders import ENCODERS
from code_common.learning.network import ResUNet


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
    wanted = network.encoder.state_dict()
    bad = [k for k, v in wanted.items() if getattr(state.get(k), "shape", None) != v.shape]
    if bad:
        raise InputError(f"{pretrained}: the weights do not fit a {model} (first: {bad[0]})")
    _check_finite(state, pretrained)
    network.encoder.load_state_dict(state, strict=False)
    return loaded


def _check_finite(state: dict, path: Path | str) -> None:
    """Raise InputError where weights hold what is no number: the network would see nothing."""
    for name, value in state.items():
        if isinstance(value, torch.Tensor) and not torch.isfinite(value).all():
            raise InputError(f"{path}: weights that are no finite numbers (first: {name})")


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


def network_of(state: dict, path: Path, device: torch.device) -> ResUNet:
    """The network that a checkpoint's state describes, ready for inference; `path` names it."""
    try:
        if state.get("members", 1) != 1:
            raise InputError(
                f"{path}: an average of {state['members']} networks (--members), which this "
                "version does not read; give one of them, member_K/best.pt, or use the version "
                "that made it"
            )
        # Older checkpoints tell no width or stride: they are the paper's.
        shape = {k: state[k] for k in ("width", "stem_stride") if k in state}
        network = ResUNet(state["model"], state["out_channels"], **shape)
        network.load_state_dict(state["network"])
    except InputError:
        raise
    except Exception:  # a state of another shape raises almost anything
        raise InputError(f"{path}: not a checkpoint of this project") from None
    _check_finite(network.state_dict(), path)
    return network.to(device, memory_format=torch.channels_last).eval()


def load_network(path: Path, device: torch.device) -> ResUNet:
    """The network of a checkpoint, ready for inference."""
    return network_of(load_state(path), path, device)
