"""The training loop: resumed equals uninterrupted, bad losses stop, the best is kept."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from code_common.errors import InputError
from code_common.files.reading import read_table
from code_common.learning.checkpoints import load_state
from code_common.learning.crops import CropDataset
from code_common.learning.hardware import choose_device, choose_precision
from code_common.learning.network import ResUNet
from code_common.learning.training import (
    Recipe,
    calibrate_norms,
    fit,
    remove_unfinished,
    train_members,
)
from code_common.learning.transforms import Augmentation

IMAGE = np.random.default_rng(0).integers(0, 255, (48, 80, 3), np.uint8)
CPU = torch.device("cpu")


def loss_fn(logits, batch):
    error = (logits[:, 0] - batch["target"]).square()
    one = torch.tensor(1)
    return {"mse": (error.sum(), torch.tensor(error.numel())), "zero": (logits.sum() * 0, one)}


def train(folder, epochs=4, workers=0, validate=None, loss=loss_fn, seed=0, **recipe):
    torch.manual_seed(seed)
    network = ResUNet("resnet18", 1)

    def make_crop(index, warp):
        crop = warp.image(IMAGE)
        return {"image": crop, "target": crop.mean(-1).astype(np.float32) / 255}

    dataset = CropDataset([IMAGE.shape[:2]], make_crop, Augmentation(32), 40, 1)
    recipe = Recipe("resnet18", epochs, 2, 1e-3, 1e-4, 1, workers, 1, torch.float32, **recipe)
    fit(network, dataset, ["tile"], loss, validate, recipe, CPU, folder, "t", lambda _: None)
    return network


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.values(), b.values(), strict=True))


class Killed(Exception):
    pass


def test_a_killed_run_goes_on_and_ends_with_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr("code_common.learning.training.SAVE_EVERY_S", -1.0)  # after each epoch
    whole = train(tmp_path / "whole", schedule="cosine")

    calls = []

    def killing(logits, batch):
        calls.append(1)
        if len(calls) == 6:  # in the middle of the third of four epochs
            raise Killed
        return loss_fn(logits, batch)

    with pytest.raises(Killed):
        train(tmp_path / "cut", loss=killing, schedule="cosine")
    assert len(read_table(tmp_path / "cut" / "log.csv")["epoch"]) == 2
    resumed = train(tmp_path / "cut", schedule="cosine")
    assert same(whole.state_dict(), resumed.state_dict())
    logs = [read_table(tmp_path / n / "log.csv") for n in ("whole", "cut")]
    assert np.array_equal(logs[0]["loss"], logs[1]["loss"])
    states = [load_state(tmp_path / n / "best.pt")["network"] for n in ("whole", "cut")]
    assert same(*states)


def test_a_run_never_goes_on_with_another_recipe(tmp_path):
    train(tmp_path, 2)
    before = (tmp_path / "last.pt").read_bytes()
    with pytest.raises(InputError, match="last.pt: holds a training with dropout 0.0, not 0.5"):
        train(tmp_path, 3, dropout=0.5)
    assert (tmp_path / "last.pt").read_bytes() == before
    train(tmp_path, 3)  # more epochs are no other recipe
    train(tmp_path / "cosine", 2, schedule="cosine")
    with pytest.raises(InputError, match="holds a training with epochs 2, not 3"):
        train(tmp_path / "cosine", 3, schedule="cosine")  # its rates would have been others


def test_the_rate_is_constant_or_falls_to_0():
    recipe = Recipe("resnet18", 8, 2, 1e-3, 0, 1, 0, 1, torch.float32)
    assert {recipe.rate(epoch) for epoch in range(8)} == {1e-3}
    falling = [replace(recipe, schedule="cosine").rate(epoch) for epoch in range(9)]
    assert falling[0] == 1e-3 and falling[4] == pytest.approx(5e-4) and falling[8] < 1e-12
    assert falling == sorted(falling, reverse=True)


def test_two_runs_are_equal_whatever_the_workers(tmp_path):
    a, b = train(tmp_path / "a", 2), train(tmp_path / "b", 2, workers=2)
    assert same(a.state_dict(), b.state_dict())


def train_three(folder, stop_at=None):
    """An ensemble of three whose validation score is the mean of its head's biases."""

    def train_one(member, own, title):
        if member == stop_at:
            raise Killed
        told.append(title)
        score = iter([0.1 * (member + 1), 0.4])
        train(own, 2, validate=lambda: {"score": next(score)}, seed=member)
        return {"used": member}

    def validating(network):
        bias = np.mean([one.head.bias.item() for one in network.networks])
        return lambda: {"score": float(bias), "threshold": 0.3}

    told = []
    used = train_members(folder, "t", 3, train_one, validating, "resnet18", CPU, told.append)
    return used, told


def test_the_members_of_an_ensemble_become_one_checkpoint(tmp_path):
    used, told = train_three(tmp_path)
    assert used == {"used": 2}
    assert told[:3] == [f"t, network {k} of 3" for k in (1, 2, 3)]
    assert told[3].startswith("t, all 3 networks together  val threshold 0.300")
    members = [load_state(tmp_path / f"member_{k}" / "best.pt") for k in (1, 2, 3)]
    joined = load_state(tmp_path / "best.pt")
    for k, state in enumerate(members):
        own = {name: joined["network"][f"networks.{k}.{name}"] for name in state["network"]}
        assert same(own, state["network"])
    biases = [state["network"]["head.bias"].item() for state in members]
    assert len(set(biases)) == 3  # other first weights
    assert joined["score"] == pytest.approx(np.mean(biases))
    assert joined["scores"]["threshold"] == 0.3
    log = read_table(tmp_path / "log.csv")
    assert log["epoch"].tolist() == [0, 1]
    assert log["val_score"] == pytest.approx([0.2, 0.4])  # the mean of the members'


