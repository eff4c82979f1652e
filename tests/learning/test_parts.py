"""A batch in parts: the gradients of the whole loss, norms of each part, bits of any cores."""

import copy

import pytest
import torch
import torch.nn.functional as F
from tiny_training import CPU, scores_of, train

from code_common.errors import InputError
from code_common.files.run_folder import best_path, last_path
from code_common.learning.checkpoints import load_state
from code_common.learning.network import ResUNet
from code_common.learning.parts import Parts, threads_of_a_part


@pytest.fixture
def threads():
    """A function that sets the threads of this process, until the test ends."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def network():
    torch.manual_seed(0)
    return ResUNet("resnet18", 2, width=0.125).train()


def step(parts, images):
    """Gradients of the mean square of the logits, from the parts of a batch."""
    losses = parts.map(
        lambda net, part: net(part).square().sum() / images.numel(), parts.cut(images)
    )
    parts.map(lambda _, loss: loss.backward(), losses)
    parts.add_gradients()
    return [p.grad.clone() for p in parts.plain[0].parameters()]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(("images", "count"), [(4, 2), (5, 2), (5, 3), (1, 2), (2, 8)])
def test_the_gradients_are_the_sum_of_those_of_the_parts(threads, images, count):
    """A plain network, given the parts one after another, gathers the same gradients."""
    threads(1)
    batch, plain = torch.rand(images, 3, 64, 64), network()
    parts = Parts(copy.deepcopy(plain), count)
    sizes = [len(part) for part in parts.cut(batch)]
    assert sum(sizes) == images and len(sizes) == min(images, count) and max(sizes) - min(sizes) < 2
    for part in parts.cut(batch):
        (plain(part).square().sum() / batch.numel()).backward()
    of_plain = [p.grad for p in plain.parameters()]
    for one, other in zip(step(parts, batch), of_plain, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-7)


def test_the_weights_are_one_and_the_gradients_leave_nothing_behind(threads):
    threads(1)
    parts, batch = Parts(network(), 2), torch.rand(4, 3, 64, 64)
    optimizer = torch.optim.Adam(parts.plain[0].parameters(), lr=0.01, fused=True)
    for _ in range(2):
        optimizer.zero_grad(set_to_none=True)
        first = step(parts, batch)
        optimizer.zero_grad(set_to_none=True)
        assert same(first, step(parts, batch))
        optimizer.step()
        assert same(*(list(one.parameters()) for one in parts.plain))


@pytest.mark.parametrize("count", [2, 3])
def test_the_bits_do_not_depend_on_the_cores(threads, count):
    batch, found = torch.rand(6, 3, 64, 64), []
    for cores in (1, 2, 3):
        threads(cores)
        parts = Parts(network(), count)
        assert (parts.pool is None) == (cores == 1)
        found.append(step(parts, batch))
        assert torch.get_num_threads() == cores
    assert same(found[0], found[1]) and same(found[0], found[2])


def test_a_part_has_its_share_of_the_threads(threads):
    threads(4)
    parts = Parts(network(), 2)
    assert parts.map(lambda _, __: torch.get_num_threads(), [0, 0]) == [2, 2]
    assert threads_of_a_part(2, CPU) == 2 and threads_of_a_part(8, CPU) == 1
    assert torch.get_num_threads() == 4


def test_what_a_part_raises_is_raised(threads):
    threads(2)

    def wrong(_, part):
        raise InputError(f"part {part}")

    with pytest.raises(InputError, match="part 0"):
        Parts(network(), 2).map(wrong, [0, 1])


def test_a_training_in_parts_has_equal_bits_on_one_and_two_cores(tmp_path, threads):
    """Weights and the norms' statistics; validations in between are part of it."""
    states = []
    for cores in (1, 2):
        threads(cores)
        folder = tmp_path / str(cores)
        train(folder, validate=scores_of(0.1, 0.2, 0.3, 0.4), batch_size=4, batch_parts=2)
        states.append(load_state(best_path(folder))["network"].values())
    assert same(*states)


def test_parts_have_norms_of_their_own(tmp_path, threads):
    threads(1)
    for count in (1, 2):
        train(tmp_path / str(count), batch_size=4, batch_parts=count)
    one, two = (load_state(last_path(tmp_path / n))["network"] for n in "12")
    assert not same(one.values(), two.values())


def test_a_training_does_not_go_on_in_other_parts(tmp_path, monkeypatch):
    monkeypatch.setattr("code_common.learning.training.SAVE_EVERY_S", -1.0)
    train(tmp_path, batch_size=4, batch_parts=2, epochs=2)
    with pytest.raises(InputError, match="batch_parts 2, not 1"):
        train(tmp_path, batch_size=4, batch_parts=1, epochs=4)


def test_the_loss_of_a_part_is_that_of_the_whole_batch(threads):
    """Without batch norms the parts change nothing but the last bits."""
    threads(2)
    torch.manual_seed(0)
    plain = torch.nn.Conv2d(3, 2, 3)
    images = torch.rand(5, 3, 16, 16)
    whole = [p.grad for p in _trained(copy.deepcopy(plain), images, 1)]
    parts = [p.grad for p in _trained(copy.deepcopy(plain), images, 2)]
    for one, other in zip(whole, parts, strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-7)


def _trained(network, images, count):
    parts = Parts(network, count)
    losses = parts.map(
        lambda net, part: F.softplus(net(part)).sum() / len(images), parts.cut(images)
    )
    parts.map(lambda _, loss: loss.backward(), losses)
    parts.add_gradients()
    return network.parameters()
