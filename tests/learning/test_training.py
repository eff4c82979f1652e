"""The training loop: resumed equals uninterrupted, bad losses stop, the best is kept."""

import sys

import numpy as np
import pytest
import torch
from tiny_training import STEPS, recipe, scores_of, squared_error, train

from code_common.errors import InputError
from code_common.files.reading import read_table
from code_common.files.run_folder import best_path, last_path, log_path
from code_common.files.writing import write_bytes
from code_common.learning.checkpoints import load_state
from code_common.learning.loss_terms import LossTerm
from code_common.learning.parts import Parts


def same_weights(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.values(), b.values(), strict=True))


class Killed(Exception):
    pass


def loss_that_kills(step):
    """A loss that ends the training in this step, counted from 1."""
    steps = []

    def loss(logits, batch):
        steps.append(1)
        if len(steps) == step:
            raise Killed
        return squared_error(logits, batch)

    return loss


def test_a_killed_run_goes_on_and_ends_with_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr("code_common.learning.training.SAVE_EVERY_S", -1.0)  # after each epoch
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    uninterrupted = train(whole, schedule="cosine")
    in_the_third_epoch = 2 * STEPS + 2
    with pytest.raises(Killed):
        train(cut, loss_fn=loss_that_kills(in_the_third_epoch), schedule="cosine")
    assert len(read_table(log_path(cut))["epoch"]) == 2

    resumed = train(cut, schedule="cosine")
    assert same_weights(uninterrupted.state_dict(), resumed.state_dict())
    logs = [read_table(log_path(folder)) for folder in (whole, cut)]
    assert np.array_equal(logs[0]["loss"], logs[1]["loss"])
    assert same_weights(*(load_state(best_path(folder))["network"] for folder in (whole, cut)))


def test_a_run_that_goes_on_says_so_and_keeps_its_best_epoch(tmp_path, capsys):
    train(tmp_path, epochs=1, validate=scores_of(0.9))
    train(tmp_path, epochs=2, validate=scores_of(0.1))
    assert "t: going on after epoch 1 of 2" in capsys.readouterr().out
    assert load_state(best_path(tmp_path))["score"] == 0.9


def test_a_run_never_goes_on_with_another_recipe(tmp_path):
    train(tmp_path, epochs=2)
    before = last_path(tmp_path).read_bytes()
    with pytest.raises(InputError, match="last.pt: holds a training with dropout 0.0, not 0.5"):
        train(tmp_path, epochs=3, dropout=0.5)
    assert last_path(tmp_path).read_bytes() == before


OF = {"loss": "mse", "images": "of hash 1"}  # what a training is made of


@pytest.mark.parametrize(
    "other, said",
    [({"loss": "bce"}, "loss mse, not bce"), ({"images": "of hash 2"}, "images of hash 1, not of")],
)
@pytest.mark.parametrize("epochs", [2, 3])
def test_a_run_never_goes_on_with_another_loss_or_other_images(tmp_path, other, said, epochs):
    """Also where all its epochs are done: its network is not the one that is asked for."""
    train(tmp_path, epochs=2, made_of=OF)
    before = last_path(tmp_path).read_bytes()
    with pytest.raises(InputError, match=f"last.pt: holds a training with {said}"):
        train(tmp_path, epochs=epochs, made_of=OF | other)
    assert last_path(tmp_path).read_bytes() == before
    train(tmp_path, epochs=epochs, made_of=OF)


def test_a_run_of_an_older_version_does_not_tell_what_it_is_made_of(tmp_path):
    train(tmp_path, epochs=1)
    train(tmp_path, epochs=2, made_of=OF)
    with pytest.raises(InputError, match="holds a training with loss mse, not bce"):
        train(tmp_path, epochs=3, made_of=OF | {"loss": "bce"})


def test_another_number_format_is_said(tmp_path, capsys):
    train(tmp_path, epochs=1)
    train(tmp_path, epochs=2)
    assert "instead of" not in capsys.readouterr().out
    train(tmp_path, epochs=3, precision=torch.bfloat16)
    assert "t: goes on in bf16 instead of fp32" in capsys.readouterr().out


def test_more_epochs_are_another_recipe_where_the_rate_depends_on_them(tmp_path):
    constant, cosine = tmp_path / "constant", tmp_path / "cosine"
    train(constant, epochs=2)
    train(constant, epochs=3)
    train(cosine, epochs=2, schedule="cosine")
    with pytest.raises(InputError, match="holds a training with epochs 2, not 3"):
        train(cosine, epochs=3, schedule="cosine")


def test_the_rate_is_constant_or_falls_to_0():
    constant, cosine = (recipe(epochs=8, lr=1e-3, schedule=s) for s in ("constant", "cosine"))
    assert {constant.rate(epoch) for epoch in range(8)} == {1e-3}
    falling = [cosine.rate(epoch) for epoch in range(9)]
    assert falling[0] == 1e-3 and falling[4] == pytest.approx(5e-4) and falling[8] < 1e-12
    assert falling == sorted(falling, reverse=True)


