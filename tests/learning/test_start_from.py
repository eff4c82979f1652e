"""--start-from: training begins where a packed model ended."""

import shutil

import pytest
import torch
from conftest import both_stages, link_run, run_here

from code_common.errors import InputError
from code_common.files.reading import read_json
from code_common.files.writing import write_bytes
from code_common.inference.trained_run import pack_run
from code_common.launch import load_first_weights
from code_common.learning.checkpoints import checkpoint_bytes, load_state
from code_common.learning.network import OUTPUTS, ResUNet
from code_detection.options import Options
from data import check


@pytest.fixture
def model(experiment, tmp_path):
    path = tmp_path / "model.pt"
    write_bytes(path, checkpoint_bytes(pack_run(experiment.root / "repeat_1")))
    return path


def started(model, stage, encoder="resnet18", width=0.25, **shape):
    """A network after it was given its first weights, and the words about them."""
    network = ResUNet(encoder, OUTPUTS[stage], width=width, **shape)
    # "imagenet": it would be looked for, and in vain, if the model did not come first.
    options = Options(start_from=model, pretrained="imagenet", model=encoder)
    return network, load_first_weights(network, options, stage)


@pytest.mark.parametrize("stage", ["detection", "segmentation"])
def test_a_network_starts_with_all_weights_of_its_stage(model, stage, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    network, said = started(model, stage)
    found, wanted = network.state_dict(), load_state(model)[stage]["network"]
    assert set(found) == set(wanted)  # with the colours that these weights are used to
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert said == "model: model.pt"


@pytest.mark.parametrize(
    "other", [{"width": 1.0}, {"stem_stride": 1}, {"encoder": "resnet34"}], ids=str
)
def test_another_network_is_refused_with_its_flags(model, other):
    flags = "give --model resnet18 --width 0.25 --stem-stride 2, or the --profile"
    with pytest.raises(InputError, match=flags):
        started(model, "detection", **other)


def test_a_model_of_one_stage_is_refused_for_the_other(model):
    state = load_state(model)
    del state["detection"]
    write_bytes(model, checkpoint_bytes(state))
    started(model, "segmentation")
    with pytest.raises(InputError, match=r"model\.pt: holds no network of the detection"):
        started(model, "detection")


@pytest.mark.parametrize(
    ("name", "said"), [("x.pt", "no exported run"), ("no.pt", "--start-from no.pt: no such file")]
)
def test_a_wrong_file_is_found_before_stage_1(dataset, tmp_path, monkeypatch, name, said):
    torch.save({"a": torch.zeros(1)}, tmp_path / "x.pt")
    monkeypatch.chdir(tmp_path)
    given = ["--dataset", "tiny", "--data-root", "data", "--root-save-dir", "out", "--seg"]
    with pytest.raises(InputError, match=said):
        check.check_named_files(check.read_arguments([*given, "--start-from", name]))


def test_a_run_goes_on_without_its_model_but_not_with_another(experiment, model, tmp_path):
    link_run(experiment, tmp_path)
    shutil.rmtree(tmp_path / "out")
    given = both_stages(tmp_path, "--start-from", model, rounds=0)[0]
    run_here("code_detection", "main", *given)
    folder = tmp_path / "out/tiny/ratio_0.5/repeat_1/detection"
    assert read_json(folder / "options.json")["pretrained_loaded"] == "model: model.pt"
    before, state = (folder / "round_0/best.pt").stat(), load_state(model)
    model.unlink()
    run_here("code_detection", "main", *given)
    assert (folder / "round_0/best.pt").stat() == before
    state["detection"]["network"]["head.bias"] += 1
    write_bytes(model, checkpoint_bytes(state))
    with pytest.raises(InputError, match=r"model\.pt, have changed since this run began"):
        run_here("code_detection", "main", *given)
