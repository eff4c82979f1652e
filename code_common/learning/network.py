"""ResUNet: a U-Net decoder on a ResNet encoder (Qu et al. 2020, Fig. 3)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from code_common.learning.encoders import ENCODERS

UP_CHANNELS = (256, 128, 64, 64)  # of the decoder's blocks, coarse to fine, at width 1


def channels_at(width: float, channels: int) -> int:
    """Channels of a layer at a width: a multiple of eight, which hardware multiplies best."""
    return channels if width == 1 else max(8, 8 * round(channels * width / 8))


def _narrowed(encoder: nn.Module, width: float) -> nn.Module:
    """The encoder with all its layers at another width, with random first weights."""
    for parent in list(encoder.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Conv2d):
                colours = layer.in_channels == 3
                before = 3 if colours else channels_at(width, layer.in_channels)
                depthwise = layer.groups == layer.in_channels > 1
                assert depthwise or layer.groups == 1, f"{name}: grouped, no other width is known"
                other = nn.Conv2d(
                    before,
                    channels_at(width, layer.out_channels),
                    layer.kernel_size,
                    layer.stride,
                    layer.padding,
                    layer.dilation,
                    groups=before if depthwise else 1,
                    bias=layer.bias is not None,
                )
                # As torchvision does it.
                nn.init.kaiming_normal_(other.weight, mode="fan_out", nonlinearity="relu")
                setattr(parent, name, other)
            elif isinstance(layer, nn.BatchNorm2d):
                setattr(parent, name, nn.BatchNorm2d(channels_at(width, layer.num_features)))
    return encoder


class Upsample(nn.ConvTranspose2d):
    """A transposed convolution whose stride is the side of its kernel: each pixel becomes
    stride x stride pixels, and none of them overlap.

    That is a matrix product. On a CPU its gradients take a fifth of the time of those of a
    transposed convolution.
    """

    def __init__(self, channels: int, out: int, stride: int):
        super().__init__(channels, out, stride, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, H, W] -> [B, out, stride * H, stride * W]"""
        (b, c, h, w), (s, _), out = x.shape, self.stride, self.out_channels
        weight = self.weight.permute(2, 3, 1, 0).reshape(s * s * out, c)
        pixels = F.linear(x.permute(0, 2, 3, 1), weight, self.bias.repeat(s * s))
        pixels = pixels.view(b, h, w, s, s, out).transpose(2, 3)  # [B, H, s, W, s, out]
        return pixels.reshape(b, h * s, w * s, out).permute(0, 3, 1, 2)


class UpBlock(nn.Module):
    """Double the resolution, join the encoder's features, then conv -> ReLU -> BN."""

    def __init__(self, channels: int, skip: int, out: int):
        super().__init__()
        self.up = Upsample(channels, out, 2)
        self.conv = nn.Conv2d(out + skip, out, 3, padding=1)
        self.norm = nn.BatchNorm2d(out)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        # The convolution of both side by side, as a sum: nothing is copied to be side by side.
        of_up, of_skip = self.conv.weight.split((self.up.out_channels, skip.shape[1]), dim=1)
        x = F.conv2d(self.up(x), of_up, self.conv.bias, padding=1)
        x += F.conv2d(skip, of_skip, padding=1)
        return self.norm(x.relu_())


# Outputs of the network of each stage: of a nucleus's centre; of background and nucleus.
OUTPUTS = {"detection": 1, "segmentation": 2}


class ResUNet(nn.Module):
    """Logits [B, out_channels, H, W] of RGB images [B, 3, H, W] in 0..1, of any H and W.

    `model` is a row of ENCODERS. The channel means and deviations of the training images are part
    of the state, so a checkpoint needs no file beside it. `width` is the share of the channels of
    the paper's network that every layer has. With a `stem_stride` of 1 instead of 2, the features
    of every layer are twice as fine, as in HoVer-Net (Graham et al. 2019).
    """

    def __init__(
        self,
        model: str,
        out_channels: int,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.25, 0.25, 0.25),
        width: float = 1.0,
        stem_stride: int = 2,
    ):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1).float())
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1).float())
        self.model, self.width, self.stem_stride = model, width, stem_stride
        self.encoder = ENCODERS[model].build(model)
        if width != 1:
            _narrowed(self.encoder, width)
        stem = self.encoder.get_submodule(ENCODERS[model].stem)
        stem.stride = (stem_stride, stem_stride)
        c0, c1, c2, c3, c4 = (channels_at(width, c) for c in ENCODERS[model].channels)
        ups = self.up_channels = up_channels(width)
        self.up4 = UpBlock(c4, c3, ups[0])
        self.up3 = UpBlock(ups[0], c2, ups[1])
        self.up2 = UpBlock(ups[1], c1, ups[2])
        self.up1 = UpBlock(ups[2], c0, ups[3])
        self.head = Upsample(ups[3], out_channels, stem_stride)

    def forward(self, image: Tensor, dropout: Tensor | None = None) -> Tensor:
        """`dropout` [B, sum(up_channels)] of `draw_dropout` scales the decoder's channels."""
        b, _, h, w = image.shape
        # Whole rows at once, which a CPU does faster than three channels of each pixel.
        rows = image.permute(0, 2, 3, 1).flatten(2)  # [B, H, W * 3]
        rows = (rows - self.mean.flatten().repeat(w)).div_(self.std.flatten().repeat(w))
        x = rows.view(b, h, w, 3).permute(0, 3, 1, 2)
        # The encoder halves up to five times; sizes in between are padded and cut back (D27). What
        # is traced is for any size.
        if h % 32 or w % 32 or torch.jit.is_tracing():
            x = F.pad(x, (0, -w % 32, 0, -h % 32), mode="replicate")
        # [B, c, H/s, W/s] for s of 2, 4, 8, 16, 32; all twice as fine at stem_stride 1
        *skips, x = ENCODERS[self.model].features(self.encoder, x)
        scales = [None] * 4
        if dropout is not None:
            scales = dropout.to(x.dtype)[..., None, None].split(self.up_channels, dim=1)
        ups = (self.up4, self.up3, self.up2, self.up1)
        for up, skip, scale in zip(ups, reversed(skips), scales, strict=True):
            x = up(x, skip)
            x = x if scale is None else x * scale
        return self.head(x)[..., :h, :w]


def up_channels(width: float) -> tuple[int, ...]:
    """Channels of the decoder's blocks, coarse to fine, at a width."""
    return tuple(channels_at(width, c) for c in UP_CHANNELS)


def draw_dropout(images: int, rate: float, width: float, device: torch.device) -> Tensor | None:
    """2-D dropout [images, sum(up_channels)] of the decoder: 0 at `rate`, else 1 / (1 - rate).

    Drawn for a whole batch at once and outside the network, so that it does not matter over how
    many processes the batch is spread. None at a rate of 0.
    """
    if rate == 0:
        return None
    keep = torch.rand(images, sum(up_channels(width)), device=device) >= rate
    return keep.float() / (1 - rate)


def to_network(images: Tensor, device: torch.device) -> Tensor:
    """uint8 [B, H, W, 3] -> float [B, 3, H, W] in 0..1 on the device, channels last in memory."""
    return images.to(device, non_blocking=True).permute(0, 3, 1, 2).float().div_(255)


def mixed_precision(precision: torch.dtype, device: torch.device) -> torch.autocast:
    """The context in which a network computes in `precision`; float32 is its own precision."""
    return torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32)
