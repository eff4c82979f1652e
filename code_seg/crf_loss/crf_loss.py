"""The dense CRF loss (Tang et al., ECCV 2018; Qu et al. 2020, Eq. 5) and its true gradient.

    L = sum_k (m S_k)^T W (m (1 - S_k)) / sum(m),  mean over the batch

S_k are the probabilities of class k, and m is the mask of valid pixels. W is the Gaussian kernel
over (x, y) / sigma_xy and (r, g, b) / sigma_rgb. It includes its diagonal and is not normalised.
All kernels here are symmetric, so dL/dS_k = m (W m - 2 W (m S_k)) / sum(m). One pass that filters m
and m S_k gives both the value and the gradient.
"""

import logging
from pathlib import Path

import torch
from torch import Tensor

from code_seg.crf_loss.low_rank import MAX_RANK, TOLERANCE, low_rank_filter

BACKENDS = ("lattice", "exact", "torch")
# The published crf_weight was tuned with the permutohedral lattice, whose sum is smaller than that
# of the kernel it approximates. These factors make the gradients of the backends equally strong.
# Measured on a crop of each MO training tile, the lattice's gradient is 0.574 of the kernel's at
# sigma_rgb 0.1, and 0.570 at 0.2.
STRENGTH = {"lattice": 1.0, "exact": 0.57, "torch": 0.57}
WINDOW_SIGMAS = 4  # half side of the window of 'exact' in units of sigma_xy

_log = logging.getLogger(__name__)


def _load_native() -> str:
    """Load the native extension. Returns the reason if it cannot be loaded, otherwise ''."""
    built = sorted(Path(__file__).parent.glob("crf_loss_native*.so"))
    built += sorted(Path(__file__).parent.glob("crf_loss_native*.pyd"))
    if not built:
        try:
            import crf_loss_native  # noqa: F401  # installed with pip
        except ImportError:
            return "the extension is not built (see code_seg/crf_loss/setup.py)"
        return ""
    try:
        torch.ops.load_library(str(built[-1]))
    except OSError as error:
        reason = str(error).splitlines()[0]
        return f"the extension was built for another torch or Python, build it again ({reason})"
    return ""


NATIVE_ABSENT = _load_native()

if not NATIVE_ABSENT:
    _OPS = torch.ops.crf_loss

    @torch.library.register_fake("crf_loss::lattice_filter")
    def _(image, values, sigma_xy, sigma_rgb):
        return torch.empty_like(values)

    @torch.library.register_fake("crf_loss::window_filter")
    def _(image, values, sigma_xy, sigma_rgb, radius):
        return torch.empty_like(values)

    @torch.library.register_fake("crf_loss::low_rank_filter")
    def _(image, values, sigma_xy, sigma_rgb, tolerance, max_rank):
        return torch.empty_like(values), image.new_empty(len(image), dtype=torch.float64)

    def _register_autograd(op) -> None:
        """Register the gradient. The kernels are symmetric, so each filter is its own adjoint."""

        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(inputs[0])
            ctx.arguments = inputs[2:]

        def backward(ctx, grad, *grad_of_residual):
            (image,) = ctx.saved_tensors
            back = op(image, grad.contiguous(), *ctx.arguments)
            back = back[0] if isinstance(back, tuple) else back
            return None, back, *[None] * len(ctx.arguments)

        torch.library.register_autograd(op, backward, setup_context=setup_context)

    for _op in (_OPS.lattice_filter, _OPS.window_filter, _OPS.low_rank_filter):
        _register_autograd(_op.default)


def available(backend: str, device: torch.device) -> str:
    """The reason why a backend cannot run on a device, or '' if it can."""
    if backend not in BACKENDS:
        return f"expected one of {', '.join(BACKENDS)}"
    if backend == "torch":
        return ""
    if NATIVE_ABSENT:
        return NATIVE_ABSENT
    key = device.type.upper()
    if not torch._C._dispatch_has_kernel_for_dispatch_key("crf_loss::window_filter", key):
        return f"the extension was built without kernels for {device.type}"
    return ""


def choose_backend(wanted: str, device: torch.device) -> str:
    """The wanted backend. If it cannot run on the device, one line is logged, and it is 'torch'."""
    reason = available(wanted, device)
    if reason:
        _log.warning("CRF loss: %s, not %s: %s", "torch", wanted, reason)
        return "torch"
    return wanted


def window_radius(sigma_xy: float) -> int:
    """Half the side in pixels of the window over which 'exact' sums."""
    return int(WINDOW_SIGMAS * sigma_xy + 0.5)


