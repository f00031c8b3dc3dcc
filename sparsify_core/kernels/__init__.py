"""Sparse operations behind one dispatch point. Callers import them from here and never name an implementation.

Only the PyTorch reference exists so far; a fused kernel gets its own file and is chosen here, by device and shape.
"""

from sparsify_core.kernels.reference import gather_latents, starts, weighted_rows
from sparsify_core.kernels.sparse_code import sparse_code

__all__ = ["gather_latents", "sparse_code", "starts", "weighted_rows"]
