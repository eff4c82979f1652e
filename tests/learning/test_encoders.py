"""An encoder is a row of ENCODERS: what the decoder needs of it, and a new one."""

import subprocess
import sys

import pytest
import torch
from conftest import PROJECT
from tiny_training import CPU, scores_of, train
from torch import nn

from code_common.files.run_folder import best_path
from code_common.learning.checkpoints import load_network
from code_common.learning.encoders import ENCODERS, Encoder
from code_common.learning.network import ResUNet

SIDE = 64  # of an image in pixels


def feature_maps(network):
    """(channels, side) of each feature map of an image of SIDE x SIDE pixels, fine to coarse."""
    with torch.inference_mode():
        maps = ENCODERS[network.model].features(network.encoder, torch.rand(1, 3, SIDE, SIDE))
    assert all(m.shape[0] == 1 and m.shape[2] == m.shape[3] for m in maps)
    return [(m.shape[1], m.shape[2]) for m in maps]


@pytest.mark.parametrize("name", ENCODERS)
def test_features_have_the_channels_of_the_row_and_strides_of_2_to_32(name):
    expected = list(zip(ENCODERS[name].channels, (32, 16, 8, 4, 2), strict=True))
    assert feature_maps(ResUNet(name, 1).eval()) == expected


@pytest.mark.parametrize("name", ENCODERS)
def test_a_stem_of_stride_1_makes_all_features_twice_as_fine(name):
    expected = list(zip(ENCODERS[name].channels, (64, 32, 16, 8, 4), strict=True))
    assert feature_maps(ResUNet(name, 1, stem_stride=1).eval()) == expected


@pytest.mark.parametrize("name", ENCODERS)
def test_a_row_says_where_its_imagenet_weights_are(name):
    url = ENCODERS[name].weights(name).url
    assert url.startswith("https://") and name in url


def test_the_names_of_the_encoders_need_no_torch():
    code = "import sys; from code_common.learning.encoders import ENCODERS; print(*ENCODERS); "
    code += "sys.exit('torch' in sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, list(ENCODERS))


CHANNELS = (4, 6, 8, 12, 16)


class FiveConvolutions(nn.Module):
    """An encoder as small as they get: each convolution halves the sides."""

    def __init__(self):
        super().__init__()
        sizes = zip((3, *CHANNELS), CHANNELS, strict=False)
        layers = [nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in sizes]
        self.first, self.others = layers[0], nn.ModuleList(layers[1:])


def build_five(_):
    return FiveConvolutions()


def features_of_five(encoder, image):
    maps = [encoder.first(image).relu()]
    for layer in encoder.others:
        maps.append(layer(maps[-1]).relu())
    return maps


def no_weights(name):
    raise ValueError(f"nobody trained {name}")


@pytest.fixture
def new_row(monkeypatch):
    """Name of an encoder that is nothing but another row."""
    row = Encoder(CHANNELS, build_five, features_of_five, stem="first", weights=no_weights)
    monkeypatch.setitem(ENCODERS, "five", row)
    return "five"


@pytest.mark.parametrize("stem_stride", [1, 2])
def test_a_new_encoder_gives_logits_of_any_image(new_row, stem_stride):
    network = ResUNet(new_row, 2, stem_stride=stem_stride).eval()
    assert [channels for channels, _ in feature_maps(network)] == list(CHANNELS)
    assert network(torch.rand(1, 3, 50, 67)).shape == (1, 2, 50, 67)


def test_a_new_encoder_is_trained_and_loaded_again(new_row, tmp_path):
    network = ResUNet(new_row, 1)
    first = [layer.weight.clone() for layer in (network.encoder.first, network.head)]
    train(tmp_path, network, validate=scores_of(0.5), epochs=1, batch_size=4)  # one step
    trained = [network.encoder.first.weight, network.head.weight]
    assert not any(map(torch.equal, first, trained))
    again, image = load_network(best_path(tmp_path), CPU), torch.rand(1, 3, 40, 33)
    assert torch.allclose(again(image), network.eval()(image), atol=1e-5)
