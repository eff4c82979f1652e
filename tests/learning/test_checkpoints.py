"""Files that load, or nearly, and are something else than weights: each is named in one line."""

import copy
import functools
import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_training import CPU, recipe, train

from code_common.config import parse
from code_common.errors import InputError
from code_common.files.run_folder import best_path, last_path
from code_common.learning.checkpoints import load_encoder, load_network, load_state, scores_of
from code_common.learning.network import ResUNet
from code_common.learning.training import make_optimizer, resume
from code_detection.detect import threshold_of
from code_detection.options import Options

WEIGHT = "encoder.conv1.weight"
MODEL = "resnet18"


@functools.cache
def _small() -> ResUNet:
    return ResUNet(MODEL, 1, width=0.1)


def small() -> ResUNet:
    """A network of kilobytes."""
    return copy.deepcopy(_small())


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The folder of a training of one epoch."""
    folder = tmp_path_factory.mktemp("trained")
    train(folder, network=small(), epochs=1)
    return folder


def go_on(last: Path) -> tuple[int, float]:
    """Take up a training of two epochs."""
    network, two = small(), recipe(epochs=2)
    return resume(last, network, make_optimizer(network, two, CPU), two, {}, CPU, "t")


class Evil:
    """Its pickle runs code where it is loaded."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def other_weight(change):
    """A checkpoint of which one weight is changed."""

    def write(path: Path, state: dict) -> None:
        weights = {**state["network"], WEIGHT: change(state["network"][WEIGHT])}
        torch.save({**state, "network": weights}, path)

    return write


def other_value(**changes):
    """A checkpoint with other values."""
    return lambda path, state: torch.save({**state, **changes}, path)


def value(value):
    """A file of torch that holds something else."""
    return lambda path, _: torch.save(value, path)


def content(data: bytes):
    """A file of something else."""
    return lambda path, _: path.write_bytes(data)


def archive(save) -> bytes:
    """The bytes that `save` writes into a file."""
    file = io.BytesIO()
    save(file)
    return file.getvalue()


def zipped(file) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("data.pkl", "no pickle")


def script(path: Path, _) -> None:
    torch.jit.trace(torch.nn.ReLU(), torch.ones(1)).save(path)


def whole_module(path: Path, _) -> None:
    torch.save(small(), path)


def truncated(path: Path, state: dict) -> None:
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[:-5000])


def with_code(path: Path, state: dict) -> None:
    torch.save({**state, "network": Evil(path.with_name("code_was_run"))}, path)


def only_code(path: Path, _) -> None:
    path.write_bytes(pickle.dumps(Evil(path.with_name("code_was_run"))))


def quantized(weight: torch.Tensor) -> torch.Tensor:
    return torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8)


