"""Dense CRF loss with native and pure PyTorch kernels; build with setup.py in this folder."""

from code_seg.crf_loss.crf_loss import STRENGTH, available, choose_backend, dense_crf_loss

__all__ = ["STRENGTH", "available", "choose_backend", "dense_crf_loss"]
