"""Checkpoints, and the first weights of an encoder."""

import io
from pathlib import Path
from urllib.error import URLError

import torch
import torchvision

from code_common.errors import InputError, reason
from code_common.learning.network import Ensemble, ResUNet


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


def check_width(width: float, pretrained: str) -> None:
    """Raise InputError where first weights are wanted that are there for width 1 alone."""
    if pretrained == "imagenet" and width != 1:
        raise InputError(
            f"--width {width:g}: ImageNet weights are those of width 1; train from scratch with "
            "--no-pretrained, or give a file with --pretrained FILE"
        )


def load_encoder(network: ResUNet, model: str, pretrained: str) -> str:
    """Start the encoder from 'imagenet', 'none', or a file; returns what was really loaded.

    A file may hold a torchvision ResNet's state dict or a checkpoint of this project. Raises
    InputError where the weights cannot be had or do not fit: training on without them would
    silently be another experiment.
    """
    if pretrained == "none":
        return "none"
    check_width(network.width, pretrained)
    if pretrained == "imagenet":
        weights = torchvision.models.get_model_weights(model).IMAGENET1K_V1
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
    state = {k: v for k, v in state.items() if not k.startswith("fc.")}
    own = network.encoder.state_dict()
    bad = [k for k, v in own.items() if k not in state or state[k].shape != v.shape]
    if bad:
        raise InputError(f"{pretrained}: the weights do not fit a {model} (first: {bad[0]})")
    network.encoder.load_state_dict(state, strict=False)
    return loaded


def save_network(network: ResUNet | Ensemble, model: str, **extra: object) -> dict:
    """What a checkpoint holds to build the network again: see `load_network`."""
    networks = network.networks if isinstance(network, Ensemble) else [network]
    one, state = networks[0], {"model": model, "members": len(networks)}
    state |= {"width": one.width, "stem_stride": one.stem_stride}
    state |= {"out_channels": one.head.out_channels, "network": network.state_dict()}
    return {**state, **extra}


def checkpoint_bytes(state: dict) -> memoryview:
    """A checkpoint as the bytes of its file."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getbuffer()


def network_of(state: dict, path: Path, device: torch.device) -> ResUNet | Ensemble:
    """The network that a checkpoint's state describes, ready for inference; `path` names it."""
    try:
        # Older checkpoints tell no width or stride: they are the paper's, and one network.
        shape = {k: state[k] for k in ("width", "stem_stride") if k in state}
        count = state.get("members", 1)
        networks = [ResUNet(state["model"], state["out_channels"], **shape) for _ in range(count)]
        network = networks[0] if count == 1 else Ensemble(networks)
        network.load_state_dict(state["network"])
    except (KeyError, TypeError, ValueError, RuntimeError):
        raise InputError(f"{path}: not a checkpoint of this project") from None
    return network.to(device, memory_format=torch.channels_last).eval()


def load_network(path: Path, device: torch.device) -> ResUNet | Ensemble:
    """The network of a checkpoint, ready for inference."""
    return network_of(load_state(path), path, device)
