"""The dense CRF loss: every kernel against the obvious one, the value against its gradient."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from crf_twins import brute_filter, brute_loss, lattice_twin, tissue

from code_seg.crf_loss import crf_loss
from code_seg.crf_loss.crf_loss import available, choose_backend, dense_crf_loss, gaussian_filter
from code_seg.crf_loss.low_rank import low_rank_filter

NATIVE = pytest.mark.skipif(bool(crf_loss.NATIVE_ABSENT), reason=crf_loss.NATIVE_ABSENT)
BACKENDS = [
    pytest.param("lattice", marks=NATIVE),
    pytest.param("exact", marks=NATIVE),
    "torch",
]
CPU = torch.device("cpu")


@NATIVE
@pytest.mark.parametrize("seed", range(3))
def test_the_lattice_equals_its_obvious_twin(seed):
    image, logits = tissue(1, 20, 22, seed=seed)
    ours = gaussian_filter(image, logits, 4.0, 0.2, "lattice")[0]
    twin = lattice_twin(image[0].numpy(), logits[0].numpy(), 4.0, 0.2)
    assert np.abs(ours.numpy() - twin).max() < 1e-9 * np.abs(twin).max()


@NATIVE
def test_exact_equals_brute_force_where_the_window_covers_the_image():
    image, logits = tissue()
    ours = gaussian_filter(image, logits, 9.0, 0.1, "exact")
    assert torch.allclose(ours, brute_filter(image, logits, 9.0, 0.1), rtol=1e-10)


@NATIVE
@pytest.mark.parametrize("shape", [(24, 28), (1, 37), (70, 3), (5, 5), (150, 450)])
def test_low_rank_in_c_equals_that_in_pytorch(shape):
    """The same landmarks and nodes: equal but for what nodes leave out beyond their reach."""
    image, values = tissue(2, *shape)
    ours, residual = torch.ops.crf_loss.low_rank_filter(image, values, 4.0, 0.15, 1e-3, 160)
    twin, worst = low_rank_filter(image, values, 4.0, 0.15)
    assert residual.max().item() < 1e-3
    assert worst == pytest.approx(residual.max().item(), rel=0.5)
    assert (ours - twin).norm() < 2e-3 * twin.norm()


@NATIVE
def test_low_rank_takes_the_landmarks_that_an_image_needs():
    """A batch of a plain image, tissue, and noise: each as if it were alone."""
    image, values = tissue(3, 40, 40, dtype=torch.float32)
    image[0] = 0.5
    image[2] = torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(0))
    together = gaussian_filter(image, values, 6.0, 0.1, "exact")
    alone = [
        gaussian_filter(i[None], v[None], 6.0, 0.1, "exact")
        for i, v in zip(image, values, strict=True)
    ]
    assert torch.equal(together, torch.cat(alone))
    true = brute_filter(image, values, 6.0, 0.1)
    assert (together - true).norm() < 2e-3 * true.norm()
    _, residual = torch.ops.crf_loss.low_rank_filter(image, values, 6.0, 0.1, 1e-3, 160)
    assert residual[0] < 1e-6 and residual[1] < 1e-3 < residual[2]


def test_low_rank_is_close_to_brute_force():
    image, logits = tissue(dtype=torch.float32)
    ours, residual = low_rank_filter(image, logits, 9.0, 0.1)
    true = brute_filter(image, logits, 9.0, 0.1)
    assert residual < 1e-3 and (ours - true).norm() < 2e-3 * true.norm()


@NATIVE
def test_exact_is_exact_where_low_rank_is_not():
    """An image of noise: the residual says that the features are too few."""
    noise = torch.rand(1, 3, 30, 30, generator=torch.Generator().manual_seed(0))
    values = torch.randn(1, 2, 30, 30, generator=torch.Generator().manual_seed(1))
    true = brute_filter(noise, values, 9.0, 0.1)
    ours, residual = low_rank_filter(noise, values, 9.0, 0.1)
    assert residual > 1e-3 and (ours - true).norm() > 0.05 * true.norm()
    exact = gaussian_filter(noise, values, 9.0, 0.1, "exact")
    assert (exact - true).norm() < 1e-5 * true.norm()


def real_crops(mo, size=56):
    from code_common.files.data_set import load_split
    from code_common.files.images import read_image

    tiles = [read_image(s.image) for s in load_split(mo)["train"][::4]]
    crops = np.stack([t[300 : 300 + size, 400 : 400 + size] for t in tiles])
    return torch.from_numpy(crops).permute(0, 3, 1, 2).double() / 255


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_on_real_tiles(mo, backend):
    """'exact' and 'torch': within 0.1 % of the kernel; 'lattice': 0.58 of it, within 15 %."""
    image = real_crops(mo).float()
    smooth = torch.nn.functional.avg_pool2d(torch.randn(3, 2, 64, 64), 9, 1) * 9
    prob = smooth.softmax(1)
    mask = torch.ones(3, 56, 56)
    gradients = []
    for loss in (brute_loss, lambda *a: dense_crf_loss(*a, backend=backend)):
        p = prob.clone().requires_grad_()
        loss(p, image, mask, 9.0, 0.1).backward()
        gradients.append(p.grad.double().flatten())
    true, ours = gradients
    if backend == "lattice":
        scale = (true @ ours) / (ours @ ours)
        assert 1 / 0.66 < scale < 1 / 0.5
        assert (scale * ours - true).norm() < 0.15 * true.norm()
    else:
        assert (ours - true).norm() < 1e-3 * true.norm()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("classes", [2, 3])
def test_value_and_gradient_are_of_one_function(backend, classes):
    """D6: true autograd, no factor of two: gradcheck in float64."""
    image, logits = tissue(2, 7, 9)
    logits = torch.cat([logits, logits[:, :1] * 0.3], 1)[:, :classes].requires_grad_()
    mask = torch.ones(2, 7, 9, dtype=torch.float64)
    mask[0, :2] = 0

    def loss(x):
        return dense_crf_loss(x.softmax(1), image, mask, 3.0, 0.3, backend)

    assert torch.autograd.gradcheck(loss, logits, atol=1e-7)


@NATIVE
def test_the_value_is_the_definition():
    """D6: every class counts."""
    image, logits = tissue()
    mask = (torch.rand(2, 24, 28, generator=torch.Generator().manual_seed(1)) > 0.3).double()
    prob = logits.softmax(1)
    ours = dense_crf_loss(prob, image, mask, 9.0, 0.1, "exact")
    assert ours.item() == pytest.approx(brute_loss(prob, image, mask, 9.0, 0.1).item(), rel=1e-10)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_filter_is_symmetric(backend):
    image, logits = tissue(dtype=torch.float64)
    a, b = logits[:, :1], logits[:, 1:]
    left = (b * gaussian_filter(image, a, 5.0, 0.15, backend)).sum()
    right = (a * gaussian_filter(image, b, 5.0, 0.15, backend)).sum()
    assert left.item() == pytest.approx(right.item(), rel=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_invariances(backend):
    image, logits = tissue()
    prob = logits.softmax(1)

    def loss(p, i, **arguments):
        return dense_crf_loss(p, i, sigma_xy=5.0, sigma_rgb=0.2, backend=backend, **arguments)

    both = loss(prob, image)
    single = (loss(prob[:1], image[:1]) + loss(prob[1:], image[1:])) / 2
    assert both.item() == pytest.approx(single.item(), rel=2e-3)  # the rank is the batch's
    assert loss(prob.flip(1), image).item() == pytest.approx(both.item(), rel=1e-9)
    hard = torch.zeros_like(prob)
    hard[:, 0] = 1
    assert loss(hard, image).item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_pixels_without_a_mask_do_not_exist(backend):
    image, logits = tissue()
    prob = logits.softmax(1)
    mask = torch.ones(2, 24, 28)
    mask[:, :, 20:] = 0
    changed = prob.clone()
    changed[..., 20:] = changed[..., 20:].flip(1)
    losses = [dense_crf_loss(p, image, mask, 5.0, 0.2, backend).item() for p in (prob, changed)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    p = prob.clone().requires_grad_()
    dense_crf_loss(p, image, mask, 5.0, 0.2, backend).backward()
    assert (p.grad[..., 20:] == 0).all() and (p.grad[..., :20] != 0).any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_edge_cases(backend):
    image, logits = tissue(dtype=torch.float32)
    prob = logits.softmax(1)
    empty = dense_crf_loss(prob, image, torch.zeros(2, 24, 28), backend=backend)
    assert empty.item() == 0
    one = dense_crf_loss(torch.full((1, 2, 1, 1), 0.5), torch.rand(1, 3, 1, 1), backend=backend)
    assert 0 <= one.item() < 1
    constant = dense_crf_loss(prob, torch.full_like(image, 0.5), backend=backend)
    noise = dense_crf_loss(prob, torch.rand_like(image), backend=backend)
    assert constant.item() > noise.item() > 0  # alike pixels pull, unlike ones do not
    strided = image.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert not strided.is_contiguous()
    again = dense_crf_loss(prob.expand(2, 2, 24, 28), strided, backend=backend)
    assert again.item() == pytest.approx(dense_crf_loss(prob, image, backend=backend).item())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(backend, dtype):
    image, logits = tissue(dtype=torch.float32)
    prob = logits.softmax(1).to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = dense_crf_loss(prob, image, backend=backend)
    loss.backward()
    assert loss.dtype == torch.float32 and prob.grad.dtype == dtype
    assert torch.isfinite(prob.grad).all()


@NATIVE
@pytest.mark.parametrize(
    "op, more", [("lattice_filter", ()), ("window_filter", (4,)), ("low_rank_filter", (1e-3, 90))]
)
def test_operators_follow_the_rules_of_torch_library(op, more):
    """D31."""
    image, logits = tissue(1, 6, 7)
    arguments = (image, logits.requires_grad_(), 3.0, 0.3, *more)
    torch.library.opcheck(getattr(torch.ops.crf_loss, op).default, arguments)


@NATIVE
@pytest.mark.parametrize("backend", ["lattice", "exact"])
def test_threads_change_nothing(backend):
    image, logits = tissue(1, 400, 420, dtype=torch.float32)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(gaussian_filter(image, logits, 9.0, 0.1, backend))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)


@NATIVE
def test_the_first_loss_of_a_thread_leaves_its_number_of_threads():
    """Else the bits of a run depend on whether the pool of another thread began before it."""
    image, logits = tissue(1, 200, 300, dtype=torch.float32)
    before = torch.get_num_threads()

    def own_threads(number, of_others):
        torch.set_num_threads(of_others)  # takes the place of the number that others set last
        with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(number,)) as pool:
            pool.submit(torch.get_num_threads).result()
            torch.set_num_threads(of_others)
            for backend in ("lattice", "exact"):
                pool.submit(gaussian_filter, image, logits, 9.0, 0.1, backend).result()
            return pool.submit(torch.get_num_threads).result()

    try:
        assert own_threads(2, of_others=1) == 2 and own_threads(1, of_others=2) == 1
    finally:
        torch.set_num_threads(before)


@NATIVE
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
def test_features_out_of_range_are_an_error_not_a_crash(bad):
    image, logits = tissue(1, 8, 8, dtype=torch.float32)
    image[0, 1, 3, 3] = bad
    with pytest.raises(ValueError, match="range"):
        gaussian_filter(image, logits, 9.0, 0.1, "lattice")
    if not np.isfinite(bad):
        with pytest.raises(ValueError, match="finite"):
            gaussian_filter(image, logits, 9.0, 0.1, "exact")


@NATIVE
def test_wrong_tensors_are_refused():
    image, logits = tissue(1, 8, 8)
    wrong = [
        (image[:, :2], logits),
        (image, logits[..., :5]),
        (image.float(), logits),
        (image[0], logits),
        (image, logits.transpose(2, 3)),
    ]
    for (i, v), op in itertools.product(wrong, ("lattice_filter", "window_filter")):
        with pytest.raises(RuntimeError):
            extra = (4,) if op == "window_filter" else ()
            getattr(torch.ops.crf_loss, op)(i, v, 9.0, 0.1, *extra)
    with pytest.raises(ValueError, match="image"):
        dense_crf_loss(logits.softmax(1), image[..., :5])
    with pytest.raises(ValueError, match="mask"):
        dense_crf_loss(logits.softmax(1), image, torch.ones(8, 8))


def test_without_the_extension_pytorch_serves_and_says_so(monkeypatch, caplog):
    monkeypatch.setattr(crf_loss, "NATIVE_ABSENT", "the extension is not built")
    assert choose_backend("lattice", CPU) == "torch"
    assert len(caplog.records) == 1 and "not built" in caplog.text
    assert choose_backend("torch", CPU) == "torch" and len(caplog.records) == 1
    assert "expected one of" in available("fast", CPU)