def test_two_runs_are_equal_whatever_the_workers(tmp_path):
    a, b = (train(tmp_path / str(workers), epochs=2, workers=workers) for workers in (0, 2))
    assert same_weights(a.state_dict(), b.state_dict())


def test_the_best_epoch_is_kept(tmp_path):
    train(tmp_path, validate=scores_of(0.1, 0.9, 0.3, 0.2))
    best = load_state(best_path(tmp_path))
    assert best["epoch"] == 1 and best["score"] == 0.9
    assert read_table(log_path(tmp_path))["val_score"].tolist() == [0.1, 0.9, 0.3, 0.2]


def test_without_validation_the_last_epoch_is_the_best(tmp_path):
    for epochs in (1, 2):  # also of a training that goes on for longer
        train(tmp_path, epochs=epochs)
        assert load_state(best_path(tmp_path))["epoch"] == epochs - 1


def test_a_training_without_any_score_says_so(tmp_path):
    write_bytes(best_path(tmp_path), b"of a training whose last.pt was removed to begin anew")
    with pytest.raises(InputError, match=r"no epoch gave a score; see .*log\.csv"):
        train(tmp_path, epochs=2, validate=scores_of(float("nan"), float("nan")))
    assert not best_path(tmp_path).exists()


def test_a_loss_that_is_not_finite_stops_and_names_the_images(tmp_path):
    steps = []

    def breaking(logits, batch):
        steps.append(1)
        factor = float("nan") if len(steps) > STEPS else 1.0
        one = torch.tensor(1)
        return {
            "good": LossTerm(logits.mean() * 0, one),
            "bad": LossTerm(logits.square().mean() * factor, one),
        }

    with pytest.raises(InputError, match=r"epoch 2/4: the loss \(bad\) is not finite on tile"):
        train(tmp_path, loss_fn=breaking, validate=scores_of(0.5))
    assert load_state(best_path(tmp_path))["epoch"] == 0


@pytest.mark.parametrize("parts", [1, 2])
def test_norms_are_calibrated_on_many_batches(parts):
    """A channel that is active in one batch of eight keeps a variance that inference can bear."""
    network = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.BatchNorm2d(3))
    norm = network[1]
    quiet = torch.zeros((2, 3, 8, 8))
    loud = quiet.clone()
    loud[0, :, :4] = 1  # a quarter of its pixels
    batches = [loud] + 7 * [quiet]
    network.train()
    for batch in batches:
        network(batch)
    Parts(network, parts).calibrate_norms(batches, lambda network, part: network(part))
    pixels = 128 // parts  # of a part; the first one holds all that is loud
    of_the_loud_part = (torch.arange(pixels) < 32).float().var().item()
    expected = of_the_loud_part / 8 / parts
    assert norm.running_var.tolist() == pytest.approx([expected] * 3, rel=1e-4)
    assert norm.running_mean.tolist() == pytest.approx([32 / 128 / 8] * 3)
    assert norm.momentum == 0.1


def test_the_log_says_where_the_time_goes(tmp_path):
    train(tmp_path, epochs=2)
    log = read_table(log_path(tmp_path))
    shares = sum(log[f"{part}_share"] for part in ("data", "forward", "backward"))
    assert shares == pytest.approx([1, 1], abs=1e-4) and (log["images_per_s"] > 0).all()


def test_scalars_for_tensorboard(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(tmp_path, epochs=2, validate=scores_of(0.5, 0.5), tensorboard=True)
    train(tmp_path, epochs=3, validate=scores_of(0.5), tensorboard=True)  # goes on
    events = reader.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [e.step for e in events.Scalars("loss")] == [0, 1, 2]
    log = read_table(log_path(tmp_path))
    assert [e.value for e in events.Scalars("loss")] == pytest.approx(log["loss"], rel=1e-5)
    assert "val/score" in events.Tags()["scalars"]


def test_without_tensorboard_the_option_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match="--tensorboard: not installed"):
        train(tmp_path, epochs=1, tensorboard=True)


@pytest.mark.slow
def test_a_compiled_step_trains_alike(tmp_path):
    plain, compiled = tmp_path / "plain", tmp_path / "compiled"
    train(plain, epochs=1)
    train(compiled, epochs=1, compile=True)
    losses = [read_table(log_path(folder))["loss"] for folder in (plain, compiled)]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_a_training_beside_other_programs_says_so_once(tmp_path, monkeypatch, capsys):
    """And only of the threads that wait for each other."""

    class Busy:
        def advice(self, threads):
            asked.append(threads)
            return f"{threads} threads wait" if threads > 1 else ""

    asked = []
    monkeypatch.setattr("code_common.learning.training_log.Neighbours", Busy)
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        train(tmp_path / str(threads), validate=scores_of(0.1, 0.2, 0.3, 0.4))
        printed = capsys.readouterr().out.splitlines()
        assert printed.count("2 threads wait") == (threads == 2) and len(printed) == 3 + threads
    assert asked == [1, 1, 1, 1, 2]
