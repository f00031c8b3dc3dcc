"""Sparse operations. `reference` is the PyTorch truth, which runs everywhere; `fast` puts the Triton kernels together
for training on CUDA and is imported only there. `dispatch` decides between the two, and within `fast`.
"""

from sparsify_core.kernels.reference import gather_latents, starts, weighted_rows

__all__ = ["gather_latents", "starts", "weighted_rows"]
