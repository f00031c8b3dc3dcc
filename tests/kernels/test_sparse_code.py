"""The fused operation against the graph of gather_latents and weighted_rows, which dense algebra vouches for."""

import pytest
import torch

from sparsify_core.kernels import gather_latents, starts, weighted_rows
from sparsify_core.kernels.sparse_code import sparse_code


def _leaves(d: int, e: int, m: int) -> list[torch.Tensor]:
    shapes = [(11, d), (d,), (m, d), (m,), (m, e)]
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("straight_through", [False, True])
@pytest.mark.parametrize("is_list", [False, True])
def test_same_output_and_gradients_as_the_composed_operations(is_list: bool, straight_through: bool) -> None:
    torch.manual_seed(0)
    leaves = _leaves(6, 4, 9)
    x, centre, W_enc, b_enc, W_dec = leaves
    pre = ((x - centre) @ W_enc.T + b_enc).detach()
    if is_list:
        tokens, indices = (torch.rand(11, 9) < 0.4).nonzero().unbind(1)
        chosen = pre[tokens, indices]
    else:
        tokens, indices = None, pre.topk(6).indices  # among which some are below zero
        chosen = pre.gather(1, indices)
    assert (chosen <= 0).any()
    acts = gather_latents(x - centre, W_enc, b_enc, pre.clone(), indices, tokens, straight_through=straight_through)
    expected = weighted_rows(indices, acts, W_dec, None if tokens is None else starts(tokens, 11))
    weights = torch.randn(11, 4, dtype=torch.float64)
    expected_grads = torch.autograd.grad((expected * weights).sum(), leaves)

    centred = (x - centre).detach().requires_grad_()
    inputs = (W_enc, b_enc, W_dec, chosen.relu(), indices, tokens)
    actual = sparse_code(centred, *inputs, centre_D=centre, straight_through=straight_through)
    actual_grads = torch.autograd.grad((actual * weights).sum(), [centred, *leaves[1:]])
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(actual_grads, expected_grads)

    without_x = sparse_code(centred.detach(), *inputs, centre_D=centre, straight_through=straight_through)
    torch.testing.assert_close(torch.autograd.grad((without_x * weights).sum(), leaves[1:]), expected_grads[1:])


def test_activations_with_a_graph_are_refused() -> None:
    x, _, W_enc, b_enc, W_dec = _leaves(6, 4, 9)
    acts = torch.rand(11, 2, dtype=torch.float64, requires_grad=True)
    with pytest.raises(ValueError, match="detach"):
        sparse_code(x, W_enc, b_enc, W_dec, acts, torch.zeros(11, 2, dtype=torch.int64))


def test_the_triton_gradients_fit_in() -> None:
    pytest.importorskip("triton")
    from sparsify_core.kernels.sparse_grads import sparse_gradients

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    leaves = [leaf.detach().float().to(device).requires_grad_() for leaf in _leaves(6, 4, 9)]
    x, centre, W_enc, b_enc, W_dec = leaves
    chosen, indices = ((x - centre) @ W_enc.T + b_enc).detach().topk(5)
    inputs = (W_enc, b_enc, W_dec, chosen.relu(), indices)
    weights = torch.randn(11, 4, device=device)
    results = []
    for options in ({}, {"gradients": sparse_gradients}):
        out = sparse_code(x, *inputs, centre_D=centre, **options)
        results.append(torch.autograd.grad((out * weights).sum(), leaves))
    torch.testing.assert_close(*results)
