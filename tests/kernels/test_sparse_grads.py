"""Fused sparse gradients against dense float64, in Triton's interpreter where there is no GPU."""

from collections.abc import Callable

import pytest
import torch

pytest.importorskip("triton")

from launches import Launches
from sparsify_core.kernels import by_latent, entry_launches, reference, sparse_grads

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def _inputs(n: int, k: int, m: int, d: int, e: int, dtype: torch.dtype, *, seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    indices = torch.stack([torch.randperm(m)[:k] for _ in range(n)])
    acts = torch.rand(n, k)
    acts[torch.rand(n, k) < 0.2] = 0
    inputs = {"x_ND": torch.randn(n, d), "grad_NE": torch.randn(n, e), "acts": acts, "W_dec_ME": torch.randn(m, e)}
    return {**{name: t.to(DEVICE, dtype) for name, t in inputs.items()}, "indices": indices.to(DEVICE)}


def _dense(case: dict[str, torch.Tensor], *, straight_through: bool) -> reference.SparseGradients:
    """By matrices that hold every latent of every token."""
    x, grad, acts, W_dec = (case[name].double() for name in ("x_ND", "grad_NE", "acts", "W_dec_ME"))
    shape = (len(x), len(W_dec))
    if "tokens_P" in case:
        where = (case["tokens_P"], case["indices"].long())
    else:
        where = (torch.arange(len(x), device=x.device)[:, None], case["indices"].long())
    code = torch.zeros(shape, dtype=torch.float64, device=x.device).index_put(where, acts)
    chosen = torch.zeros(shape, dtype=torch.bool, device=x.device)
    chosen[where] = True
    slopes = (grad @ W_dec.T) * (chosen if straight_through else code > 0)
    counts = (code > 0).sum(0).int()
    return reference.SparseGradients(code.T @ grad, slopes.T @ x, slopes.sum(0), counts, slopes[where])


def _assert_near(actual: reference.SparseGradients, expected: reference.SparseGradients) -> None:
    for name, a, b in zip(actual._fields, actual, expected, strict=True):
        if b is None:
            continue
        torch.testing.assert_close(
            a, b.to(a.dtype), rtol=1e-5, atol=2e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("straight_through", [False, True])
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((1, 1, 1, 1, 1), torch.float32),
        ((1, 3, 9, 8, 5), torch.float32),
        ((7, 2, 9, 5, 9), torch.float32),
        ((5, 3, 9, 72, 72), torch.bfloat16),
        ((9, 2, 7, 576, 40), torch.bfloat16),
        ((5, 3, 6, 24, 768), torch.float32),
        ((4, 2, 5, 1100, 3), torch.bfloat16),
        ((4, 2, 5, 3, 2100), torch.float32),
    ],
)
def test_gradients_are_those_of_dense_matrices(
    shape: tuple[int, int, int, int, int], dtype: torch.dtype, straight_through: bool
) -> None:
    case = _inputs(*shape, dtype)
    expected = _dense(case, straight_through=straight_through)
    for module in (reference, sparse_grads):
        actual = module.sparse_gradients(**case, straight_through=straight_through, with_acts=True)
        _assert_near(actual, expected)
        silent = (expected.counts_M == 0) & (not straight_through)
        assert not actual.W_enc_MD[silent].any()
        assert not actual.b_enc_M[silent].any()
        assert not actual.W_dec_ME[silent].any()
        assert module.sparse_gradients(**case).acts is None


