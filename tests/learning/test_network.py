"""ResUNet: shapes, encoders, weights from files, refused pickles."""

import pickle

import pytest
import torch
import torchvision

from code_common.errors import InputError
from code_common.inference.tiling import probability
from code_common.learning import network as model
from code_common.learning.checkpoints import load_encoder, load_network, load_state, save_network
from code_common.learning.network import Ensemble, ResUNet


@pytest.mark.parametrize("name", model.MODELS)
def test_any_size_comes_back_in_its_size(name):
    """D27: also where the sides are no multiples of 32."""
    network = ResUNet(name, 2).eval()
    with torch.inference_mode():
        assert network(torch.rand(1, 3, 50, 67)).shape == (1, 2, 50, 67)
        assert network(torch.rand(2, 3, 32, 32)).shape == (2, 2, 32, 32)


def test_resunet34_has_the_size_of_the_papers():
    count = sum(p.numel() for p in ResUNet("resnet34", 1).parameters())
    assert 23e6 < count < 25e6


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_narrow_network_has_the_square_of_its_share_of_weights(name, tmp_path):
    narrow = ResUNet(name, 2, width=0.25).eval()
    own, full = (sum(p.numel() for p in n.parameters()) for n in (narrow, ResUNet(name, 2)))
    assert own == pytest.approx(full / 16, rel=0.03)
    torch.save(save_network(narrow, name), tmp_path / "a.pt")
    again, image = load_network(tmp_path / "a.pt", torch.device("cpu")), torch.rand(1, 3, 40, 33)
    assert torch.allclose(again(image), narrow(image), atol=1e-5)
    with pytest.raises(InputError, match="--width 0.25"):
        load_encoder(narrow, name, "imagenet")


class Says(torch.nn.Module):
    """A network that always says the same logits, whatever it sees."""

    def __init__(self, *logits: float):
        super().__init__()
        self.logits = torch.tensor(logits).view(1, -1, 1, 1)

    def forward(self, image):
        return self.logits.expand(len(image), -1, *image.shape[2:])


@pytest.mark.parametrize("classes", [1, 2])
def test_an_ensemble_says_the_mean_probability(classes):
    """0.9 and 0.2 are 0.55; the logits' own mean would say 0.6. Sure networks stay finite."""

    def says(*logits):
        networks = [Says(*[0.0] * (classes - 1), logit) for logit in logits]
        return probability(Ensemble(networks)(torch.zeros(2, 3, 4, 5)))

    nine, two = torch.tensor([0.9, 0.2]).logit().tolist()
    assert says(nine, two).shape == (2, 1, 4, 5)
    assert torch.allclose(says(nine, two), torch.tensor(0.55))
    assert torch.allclose(says(nine, nine, two), torch.tensor(2.0 / 3))
    assert torch.allclose(says(500.0, -500.0), torch.tensor(0.5))
    assert torch.allclose(says(-500.0, -500.0), torch.tensor(0.0))


def test_an_ensemble_is_one_checkpoint(tmp_path):
    networks = [ResUNet("resnet18", 2, width=0.25).eval() for _ in range(3)]
    torch.save(save_network(Ensemble(networks), "resnet18"), tmp_path / "a.pt")
    again, image = load_network(tmp_path / "a.pt", torch.device("cpu")), torch.rand(1, 3, 40, 33)
    assert len(again.networks) == 3 and not again.training
    mean = torch.stack([probability(network(image)) for network in networks]).mean(0)
    assert torch.allclose(probability(again(image)), mean, atol=1e-5)
    with pytest.raises(InputError, match="do not fit"):  # an encoder is that of one network
        load_encoder(networks[0], "resnet18", str(tmp_path / "a.pt"))


def test_an_older_checkpoint_has_the_published_width_and_stride(tmp_path):
    state = save_network(ResUNet("resnet18", 1), "resnet18")
    del state["width"], state["stem_stride"], state["members"]
    torch.save(state, tmp_path / "a.pt")
    network = load_network(tmp_path / "a.pt", torch.device("cpu"))
    assert (network.width, network.stem_stride) == (1, 2)


def test_a_stem_of_stride_1_is_twice_as_fine(tmp_path):
    """Its first features are as many as the pixels."""
    fine = ResUNet("resnet18", 2, width=0.25, stem_stride=1).eval()
    with torch.inference_mode():
        assert fine(torch.rand(1, 3, 50, 67)).shape == (1, 2, 50, 67)
        assert fine.encoder.conv1(torch.rand(1, 3, 64, 64)).shape[-2:] == (64, 64)
    torch.save(save_network(fine, "resnet18"), tmp_path / "a.pt")
    again, image = load_network(tmp_path / "a.pt", torch.device("cpu")), torch.rand(1, 3, 40, 33)
    assert torch.allclose(again(image), fine(image), atol=1e-5)
    # The encoder has the same weights, so those of a file fit either.
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "w.pth")
    load_encoder(ResUNet("resnet18", 1, stem_stride=1), "resnet18", str(tmp_path / "w.pth"))


def test_the_colours_of_the_training_set_travel_with_the_weights(tmp_path):
    """D20: no file beside the checkpoint is needed."""
    network = ResUNet("resnet18", 1, (0.7, 0.5, 0.6), (0.1, 0.2, 0.3)).eval()
    torch.save(save_network(network, "resnet18"), tmp_path / "a.pt")
    again = load_network(tmp_path / "a.pt", torch.device("cpu"))
    image = torch.rand(1, 3, 32, 32)
    assert torch.equal(again.mean, network.mean)
    assert torch.allclose(again(image), network(image), atol=1e-5)


def test_torchvision_weights_of_a_file_are_loaded(tmp_path):
    source = torchvision.models.resnet18(weights=None)
    state = {f"module.{k}": v for k, v in source.state_dict().items()}  # of DataParallel
    torch.save(state, tmp_path / "w.pth")
    network = ResUNet("resnet18", 1)
    assert load_encoder(network, "resnet18", str(tmp_path / "w.pth")) == "file: w.pth"
    assert torch.equal(network.encoder.layer4[1].conv2.weight, source.layer4[1].conv2.weight)


def test_a_checkpoint_of_ours_starts_an_encoder(tmp_path):
    source = ResUNet("resnet18", 2)
    torch.save(save_network(source, "resnet18"), tmp_path / "w.pt")
    network = ResUNet("resnet18", 1)
    load_encoder(network, "resnet18", str(tmp_path / "w.pt"))
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
    weights = torchvision.models.get_model_weights("resnet18").IMAGENET1K_V1
    source = torchvision.models.resnet18(weights=None)
    path = tmp_path / "hub" / "checkpoints" / weights.url.rsplit("/", 1)[-1]
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
            load_network(tmp_path / name, torch.device("cpu"))