def test_an_ensemble_that_was_killed_trains_no_member_again(tmp_path):
    train_three(tmp_path / "whole")
    with pytest.raises(Killed):
        train_three(tmp_path / "cut", stop_at=2)
    assert not (tmp_path / "cut" / "best.pt").exists()
    before = [(tmp_path / f"cut/member_{k}/best.pt").stat().st_mtime_ns for k in (1, 2)]
    train_three(tmp_path / "cut")
    after = [(tmp_path / f"cut/member_{k}/best.pt").stat().st_mtime_ns for k in (1, 2)]
    assert before == after
    states = [load_state(tmp_path / n / "best.pt")["network"] for n in ("whole", "cut")]
    assert same(*states)
    remove_unfinished(tmp_path / "cut")
    assert not list((tmp_path / "cut").rglob("last.pt"))
    assert len(list((tmp_path / "cut").rglob("best.pt"))) == 4


def test_a_single_member_is_trained_as_ever(tmp_path):
    def train_one(member, own, title):
        assert (member, own, title) == (0, tmp_path, "t")
        return {"used": "x"}

    assert train_members(tmp_path, "t", 1, train_one, None, "resnet18", CPU) == {"used": "x"}


def test_the_best_epoch_is_kept(tmp_path):
    scores = iter([0.1, 0.9, 0.3, 0.2])
    train(tmp_path, validate=lambda: {"score": next(scores)})
    best = load_state(tmp_path / "best.pt")
    assert best["epoch"] == 1 and best["score"] == 0.9
    assert read_table(tmp_path / "log.csv")["val_score"].tolist() == [0.1, 0.9, 0.3, 0.2]


def test_a_loss_that_is_not_finite_stops_and_names_the_images(tmp_path):
    calls = []

    def breaking(logits, batch):
        calls.append(1)
        bad = float("nan") if len(calls) > 2 else 1.0
        one = torch.tensor(1)
        return {"good": (logits.mean() * 0, one), "bad": (logits.square().mean() * bad, one)}

    with pytest.raises(InputError, match=r"epoch 2/4.*bad.*tile"):
        train(tmp_path, loss=breaking, validate=lambda: {"score": 0.5})
    assert load_state(tmp_path / "best.pt")["epoch"] == 0


def test_norms_are_calibrated_on_many_batches():
    """A channel that is active in one batch of eight keeps a variance that inference can bear."""
    network = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.BatchNorm2d(3))
    quiet, loud = (torch.full((2, 8, 8, 3), v, dtype=torch.uint8) for v in (0, 0))
    loud[0, :4] = 255
    batches = [{"image": loud}] + 7 * [{"image": quiet}]
    recipe = Recipe("resnet18", 1, 2, 1e-3, 0, 1, 0, 1, torch.float32)
    network.train()
    for batch in batches:
        network(batch["image"].permute(0, 3, 1, 2).float() / 255)
    calibrate_norms(network, batches, recipe, CPU)
    one = (torch.arange(128) < 32).float().var().item()  # of the loud batch
    assert network[1].running_var.tolist() == pytest.approx([one / 8] * 3, rel=1e-4)
    assert network[1].momentum == 0.1


def test_devices_and_precisions():
    assert choose_device("auto").type in ("cpu", "cuda", "mps")
    assert choose_precision("bf16", CPU) == torch.bfloat16
    assert choose_precision("fp32", CPU) == torch.float32
    with pytest.raises(InputError, match="--device nonsense"):
        choose_device("nonsense")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="--device cuda"):
            choose_device("cuda")


def test_the_log_says_where_the_time_goes(tmp_path):
    train(tmp_path, 2)
    log = read_table(tmp_path / "log.csv")
    shares = sum(log[f"{part}_share"] for part in ("data", "forward", "backward"))
    assert shares == pytest.approx([1, 1], abs=1e-4) and (log["images_per_s"] > 0).all()


def test_scalars_for_tensorboard(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    recipe = {"tensorboard": True}
    train(tmp_path, 2, validate=lambda: {"score": 0.5}, **recipe)
    train(tmp_path, 3, validate=lambda: {"score": 0.5}, **recipe)  # goes on
    events = reader.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [e.step for e in events.Scalars("loss")] == [0, 1, 2]
    log = read_table(tmp_path / "log.csv")
    assert [e.value for e in events.Scalars("loss")] == pytest.approx(log["loss"], rel=1e-5)
    assert "val/score" in events.Tags()["scalars"]


def test_without_tensorboard_the_option_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match="--tensorboard: not installed"):
        train(tmp_path, 1, tensorboard=True)


@pytest.mark.slow
def test_a_compiled_step_trains_alike(tmp_path):
    train(tmp_path / "plain", 1)
    train(tmp_path / "compiled", 1, compile=True)
    plain, fast = (read_table(tmp_path / n / "log.csv")["loss"] for n in ("plain", "compiled"))
    assert fast == pytest.approx(plain, rel=0.02)
