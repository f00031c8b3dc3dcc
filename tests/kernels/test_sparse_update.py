"""Gradients and step at once: against float64 and the library's optimizers, and against one after the other."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from sparsify_core.config import RunConfig, SparseCoderConfig
from sparsify_core.kernels import by_latent, further_parts, reference, sparse_grads, sparse_update, update
from sparsify_core.kernels.sparse_update import Adam, Parameter, Signum
from sparsify_core.model.coder import SparseCoder
from sparsify_core.train.optim import CoderOptimizer

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NUM_STEPS = 2
LR = 0.01
NAMES = ("W_dec", "encoder.weight", "encoder.bias")


class Case(NamedTuple):
    """N tokens, k active latents each, M latents, widths D and E."""

    n: int
    k: int
    m: int
    d: int
    e: int
    normalize: bool = True
    copies: bool = False


CASES = [Case(1, 1, 1, 1, 2), Case(5, 1, 18, 6, 10, copies=True), Case(4, 3, 7, 8, 5, normalize=False)]
HOT_CASES = [Case(19, 3, 9, 6, 10), Case(19, 3, 9, 10, 6, copies=True)]
WIDE_CASES = [Case(4, 2, 5, 2304, 2304, copies=True), Case(4, 2, 5, 40, 2500, normalize=False, copies=True)]


def _batch(case: Case, seed: int) -> dict[str, Tensor]:
    """Some latents twice on a token, some nowhere, some activations 0."""
    torch.manual_seed(seed)
    indices = torch.randint(0, case.m, (case.n, case.k))
    acts = torch.rand(case.n, case.k)
    acts[torch.rand(case.n, case.k) < 0.2] = 0
    batch = {"x_ND": torch.randn(case.n, case.d), "grad_NE": torch.randn(case.n, case.e), "acts": acts}
    return {name: t.to(DEVICE) for name, t in {**batch, "indices": indices}.items()}


def _listed(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same as lists, of which the last entries are left out."""
    n, k = batch["acts"].shape
    tokens = torch.arange(n, device=DEVICE).repeat_interleave(k)[: n * k - 3]
    return {**batch, **{name: batch[name].flatten()[: n * k - 3] for name in ("acts", "indices")}, "tokens_P": tokens}