NO_WEIGHTS = {
    "list": value([1]),
    "number": value(3),
    "text in torch": value("text"),
    "nothing": value(None),
    "tensor": value(torch.ones(3)),
    "empty": value({}),
    "other keys": value({"x": 1, 2: "y"}),
    "weights are a list": other_value(network=[1]),
    "weights are empty": other_value(network={}),
    "other shape": other_weight(lambda w: w[:1]),
    "endless shape": other_weight(lambda w: torch.zeros(1).expand(10**12)),
    "whole numbers": other_weight(lambda w: w.int()),
    "complex": other_weight(lambda w: w.to(torch.complex64)),
    "sparse": other_weight(lambda w: w.to_sparse()),
    "quantized": other_weight(quantized),
    "meta": other_weight(lambda w: w.to("meta")),
    "nan": other_weight(lambda w: w * torch.nan),
    "inf": other_weight(lambda w: w + torch.inf),
    "a list for a weight": other_weight(lambda w: w.tolist()),
    "whole module": whole_module,
    "with code": with_code,
    "only code": only_code,
    "TorchScript": script,
    "truncated": truncated,
    "zip": content(archive(zipped)),
    "npz": content(archive(lambda file: np.savez(file, a=np.ones(3)))),
    "npy": content(archive(lambda file: np.save(file, np.ones(3)))),
    "ONNX": content(b"\x08\x08\x12\x07pytorch\x1a\x052.0.0:\x80\x01"),
    "zero bytes": content(b""),
    "zeros": content(bytes(300)),
    "text": content(b"weights\n"),
    "web page": content(b"<!DOCTYPE html><html><body>404</body></html>"),
    "git-lfs pointer": content(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
    "pickle": content(pickle.dumps({"network": [1]})),
    "folder": lambda path, _: path.mkdir(),
    "pipe": lambda path, _: os.mkfifo(path),
    "dangling link": lambda path, _: path.symlink_to("nowhere"),
}
# Those that may start an encoder, but are no state of a training.
OTHER_NETWORKS = {
    "half": other_weight(lambda w: w.half()),
    "double": other_weight(lambda w: w.double()),
    "module.": lambda path, state: torch.save(
        {**state, "network": {f"module.{k}": v for k, v in state["network"].items()}}, path
    ),
    "other model": other_value(model="resnet34"),
    "unknown model": other_value(model=["resnet18"]),
    "huge": other_value(width=1e6),
    "more channels": other_value(out_channels=10**9),
    "other stride": other_value(stem_stride=0),
    "whole number is none": other_value(out_channels=1.0),
    "members of several": other_value(members=torch.ones(2)),
    "channels of several": other_value(out_channels=torch.ones(2)),
    "stride of several": other_value(stem_stride=torch.ones(2)),
    "width of several": other_value(width=torch.ones(2)),
}
OTHER_TRAININGS = {
    "no optimizer": other_value(optimizer=None),
    "no moments": lambda path, state: torch.save(
        {**state, "optimizer": {**state["optimizer"], "state": {}}}, path
    ),
    "epoch before the first": other_value(epoch=-1),
    "epoch is a text": other_value(epoch="x"),
    "epoch of several": other_value(epoch=torch.ones(2)),
    "score of several": other_value(best_score=torch.ones(2)),
    "recipe of several": other_value(recipe=torch.ones(2)),
    "rate of several": other_value(recipe={"lr": torch.ones(2)}),
    "epoch after the last": other_value(epoch=10**9),
    "score nan": other_value(best_score=float("nan")),
    "score is a text": other_value(best_score="x"),
    "no recipe": other_value(recipe=[1]),
}


def refused(read, path: Path) -> str:
    """The one line with which a file is refused."""
    with pytest.raises(InputError) as error:
        read()
    message = str(error.value)
    assert str(path) in message and "\n" not in message and len(message) < 600, message
    assert not path.with_name("code_was_run").exists()
    return message


@pytest.mark.parametrize("kind", NO_WEIGHTS)
def test_what_holds_no_weights_is_refused_everywhere(kind, trained, tmp_path):
    best, last = best_path(tmp_path), last_path(tmp_path)
    NO_WEIGHTS[kind](best, load_state(best_path(trained)))
    refused(lambda: load_network(best, CPU), best)
    refused(lambda: load_encoder(small(), MODEL, str(best)), best)
    NO_WEIGHTS[kind](last, load_state(last_path(trained)))
    if last.is_file():
        message = refused(lambda: go_on(last), last)
        assert "remove it to begin this training anew" in message


@pytest.mark.parametrize("kind", OTHER_NETWORKS)
def test_what_is_another_network_may_only_start_an_encoder(kind, trained, tmp_path):
    best = best_path(tmp_path)
    OTHER_NETWORKS[kind](best, load_state(best_path(trained)))
    refused(lambda: load_network(best, CPU), best)
    network = small()
    load_encoder(network, MODEL, str(best))
    source = load_state(best_path(trained))["network"][WEIGHT]
    assert network.encoder.conv1.weight.allclose(source, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", [*OTHER_TRAININGS, "half", "double", "module."])
def test_what_is_another_training_never_goes_on(kind, trained, tmp_path):
    last = last_path(tmp_path)
    write = {**OTHER_TRAININGS, **OTHER_NETWORKS}[kind]
    write(last, load_state(last_path(trained)))
    before = last.read_bytes()
    message = refused(lambda: go_on(last), last)
    assert "remove it to begin this training anew" in message
    assert last.read_bytes() == before


def test_the_optimizer_of_another_network_is_refused(trained, tmp_path):
    train(tmp_path / "wide", network=ResUNet(MODEL, 1, width=0.2), epochs=1)
    other = load_state(last_path(tmp_path / "wide"))["optimizer"]
    torch.save(load_state(last_path(trained)) | {"optimizer": other}, last_path(tmp_path))
    last = last_path(tmp_path)
    message = refused(lambda: go_on(last), last)
    assert "optimizer" in message


@pytest.mark.parametrize("change", [{"score": None}, {"score": float("nan")}, {"scores": [1]},
                                    {"scores": {"threshold": "x"}}])  # fmt: skip
def test_a_best_checkpoint_tells_its_scores(trained, change):
    state, path = load_state(best_path(trained)), best_path(trained)
    assert scores_of(state, path) == {"score": 0.0}
    refused(lambda: scores_of(state | change, path), path)


def test_the_threshold_of_a_checkpoint_is_a_probability(trained):
    options, path = (
        parse(Options, "", ["--auto-threshold", "--threshold", "0.4"]),
        best_path(trained),
    )
    state = load_state(path)
    assert threshold_of(options, load_state(last_path(trained)), path) == 0.4
    assert threshold_of(options, state | {"scores": {"threshold": 0.2}}, path) == 0.2
    for wrong in (7.0, float("nan"), "x"):
        refused(
            lambda w=wrong: threshold_of(options, state | {"scores": {"threshold": w}}, path), path
        )


def test_a_training_says_that_it_goes_on_with_other_threads(trained, tmp_path, capsys):
    state = load_state(last_path(trained))
    assert state["threads"] == torch.get_num_threads()
    for threads, told in ((state["threads"], False), (None, False), (999, True)):
        torch.save(state | {"threads": threads}, last_path(tmp_path))
        assert go_on(last_path(tmp_path)) == (1, 0.0)
        assert ("of a batch instead of 999" in capsys.readouterr().out) == told
