"""What a loss returns: terms of several processes that add up to the loss of one."""

import pytest
import torch
import torch.nn.functional as F

from code_common.learning import distributed
from code_common.learning.loss_terms import LossTerm, add_terms, softplus
from code_detection.losses import masked_loss
from code_seg.losses import crf_loss, label_loss

CROPS, SIDE = 3, 12


def term(values):
    """The mean of a tensor as a term."""
    return LossTerm(sum=values.sum(), count=torch.tensor(values.numel()))


def test_the_loss_is_the_sum_of_the_means():
    terms = {"a": term(torch.tensor([1.0, 2.0, 6.0])), "b": term(torch.tensor([0.5]))}
    (loss,), values = add_terms([terms])
    assert values == {"a": 3.0, "b": 0.5}
    assert loss.item() == 3.5


def test_a_term_over_nothing_is_0():
    nothing = LossTerm(sum=torch.tensor(0.0), count=torch.tensor(0))
    (loss,), values = add_terms([{"known": term(torch.tensor([2.0])), "nothing": nothing}])
    assert values == {"known": 2.0, "nothing": 0.0}
    assert loss.item() == 2.0


def mse(logits, batch):
    return masked_loss(logits[:, :1], batch["target"], batch["weight"], "mse")


def bce(logits, batch):
    return masked_loss(logits[:, :1], batch["target"], batch["weight"], "bce")


def labels(logits, batch):
    return label_loss(logits, batch["voronoi"], batch["clusters"], alpha=0.3)


def crf(logits, batch):
    return crf_loss(
        logits,
        batch["image"],
        batch["weight"],
        weight=0.005,
        sigma_xy=3.0,
        sigma_rgb=0.1,
        backend="torch",
    )


LOSSES = {mse: {"mse"}, bce: {"bce"}, labels: {"voronoi", "cluster"}, crf: {"crf"}}


@pytest.fixture
def crops():
    """Logits and a batch of crops, of which each has something else that is unknown."""
    rng = torch.Generator().manual_seed(0)
    shape = CROPS, SIDE, SIDE
    batch = {
        "target": torch.rand(shape, generator=rng, dtype=torch.float64),
        "weight": (torch.rand(shape, generator=rng) < 0.5).double(),
        "voronoi": torch.randint(0, 3, shape, generator=rng).byte(),
        "clusters": torch.randint(0, 3, shape, generator=rng).byte(),
        "image": torch.rand(CROPS, 3, SIDE, SIDE, generator=rng, dtype=torch.float64),
    }
    logits = torch.randn(CROPS, 2, SIDE, SIDE, generator=rng, dtype=torch.float64)
    return logits, batch


def share_of(crops, part):
    """Some of the crops, and logits that know of their gradient."""
    logits, batch = crops
    return logits[part].clone().requires_grad_(), {k: v[part] for k, v in batch.items()}


@pytest.mark.parametrize("loss_fn", LOSSES)
def test_the_losses_of_both_stages_have_named_terms(crops, loss_fn):
    terms = loss_fn(*share_of(crops, slice(None)))
    assert set(terms) == LOSSES[loss_fn]
    assert all(value.count > 0 and torch.isfinite(value.sum) for value in terms.values())


@pytest.mark.parametrize("loss_fn", LOSSES)
@pytest.mark.parametrize("first_crops", [0, 1])
def test_the_losses_of_two_processes_add_up_to_that_of_one(
    crops, loss_fn, first_crops, monkeypatch
):
    """Also where the first process has no crop of a batch."""
    logits, batch = share_of(crops, slice(None))
    (loss,), values = add_terms([loss_fn(logits, batch)])
    loss.backward()

    shares = [share_of(crops, part) for part in (slice(0, first_crops), slice(first_crops, None))]
    sent = []  # by each process: its sums and counts

    def keep(sums_and_counts):
        sent.append(sums_and_counts)
        return sums_and_counts

    def add_up(_):
        return sent[0] + sent[1]

    monkeypatch.setattr(distributed, "add_up", keep)
    for share in shares:
        add_terms([loss_fn(*share)])
    monkeypatch.setattr(distributed, "add_up", add_up)
    losses = []
    for share in shares:
        (loss_of_share,), values_of_all = add_terms([loss_fn(*share)])
        loss_of_share.backward()
        losses.append(loss_of_share.item())
        assert values_of_all == pytest.approx(values, rel=1e-5)
    assert sum(losses) == pytest.approx(loss.item(), rel=1e-5)
    gradient = torch.cat([share_logits.grad for share_logits, _ in shares])
    assert torch.allclose(gradient, logits.grad, rtol=1e-5)


def test_softplus_is_right_of_any_logit():
    """At 0 its slope is 1/2; far from 0 nothing overflows."""
    logits = torch.tensor([-1000, -30, -1, 0, 1, 30, 1000]).double().requires_grad_()
    expected = torch.tensor([0, 0, 0.31326168751822286, 0.6931471805599453, 1.3132616875182228])
    assert torch.allclose(softplus(logits)[:5], expected.double(), atol=1e-7)
    assert softplus(logits)[5:].tolist() == pytest.approx([30, 1000], abs=1e-10)
    softplus(logits).sum().backward()
    assert torch.allclose(logits.grad, torch.sigmoid(logits), rtol=0, atol=1e-12)
    assert torch.autograd.gradcheck(softplus, torch.randn(9).double().requires_grad_())


def plain_labels(logits, batch):
    """`labels` with the cross entropies of torch."""
    kinds = {"voronoi": 0.3, "clusters": 0.7}
    return sum(
        weight * F.cross_entropy(logits, batch[kind].long(), ignore_index=2)
        for kind, weight in kinds.items()
    )


def plain_bce(logits, batch):
    known = batch["weight"]
    error = F.binary_cross_entropy_with_logits(logits[:, 0], batch["target"], reduction="none")
    return (known * error).sum() / known.sum()


@pytest.mark.parametrize(("loss_fn", "plain"), [(labels, plain_labels), (bce, plain_bce)])
def test_the_losses_are_the_cross_entropies_of_torch(crops, loss_fn, plain):
    logits, batch = share_of(crops, slice(None))
    means = [term.sum / term.count for term in loss_fn(logits, batch).values()]
    both = [sum(means), plain(logits, batch)]
    assert both[0].item() == pytest.approx(both[1].item(), abs=1e-10)
    one, other = (torch.autograd.grad(loss, logits)[0] for loss in both)
    assert torch.allclose(one, other, rtol=0, atol=1e-10)


def test_labels_without_a_known_pixel_give_a_loss_of_0():
    nothing = torch.full((1, 4, 4), 2, dtype=torch.uint8)
    logits = torch.randn(1, 2, 4, 4).requires_grad_()
    (loss,), values = add_terms([label_loss(logits, nothing, nothing, alpha=0.5)])
    loss.backward()
    assert values == {"voronoi": 0, "cluster": 0} and not logits.grad.any()