def _hot(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Latents 5 and 7 on every token."""
    batch["indices"][:, 1], batch["indices"][:, 2] = 5, 7
    return batch


def _parameters(case: Case, optimizer: str) -> list[Parameter]:
    torch.manual_seed(1)
    weights = [torch.randn(shape).to(DEVICE) for shape in ((case.m, case.e), (case.m, case.d), (case.m,))]
    if case.normalize:
        weights[0] /= weights[0].norm(dim=1, keepdim=True)
    return [
        Parameter(
            weight,
            (weight.clone(),) if optimizer == "signum" else (torch.zeros_like(weight), torch.zeros_like(weight)),
            weight.bfloat16() if case.copies and weight.dim() == 2 else None,
        )
        for weight in weights
    ]


def _rule(optimizer: str, step: int) -> Signum | Adam:
    if optimizer == "signum":
        return Signum(LR, 1 / (step + 1), 0.95)
    return Adam(LR, update.adam_corrections(torch.tensor(step + 1.0, device=DEVICE)))


def _one_after_the_other(
    batch: dict[str, Tensor],
    parameters: list[Parameter],
    rule: Signum | Adam,
    scale: Tensor,
    *,
    normalize: bool,
    **more,
) -> Tensor:
    rows_ME = parameters[0].weight if parameters[0].copy is None else parameters[0].copy
    minus_two = torch.full((), -2.0, device=DEVICE)
    grads = sparse_grads.sparse_gradients(**batch, W_dec_ME=rows_ME, scale=minus_two, **more)
    for (weight, state, copy), grad, is_decoder in zip(parameters, grads[:3], (True, False, False), strict=True):
        options = {"scale": scale / -2, "normalize": normalize and is_decoder, "copy": copy, **rule._asdict()}
        step = update.signum_update if isinstance(rule, Signum) else update.adam_update
        step(weight, *state, grad, **options)
    return grads.counts_M


def _assert_same_bits(optimizer: str, case: Case, batches: list[dict[str, Tensor]], **options: bool) -> None:
    ours, theirs = (_parameters(case, optimizer) for _ in range(2))
    options["normalize"] = case.normalize
    for step, batch in enumerate(batches):
        scale, rule = torch.rand((), device=DEVICE) - 0.5, _rule(optimizer, step)
        updated = sparse_update.sparse_update(
            **batch, W_dec=ours[0], W_enc=ours[1], b_enc=ours[2], rule=rule, scale=scale, **options
        )
        assert updated.centre_D is None
        assert torch.equal(updated.counts_M, _one_after_the_other(batch, theirs, rule, scale, **options))
        for name, own, other in zip(NAMES, ours, theirs, strict=True):
            assert all(torch.equal(*pair) for pair in zip(_flat(own), _flat(other), strict=True)), name


def _flat(parameter: Parameter) -> list[Tensor]:
    weight, state, copy = parameter
    return [weight, *state, *([] if copy is None else [copy])]


@pytest.fixture
def _short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 2 entries: the interpreter is slow, and many segments are the point."""
    for module in (by_latent, further_parts, sparse_grads, sparse_update):
        monkeypatch.setattr(module, "SEGMENT", 2)


# On a GPU narrow rows are summed by other numbers of warps.
@pytest.mark.parametrize("case", WIDE_CASES if DEVICE == "cuda" else CASES + WIDE_CASES)
@pytest.mark.parametrize("optimizer", ["signum", "adam"])
def test_the_bits_are_those_of_gradients_and_updates(optimizer: str, case: Case) -> None:
    _assert_same_bits(optimizer, case, [_batch(case, 0)])


@pytest.mark.usefixtures("_short_segments")
@pytest.mark.parametrize("optimizer", ["signum", "adam"])
def test_the_bits_are_the_same_where_latents_fire_on_every_token(optimizer: str) -> None:
    case = Case(21, 3, 9, 10, 2306 if DEVICE == "cuda" else 12)
    batch = _hot(_batch(case, 0))
    _assert_same_bits(optimizer, case, [_listed(batch)])


@pytest.mark.parametrize("optimizer", ["signum", "adam"])
def test_the_bits_are_the_same_straight_through(optimizer: str) -> None:
    case = Case(4, 3, 7, 10, 2306)
    batch = _batch(case, 0)
    batch["acts"][:2] = 0
    _assert_same_bits(optimizer, case, [batch], straight_through=True)


def _coder(case: Case, parameters: list[Parameter]) -> SparseCoder:
    """In float64 on the CPU, with the same weights."""
    config = SparseCoderConfig(num_latents=case.m, k=case.k, transcode=True)  # other widths need that
    coder = SparseCoder(case.d, config, d_out=case.e).double()
    coder.normalizes_decoder = case.normalize
    for name, parameter in zip(NAMES, parameters, strict=True):
        coder.get_parameter(name).data.copy_(parameter.weight)
    return coder


def _reference_step(
    coder: SparseCoder, optimizer: CoderOptimizer, batch: dict[str, Tensor], rows_ME: Tensor, scale: Tensor, step: int
) -> tuple[Tensor, Tensor]:
    """Counts and gradient of the centre."""
    batch = {name: t.cpu() if name in ("indices", "tokens_P") else t.cpu().double() for name, t in batch.items()}
    grads = reference.sparse_gradients(**batch, W_dec_ME=rows_ME.cpu().double())
    centre_D = -(scale.cpu().double() * grads.b_enc_M @ coder.encoder.weight.data)
    for name, grad in zip(NAMES, grads[:3], strict=True):
        coder.get_parameter(name).grad = grad
    optimizer.step(step, "coder", scale.cpu().double())
    return grads.counts_M, centre_D


def _near(actual: Tensor, expected: Tensor, what: str) -> None:
    torch.testing.assert_close(
        actual.cpu(), expected.to(actual.dtype), rtol=1e-5, atol=2e-5, msg=lambda text: f"{what}: {text}"
    )


@pytest.mark.usefixtures("_short_segments")
@pytest.mark.parametrize("case", [*CASES[1:], *HOT_CASES])
@pytest.mark.parametrize("optimizer_name", ["signum", "adam"])
def test_steps_are_those_of_the_optimizer_in_float64(optimizer_name: str, case: Case) -> None:
    parameters = _parameters(case, optimizer_name)
    coder = _coder(case, parameters)
    optimizer = CoderOptimizer(RunConfig(optimizer=optimizer_name, lr=LR, lr_warmup_steps=0), {"coder": coder}, 10**6)
    for step in range(NUM_STEPS):
        batch = _hot(_batch(case, step)) if case in HOT_CASES else _batch(case, step)
        if step == NUM_STEPS - 1:
            batch = _listed(batch)
        scale = -torch.rand((), device=DEVICE)
        rows_ME = parameters[0].weight if parameters[0].copy is None else parameters[0].copy
        expected = _reference_step(coder, optimizer, batch, rows_ME, scale, step)
        rule = _rule(optimizer_name, step)._replace(lr=optimizer.lr(step))
        actual = sparse_update.sparse_update(
            **batch, W_dec=parameters[0], W_enc=parameters[1], b_enc=parameters[2],
            rule=rule, scale=scale, normalize=case.normalize, with_centre=True,
        )  # fmt: skip
        assert torch.equal(actual.counts_M.cpu(), expected[0])
        _near(actual.centre_D, expected[1], "centre")
        theirs = optimizer.tensors()
        for name, (weight, state, copy) in zip(NAMES, parameters, strict=True):
            _near(weight, coder.get_parameter(name).detach(), name)
            for key, own in zip(
                ("z",) if optimizer_name == "signum" else ("exp_avg", "exp_avg_sq"), state, strict=True
            ):
                _near(own, theirs[f"coder/{name}/{key}"], f"{name}/{key}")
            if copy is not None:
                # The interpreter cuts digits off where the GPU rounds.
                torch.testing.assert_close(copy.float(), weight, rtol=2**-7, atol=0)


@pytest.mark.usefixtures("_short_segments")
def test_every_run_gives_the_same_bits() -> None:
    case = HOT_CASES[0]
    batch, rule, scale = _hot(_batch(case, 0)), _rule("adam", 0), torch.ones((), device=DEVICE)
    runs = []
    for _ in range(2):
        W_dec, W_enc, b_enc = parameters = _parameters(case, "adam")
        updated = sparse_update.sparse_update(
            **batch, W_dec=W_dec, W_enc=W_enc, b_enc=b_enc, rule=rule, scale=scale, normalize=True, with_centre=True
        )
        runs.append([*updated, *(t for parameter in parameters for t in _flat(parameter))])
    assert all(torch.equal(*pair) for pair in zip(*runs, strict=True))


def test_a_batch_without_entries_steps_as_one_of_zero_gradient() -> None:
    case = Case(4, 2, 9, 6, 10)
    ours, theirs = (_parameters(case, "signum") for _ in range(2))
    for parameter in (*ours, *theirs):
        parameter.state[0].add_(1)
    batch = _batch(case, 0)
    nothing = {**batch, "acts": torch.zeros(0, device=DEVICE), "indices": batch["indices"].flatten()[:0]}
    nothing["tokens_P"] = nothing["indices"]
    rule, scale = _rule("signum", 1), torch.ones((), device=DEVICE)
    updated = sparse_update.sparse_update(
        **nothing, W_dec=ours[0], W_enc=ours[1], b_enc=ours[2], rule=rule, scale=scale, normalize=True, with_centre=True
    )
    for name, own, other in zip(NAMES, ours, theirs, strict=True):
        update.signum_update(
            other.weight, *other.state, torch.zeros_like(other.weight),
            scale=scale, normalize=name == "W_dec", **rule._asdict(),
        )  # fmt: skip
        _near(own.weight, other.weight.cpu(), name)
    assert not updated.counts_M.any()
    assert not updated.centre_D.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda call: {"x_ND": call["x_ND"][:-1]}, r"pass \(N, D\)"),
        (lambda call: {"W_enc": call["W_dec"]}, r"pass \(M, E\), \(M, D\) and \(M\)"),
        (lambda call: {"b_enc": call["b_enc"]._replace(copy=call["b_enc"].weight.bfloat16())}, "b_enc has a copy"),
        (lambda call: {"W_dec": call["W_dec"]._replace(copy=call["W_dec"].weight)}, "bfloat16"),
        (lambda call: {"W_enc": call["W_enc"]._replace(state=())}, "Signum keeps 1 tensor"),
        (lambda call: {"rule": Adam(LR, torch.ones(2, device=DEVICE))}, "Adam keeps 2 tensors"),
        (lambda call: {"scale": call["scale"].double()}, "scalar"),
    ],
)
def test_what_does_not_fit_is_refused(change: Callable[[dict[str, Any]], dict[str, Any]], message: str) -> None:
    case = Case(5, 2, 9, 6, 10)
    parameters = dict(zip(("W_dec", "W_enc", "b_enc"), _parameters(case, "signum"), strict=True))
    scale = torch.ones((), device=DEVICE)
    call = {**_batch(case, 0), **parameters, "rule": _rule("signum", 0), "scale": scale, "normalize": True}
    with pytest.raises(ValueError, match=message):
        sparse_update.sparse_update(**{**call, **change(call)})