@pytest.fixture
def _short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 2 entries: the interpreter is slow, and many segments are the point."""
    for module in (by_latent, sparse_grads):
        monkeypatch.setattr(module, "SEGMENT", 2)


def _hot_case() -> dict[str, torch.Tensor]:
    """Latents 5 and 7 are chosen for every token, most others for none."""
    case = _inputs(20, 3, 13, 6, 10, torch.float32)
    case["indices"][:, 0] = 9 + case["indices"][:, 0] % 3
    case["indices"][:, 1] = 5
    case["indices"][:, 2] = 7
    return case


@pytest.mark.usefixtures("_short_segments")
def test_a_latent_that_fires_on_every_token_is_split() -> None:
    case = _hot_case()
    actual = sparse_grads.sparse_gradients(**case, with_acts=True)
    again = sparse_grads.sparse_gradients(**case, with_acts=True)
    _assert_near(actual, _dense(case, straight_through=False))
    assert all(torch.equal(a, b) for a, b in zip(actual, again, strict=True))


@pytest.mark.usefixtures("_short_segments")
def test_blocks_of_tokens_add_up(monkeypatch: pytest.MonkeyPatch, launches: Launches) -> None:
    monkeypatch.setattr(sparse_grads, "_BLOCK_BYTES", 12 * 10 * 4)  # two blocks, each with further segments
    case = _hot_case()
    actual = sparse_grads.sparse_gradients(**case, with_acts=True)
    _assert_near(actual, _dense(case, straight_through=False))
    assert launches.names == ["_decoder_kernel", "_encoder_kernel", "_combine_kernel"] * 2
    for kernel in ("_decoder_kernel", "_encoder_kernel"):
        assert [options["ACCUMULATE"] for name, options in launches if name == kernel] == [False, True]


@pytest.mark.usefixtures("_short_segments")
def test_slabs_of_the_encoder_give_the_same_bits(monkeypatch: pytest.MonkeyPatch, launches: Launches) -> None:
    case = _hot_case()
    case["x_ND"] = torch.randn(20, 40, device=DEVICE)
    whole = sparse_grads.sparse_gradients(**case)
    monkeypatch.setattr(entry_launches, "_MIN_SLAB_WIDTH", 8)
    monkeypatch.setattr(entry_launches, "_SLAB_BYTES", 20 * 10 * 4)
    assert torch.equal(sparse_grads.sparse_gradients(**case).W_enc_MD, whole.W_enc_MD)
    assert [options["SLABS"] for name, options in launches if name == "_encoder_kernel"] == [1, 5]


@pytest.mark.parametrize(("width", "num_warps"), [(8, 1), (1025, 4), (2049, 8)])
def test_wider_rows_get_more_warps(launches: Launches, width: int, num_warps: int) -> None:
    for d, e in ((width, 8), (8, width)):
        case = _inputs(3, 2, 4, d, e, torch.float32)
        _assert_near(sparse_grads.sparse_gradients(**case), _dense(case, straight_through=False)._replace(acts=None))
        assert launches.names == ["_decoder_kernel", "_encoder_kernel"]
        assert launches.only("_encoder_kernel" if e == 8 else "_decoder_kernel")["num_warps"] == num_warps
        launches.clear()


@pytest.mark.usefixtures("_short_segments")
@pytest.mark.parametrize("first", [0, 1, 2, 3])
@pytest.mark.parametrize("blocks", [1, 2])
def test_two_gradients_per_token(monkeypatch: pytest.MonkeyPatch, first: int, blocks: int) -> None:
    """One for the first of its latents and another one for the rest: the sum of two calls, one of each."""
    monkeypatch.setattr(sparse_grads, "_NESTED_BLOCK_BYTES", 20 // blocks * 2 * 10 * 4)
    case = _hot_case()
    further = torch.randn_like(case["grad_NE"])
    grads = torch.stack([case["grad_NE"], further], 1)
    actual = sparse_grads.sparse_gradients(**{**case, "grad_NE": grads}, first=first, with_acts=True)
    acts, indices = case["acts"], case["indices"]
    parts = [
        _dense({**case, "grad_NE": grad, "acts": acts[:, own], "indices": indices[:, own]}, straight_through=False)
        for grad, own in ((case["grad_NE"], slice(first)), (further, slice(first, None)))
    ]
    sums = [a + b for a, b in zip(parts[0][:-1], parts[1][:-1], strict=True)]
    _assert_near(actual, reference.SparseGradients(*sums, torch.cat([part.acts for part in parts], 1)))


@pytest.mark.parametrize("tokens", [[], [0, 0, 0, 2, 2, 3]])
def test_lists_of_entries(tokens: list[int]) -> None:
    case = _inputs(5, 1, 9, 6, 10, torch.float32)
    entries = torch.randperm(9)[: len(tokens)]
    case["acts"] = torch.rand(len(tokens), device=DEVICE)
    case["indices"] = entries.to(DEVICE, torch.int32)
    case["tokens_P"] = torch.tensor(tokens, dtype=torch.int64, device=DEVICE)
    expected = _dense(case, straight_through=False)
    for module in (reference, sparse_grads):
        _assert_near(module.sparse_gradients(**case, with_acts=True), expected)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("x_ND", lambda x: x[:-1]),
        ("grad_NE", lambda grad: grad[:, :-1]),
        ("acts", lambda acts: acts.T.contiguous().T),
        ("acts", lambda acts: acts.flatten()),
        ("indices", lambda indices: indices[:, :-1]),
        ("indices", lambda indices: indices.short()),
        ("W_dec_ME", lambda W_dec: W_dec.double()),
    ],
)
def test_what_does_not_fit_is_refused(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    case = _inputs(5, 2, 9, 6, 10, torch.float32)
    case[name] = change(case[name])
    with pytest.raises(ValueError, match="pass"):
        sparse_grads.sparse_gradients(**case)
