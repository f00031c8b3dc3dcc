"""Sizes by shape are those of the coders themselves."""

import pytest

from sparsify_core.config import SparseCoderConfig
from sparsify_core.model.coder import SparseCoder


@pytest.mark.parametrize("values", [{}, {"transcode": True, "skip_connection": True}])
def test_a_size_counts_the_parameters_that_a_coder_has(values: dict[str, bool]) -> None:
    coder = SparseCoder(6, SparseCoderConfig(num_latents=20, k=3, **values), d_out=6 if not values else 5)
    assert coder.size.num_parameters == sum(p.numel() for p in coder.parameters())
    assert coder.size.matrix_bytes == 4 * (coder.W_dec.numel() + coder.encoder.weight.numel())
    assert (coder.size.k, coder.size.has_skip) == (3, bool(values))
