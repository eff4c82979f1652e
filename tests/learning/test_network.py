"""ResUNet and its checkpoints: shapes, weights from files, refused pickles."""

import pickle

import pytest
import torch
import torch.nn.functional as F
import torchvision

from code_common.errors import InputError
from code_common.learning.checkpoints import load_encoder, load_network, load_state, save_network
from code_common.learning.encoders import ENCODERS
from code_common.learning.network import ResUNet, UpBlock, Upsample, draw_dropout
from code_common.options import check_width

CPU = torch.device("cpu")


def weights_of(network):
    """How many weights a network has."""
    return sum(p.numel() for p in network.parameters())


def saved(network, path, **changes):
    """The path of a checkpoint of a network; `changes` are those of what it holds."""
    torch.save(save_network(network) | changes, path)
    return path


def says_the_same(network, other):
    """Whether two networks say the same of an image."""
    image = torch.rand(1, 3, 40, 33)
    with torch.inference_mode():
        return torch.allclose(network.eval()(image), other.eval()(image), atol=1e-5)


@pytest.mark.parametrize("name", ENCODERS)
def test_any_size_comes_back_in_its_size(name):
    """D27: also where the sides are no multiples of 32."""
    network = ResUNet(name, 2).eval()
    with torch.inference_mode():
        assert network(torch.rand(1, 3, 50, 67)).shape == (1, 2, 50, 67)
        assert network(torch.rand(2, 3, 32, 32)).shape == (2, 2, 32, 32)


def values_and_gradients(function, *tensors):
    """What a function gives for float64 tensors, and the gradients of all of them."""
    leaves = [t.detach().clone().requires_grad_() for t in tensors]
    value = function(*leaves)
    steady = torch.randn(value.shape, generator=torch.Generator().manual_seed(1)).double()
    return [value, *torch.autograd.grad((value * steady).sum(), leaves)]


def are_the_same(one, other):
    return all(torch.allclose(a, b, rtol=0, atol=1e-10) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(("stride", "out"), [(1, 1), (2, 1), (2, 5)])
def test_upsampling_is_a_transposed_convolution(stride, out):
    torch.manual_seed(0)
    plain = torch.nn.ConvTranspose2d(3, out, stride, stride=stride).double()
    fast = Upsample(3, out, stride).double()
    fast.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, 5, 7).double()

    def of(layer):
        call = torch.func.functional_call
        weights = lambda x, w, b: call(layer, {"weight": w, "bias": b}, (x,))  # noqa: E731
        return values_and_gradients(weights, x, layer.weight, layer.bias)

    assert are_the_same(of(fast), of(plain))
    assert fast(x[:0]).shape == (0, out, 5 * stride, 7 * stride)


def test_a_block_of_the_decoder_convolves_both_feature_maps_side_by_side():
    torch.manual_seed(0)
    block = UpBlock(4, 6, 5).double()
    x, skip = torch.randn(2, 4, 5, 7).double(), torch.randn(2, 6, 10, 14).double()

    def plain(x, skip):
        up = F.conv_transpose2d(x, block.up.weight, block.up.bias, stride=2)
        return block.norm(F.relu(block.conv(torch.cat([up, skip], dim=1))))

    assert are_the_same(*(values_and_gradients(f, x, skip) for f in (block, plain)))


def test_no_dropout_is_drawn_at_a_rate_of_0():
    assert draw_dropout(2, 0.0, 0.25, CPU) is None
    assert draw_dropout(2, 0.5, 0.25, CPU).unique().tolist() == [0, 2]


def test_resunet34_has_the_size_of_the_papers():
    assert 23e6 < weights_of(ResUNet("resnet34", 1)) < 25e6


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_narrow_network_has_the_square_of_its_share_of_weights(name):
    narrow, whole = ResUNet(name, 2, width=0.25), ResUNet(name, 2)
    assert weights_of(narrow) == pytest.approx(weights_of(whole) / 16, rel=0.03)


@pytest.mark.parametrize("shape", [{"width": 0.25}, {"stem_stride": 1}])
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_checkpoint_tells_the_shape_of_its_network(name, shape, tmp_path):
    network = ResUNet(name, 2, **shape)
    again = load_network(saved(network, tmp_path / "a.pt"), CPU)
    assert not again.training
    assert says_the_same(again, network)


def test_imagenet_weights_are_those_of_width_1_alone():
    check_width(1, "imagenet")
    check_width(0.25, "none")
    with pytest.raises(InputError, match="--width 0.25"):
        check_width(0.25, "imagenet")


def test_an_older_checkpoint_has_the_published_width_and_stride(tmp_path):
    state = save_network(ResUNet("resnet18", 1)) | {"members": 1}
    del state["width"], state["stem_stride"]
    torch.save(state, tmp_path / "a.pt")
    network = load_network(tmp_path / "a.pt", CPU)
    assert (network.width, network.stem_stride) == (1, 2)


