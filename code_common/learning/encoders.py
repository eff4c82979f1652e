"""The encoders that a ResUNet may have. A new one is a row of ENCODERS.

Nothing here imports torch before it is called: the names are choices of --model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor, nn

WIDTHS = (0.1, 4)  # least and largest share of the channels of the paper's network
STEM_STRIDES = (1, 2)


class Encoder(NamedTuple):
    """What the decoder needs to know of an encoder."""

    channels: tuple[int, int, int, int, int]  # of its feature maps at strides 2, 4, 8, 16 and 32
    build: Callable[[str], nn.Module]  # name -> the network, with random weights
    features: Callable[[nn.Module, Tensor], list[Tensor]]  # (network, image) -> its feature maps
    stem: str  # name of its first convolution, whose stride --stem-stride sets
    weights: Callable[[str], object]  # name -> torchvision's description of its ImageNet weights


def _torchvision(name: str) -> nn.Module:
    import torchvision

    return torchvision.models.get_model(name, weights=None)


def _imagenet_weights(name: str) -> object:
    import torchvision

    return torchvision.models.get_model_weights(name).IMAGENET1K_V1


def _resnet(name: str) -> nn.Module:
    from torch import nn

    encoder = _torchvision(name)
    encoder.fc = nn.Identity()
    return encoder


def _resnet_features(encoder: nn.Module, image: Tensor) -> list[Tensor]:
    """Feature maps [B, C, H/s, W/s] of an image [B, 3, H, W], for s of 2, 4, 8, 16 and 32."""
    maps = [encoder.relu(encoder.bn1(encoder.conv1(image)))]
    maps.append(encoder.layer1(encoder.maxpool(maps[0])))
    for layer in (encoder.layer2, encoder.layer3, encoder.layer4):
        maps.append(layer(maps[-1]))
    return maps


def _resnet_row(*channels: int) -> Encoder:
    return Encoder(channels, _resnet, _resnet_features, "conv1", _imagenet_weights)


ENCODERS = {
    "resnet18": _resnet_row(64, 64, 128, 256, 512),
    "resnet34": _resnet_row(64, 64, 128, 256, 512),
    "resnet50": _resnet_row(64, 256, 512, 1024, 2048),
    "resnet101": _resnet_row(64, 256, 512, 1024, 2048),
}
