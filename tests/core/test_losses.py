"""The options of the loss, against dense float64 autograd."""

import pytest
import torch

from sparsify_core.config import SparseCoderConfig
from sparsify_core.model.coder import SparseCoder
from sparsify_core.model.losses import loss_sums
from sparsify_core.model.selection import select_groupmax


def random_coder(**changes: object) -> SparseCoder:
    torch.manual_seed(0)
    values = {"num_latents": 48, "k": 4, **changes}
    coder = SparseCoder(12, SparseCoderConfig(**values)).double()  # type: ignore[arg-type]
    with torch.no_grad():
        for p in coder.parameters():
            p.normal_()
    return coder


def dense_decode(coder: SparseCoder, pre: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    acts = torch.zeros_like(pre).scatter(1, indices, pre.gather(1, indices).relu())
    return acts @ coder.W_dec


def dense_pre(coder: SparseCoder, x: torch.Tensor) -> torch.Tensor:
    return (x - coder.b_dec) @ coder.encoder.weight.T + coder.encoder.bias


def skip(coder: SparseCoder, x: torch.Tensor) -> torch.Tensor | float:
    return 0.0 if coder.W_skip is None else x @ coder.W_skip.T


def compare(coder: SparseCoder, loss: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(loss, expected)
    params = list(coder.parameters())
    for got, want in zip(torch.autograd.grad(loss, params), torch.autograd.grad(expected, params), strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("changes", [{"skip_connection": True}, {"activation": "groupmax"}, {"activation": "topk"}])
def test_error_and_gradients(changes: dict[str, object]) -> None:
    coder = random_coder(**changes)
    x, y = torch.randn(2, 30, 12, dtype=torch.float64)
    pre = dense_pre(coder, x)
    if coder.activation == "groupmax":
        groups = pre.view(30, 4, 12)
        indices = groups.max(-1).indices + 12 * torch.arange(4)
    else:
        indices = pre.topk(4).indices
    expected = (y - dense_decode(coder, pre, indices) - coder.b_dec - skip(coder, x)).square().sum()
    compare(coder, loss_sums(coder, x, y).loss, expected)


def test_groupmax_takes_one_of_each_group() -> None:
    chosen = select_groupmax(torch.randn(50, 12), 3)
    assert (chosen // 4 == torch.arange(3)).all()


@pytest.mark.parametrize("num_dead", [2, 20])
def test_auxk_reaches_the_encoder(num_dead: int) -> None:
    coder = random_coder()
    x, y = torch.randn(2, 30, 12, dtype=torch.float64)
    dead = torch.randperm(48)[:num_dead]
    pre = dense_pre(coder, x)
    residual = y - dense_decode(coder, pre, pre.topk(4).indices) - coder.b_dec
    masked = torch.full_like(pre, -torch.inf)
    masked[:, dead] = pre[:, dead]
    aux_out = dense_decode(coder, pre, masked.topk(min(6, num_dead)).indices)
    aux = min(num_dead / 6, 1.0) * (aux_out - residual.detach()).square().sum()
    sums = loss_sums(coder, x, y, auxk_alpha=0.25, dead_C=dead)
    torch.testing.assert_close(sums.auxk, aux.detach())
    compare(coder, sums.loss, residual.square().sum() + 0.25 * aux)
    sums = loss_sums(coder, x, y, auxk_alpha=1.0, dead_C=dead)
    (gradient,) = torch.autograd.grad(sums.loss - loss_sums(coder, x, y).loss, [coder.encoder.weight])
    assert gradient[dead].abs().sum() > 0


def test_no_dead_latents_no_auxk() -> None:
    coder = random_coder()
    x = torch.randn(5, 12, dtype=torch.float64)
    sums = loss_sums(coder, x, x, auxk_alpha=1.0, dead_C=torch.tensor([], dtype=torch.int64))
    assert sums.auxk == 0


@pytest.mark.parametrize("skip_connection", [False, True])
def test_multi_topk_counts_the_skip_and_reaches_the_encoder(skip_connection: bool) -> None:
    coder = random_coder(multi_topk=True, skip_connection=skip_connection)
    x, y = torch.randn(2, 30, 12, dtype=torch.float64)
    pre = dense_pre(coder, x)
    errors = [
        (y - dense_decode(coder, pre, pre.topk(k).indices) - coder.b_dec - skip(coder, x)).square().sum()
        for k in (4, 16)
    ]
    sums = loss_sums(coder, x, y, multi_topk=True)
    torch.testing.assert_close(sums.multi_topk, errors[1].detach())
    compare(coder, sums.loss, errors[0] + errors[1] / 8)
    assert sums.latents.indices.shape == (30, 4)
