"""Pre-activations whose selection is easy to get wrong."""

import torch
from torch import Tensor


def pre_activations(kind: str, tokens: int, latents: int) -> Tensor:
    """(N, M) float32: random, with many ties, with few positive ones, or with none."""
    torch.manual_seed(tokens + latents)
    pre = torch.randn(tokens, latents)
    if kind == "ties":
        return (pre * 2).round() / 2
    if kind == "few positive":
        return pre - 2.5
    if kind == "all negative":
        return -pre.abs() - 1
    return pre


def expect_equal(got: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    """The same activations and int32 latents, to the bit."""
    torch.testing.assert_close(got[0].cpu(), expected[0], rtol=0, atol=0, equal_nan=True)
    assert got[1].dtype == torch.int32
    assert torch.equal(got[1].cpu(), expected[1])