@pytest.mark.parametrize(("stage", "outputs"), [("segmentation", 1), ("detection", 2)])
def test_a_network_of_the_other_stage_is_refused(tmp_path, stage, outputs):
    path = saved(ResUNet("resnet18", outputs, width=0.25), tmp_path / "a.pt")
    with pytest.raises(InputError, match=f"a.pt: .*expected one of the {stage}"):
        load_network(path, CPU, stage)


def test_the_checkpoint_of_an_ensemble_is_refused(tmp_path):
    """An older version could train several networks and save them as one."""
    path = saved(ResUNet("resnet18", 1), tmp_path / "ensemble.pt", members=2)
    with pytest.raises(InputError) as error:
        load_network(path, CPU)
    message = str(error.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    assert "2 networks" in message and "--members" in message


def test_a_stem_of_stride_1_is_twice_as_fine():
    """Its first features are as many as the pixels."""
    fine = ResUNet("resnet18", 2, stem_stride=1).eval()
    with torch.inference_mode():
        assert fine(torch.rand(1, 3, 50, 67)).shape == (1, 2, 50, 67)
        assert fine.encoder.conv1(torch.rand(1, 3, 64, 64)).shape[-2:] == (64, 64)


def test_the_colours_of_the_training_set_travel_with_the_weights(tmp_path):
    """D20: no file beside the checkpoint is needed."""
    network = ResUNet("resnet18", 1, mean=(0.7, 0.5, 0.6), std=(0.1, 0.2, 0.3))
    again = load_network(saved(network, tmp_path / "a.pt"), CPU)
    assert torch.equal(again.mean, network.mean) and torch.equal(again.std, network.std)
    assert says_the_same(again, network)


@pytest.mark.parametrize("stem_stride", [1, 2])
def test_torchvision_weights_of_a_file_are_loaded(tmp_path, stem_stride):
    """The stride is none of the weights, so those of a file fit either."""
    source = torchvision.models.resnet18(weights=None)
    state = {f"module.{k}": v for k, v in source.state_dict().items()}  # of DataParallel
    torch.save(state, tmp_path / "w.pth")
    network = ResUNet("resnet18", 1, stem_stride=stem_stride)
    assert load_encoder(network, "resnet18", str(tmp_path / "w.pth")) == "file: w.pth"
    assert torch.equal(network.encoder.layer4[1].conv2.weight, source.layer4[1].conv2.weight)


def test_a_checkpoint_of_ours_starts_an_encoder(tmp_path):
    source = ResUNet("resnet18", 2)
    path = saved(source, tmp_path / "w.pt")
    network = ResUNet("resnet18", 1)
    load_encoder(network, "resnet18", str(path))
    assert torch.equal(network.encoder.conv1.weight, source.encoder.conv1.weight)


def test_weights_that_do_not_fit_are_named(tmp_path):
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "w.pth")
    with pytest.raises(InputError, match="w.pth.*resnet50"):
        load_encoder(ResUNet("resnet50", 1), "resnet50", str(tmp_path / "w.pth"))


def test_imagenet_weights_that_cannot_be_had_stop_with_the_way_out(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    with pytest.raises(InputError) as error:
        load_encoder(ResUNet("resnet18", 1), "resnet18", "imagenet")
    message = str(error.value)
    for part in ("https://", "resnet18-", str(tmp_path), "--no-pretrained"):
        assert part in message
    assert "\n" not in message


def test_imagenet_weights_in_the_cache_are_used(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    url = ENCODERS["resnet18"].weights("resnet18").url
    source = torchvision.models.resnet18(weights=None)
    path = tmp_path / "hub" / "checkpoints" / url.rsplit("/", 1)[-1]
    path.parent.mkdir(parents=True)
    torch.save(source.state_dict(), path)
    network = ResUNet("resnet18", 1)
    assert load_encoder(network, "resnet18", "imagenet").startswith("imagenet: resnet18-")
    assert torch.equal(network.encoder.conv1.weight, source.conv1.weight)


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('code of the file was run')",)


def test_a_pickle_with_code_is_refused(tmp_path):
    (tmp_path / "evil.pt").write_bytes(pickle.dumps({"network": Evil()}))
    torch.save({"network": Evil()}, tmp_path / "evil2.pt")
    for name in ("evil.pt", "evil2.pt"):
        with pytest.raises(InputError, match=name):
            load_state(tmp_path / name)


def test_what_is_no_checkpoint_is_named(tmp_path):
    (tmp_path / "a.pt").write_bytes(b"no weights")
    torch.save({"x": 1}, tmp_path / "b.pt")
    for name in ("a.pt", "b.pt", "absent.pt"):
        with pytest.raises(InputError, match=name):
            load_network(tmp_path / name, CPU)
