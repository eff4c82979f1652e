"""Checkpoints, and the first weights of an encoder."""

import io
from pathlib import Path
from urllib.error import URLError

import torch

from code_common.errors import InputError, reason
from code_common.learning.encoders import ENCODERS
from code_common.learning.network import ResUNet


def load_state(path: Path) -> dict:
    """Read a checkpoint without running any code in it; InputError names a file that is none."""
    if not Path(path).is_file():
        raise InputError(f"{path}: no such checkpoint")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(
            f"{path}: not a checkpoint of plain weights, refused ({reason(error)})"
        ) from None


def load_encoder(network: ResUNet, model: str, pretrained: str) -> str:
    """Start the encoder from 'imagenet', 'none', or a file; returns what was really loaded.

    A file may hold a torchvision ResNet's state dict or a checkpoint of this project. Raises
    InputError where the weights cannot be had or do not fit: training on without them would
    silently be another experiment.
    """
    if pretrained == "none":
        return "none"
    if pretrained == "imagenet":
        weights = ENCODERS[model].weights(model)
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        try:
            state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
        except (URLError, OSError, RuntimeError) as error:
            raise InputError(
                f"no ImageNet weights ({error}): download {weights.url} into {folder}, or give a "
                "file with --pretrained FILE, or train from scratch with --no-pretrained"
            ) from None
        loaded = f"imagenet: {weights.url.rsplit('/', 1)[-1]}"
    else:
        state = load_state(Path(pretrained))
        loaded = f"file: {Path(pretrained).name}"
    state = state.get("network", state.get("state_dict", state))
    state = {k.removeprefix("module."): v for k, v in state.items()}
    if any(k.startswith("encoder.") for k in state):
        state = {
            k.removeprefix("encoder."): v for k, v in state.items() if k.startswith("encoder.")
        }
    wanted = network.encoder.state_dict()
    bad = [k for k, v in wanted.items() if k not in state or state[k].shape != v.shape]
    if bad:
        raise InputError(f"{pretrained}: the weights do not fit a {model} (first: {bad[0]})")
    network.encoder.load_state_dict(state, strict=False)
    return loaded


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
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError):
        raise InputError(f"{path}: not a checkpoint of this project") from None
    return network.to(device, memory_format=torch.channels_last).eval()


def load_network(path: Path, device: torch.device) -> ResUNet:
    """The network of a checkpoint, ready for inference."""
    return network_of(load_state(path), path, device)