def gaussian_filter(
    image: Tensor, values: Tensor, sigma_xy: float, sigma_rgb: float, backend: str
) -> Tensor:
    """Filter values [B, C, H, W] with the kernel W of each image [B, 3, H, W] of a batch.

    The image is in 0..1; both tensors are float32 or float64. Returns W values [B, C, H, W].
    Backends:
    'lattice': the permutohedral lattice, whose sum is 0.55 to 0.6 of the kernel's on H&E.
    'exact': the kernel itself. On CUDA and in float64 it is summed over a window of 4 sigma.
        Otherwise low-rank colour features are used for the images for which their residual
        certifies that they suffice, and the window for the others.
    'torch': low-rank colour features in plain PyTorch, on any device.
    """
    if backend == "torch":
        return low_rank_filter(image, values, sigma_xy, sigma_rgb)[0]
    image, values = image.contiguous(), values.contiguous()
    if backend == "lattice":
        return _OPS.lattice_filter(image, values, sigma_xy, sigma_rgb)
    radius = window_radius(sigma_xy)
    if values.is_cuda or values.dtype == torch.float64:
        return _OPS.window_filter(image, values, sigma_xy, sigma_rgb, radius)
    filtered, residual = _OPS.low_rank_filter(
        image, values, sigma_xy, sigma_rgb, TOLERANCE, MAX_RANK
    )
    missing = (residual >= TOLERANCE).nonzero()[:, 0]
    if len(missing):
        exact = _OPS.window_filter(image[missing], values[missing], sigma_xy, sigma_rgb, radius)
        filtered = filtered.index_copy(0, missing, exact)
    return filtered


class _DenseCRFLoss(torch.autograd.Function):
    """The loss. The forward pass also computes the gradient, which the backward pass scales."""

    @staticmethod
    def forward(ctx, prob, image, mask, sigma_xy, sigma_rgb, backend):
        masked = prob * mask  # [B, K, H, W]
        signals = torch.cat([mask, masked[:, :-1]], dim=1)  # the last class follows from the others
        filtered = gaussian_filter(image, signals, sigma_xy, sigma_rgb, backend)
        total, parts = filtered[:, :1], filtered[:, 1:]  # W m; W (m S) but for the last class
        rest = torch.empty_like(masked)  # W (m (1 - S)) of all classes
        torch.sub(total, parts, out=rest[:, :-1])
        torch.sum(parts, 1, out=rest[:, -1])
        norm = mask.sum((1, 2, 3)).clamp(min=1) * len(prob)  # an image without valid pixels adds 0
        values = torch.linalg.vecdot(masked.flatten(1), rest.flatten(1))  # [B]
        gradient = rest.mul_(2).sub_(total).mul_(mask / norm.view(-1, 1, 1, 1))
        ctx.save_for_backward(gradient)
        return (values / norm).sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        (gradient,) = ctx.saved_tensors
        return grad * gradient, None, None, None, None, None


def dense_crf_loss(
    prob: Tensor,
    image: Tensor,
    mask: Tensor | None = None,
    sigma_xy: float = 9.0,
    sigma_rgb: float = 0.1,
    backend: str = "lattice",
) -> Tensor:
    """Dense CRF loss (Qu et al. 2020, Eq. 5): a scalar, differentiable with respect to `prob`.

    prob [B, K, H, W]: probabilities that sum to 1 over the classes; image [B, 3, H, W] in 0..1;
    mask [B, H, W]: valid pixels, None: all; sigma_xy in pixels, sigma_rgb in 0..1; backend: see
    `gaussian_filter`. Half precision is computed in float32. An image without valid pixels adds 0.
    Raises ValueError if shapes or devices do not fit.
    """
    if prob.dim() != 4 or image.shape != (prob.shape[0], 3, *prob.shape[2:]):
        raise ValueError(
            "expected prob [B, K, H, W] and image [B, 3, H, W], "
            f"not {tuple(prob.shape)} and {tuple(image.shape)}"
        )
    if mask is None:
        mask = prob.new_ones((prob.shape[0], *prob.shape[2:]))
    if mask.shape != (prob.shape[0], *prob.shape[2:]):
        raise ValueError(f"expected mask [B, H, W], not {tuple(mask.shape)}")
    if not prob.device == image.device == mask.device:
        raise ValueError("prob, image and mask must be on one device")
    dtype = torch.float64 if prob.dtype == torch.float64 else torch.float32
    with torch.autocast(prob.device.type, enabled=False):
        prob, image, mask = prob.to(dtype), image.to(dtype), mask.to(dtype).unsqueeze(1)
        return _DenseCRFLoss.apply(prob, image, mask, sigma_xy, sigma_rgb, backend)
