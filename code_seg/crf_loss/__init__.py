"""Dense CRF loss with native and pure PyTorch kernels. setup.py builds the native ones."""

from code_seg.crf_loss.crf_loss import STRENGTH, available, choose_backend, dense_crf_loss

__all__ = ["STRENGTH", "available", "choose_backend", "dense_crf_loss"]
