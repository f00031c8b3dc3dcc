"""The fused updates against the optimizers and the coder's own normalization, over several steps."""

import pytest
import torch

pytest.importorskip("triton")

from launches import Launches
from sparsify_core.config import RunConfig, SparseCoderConfig
from sparsify_core.kernels.update import adam_corrections, adam_update, averaging_share, signum_update
from sparsify_core.model.coder import SparseCoder
from sparsify_core.train.optim import CoderOptimizer

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NUM_STEPS = 5


def _coder(d_in: int, *, transcode: bool) -> SparseCoder:
    config = SparseCoderConfig(num_latents=9, k=2, transcode=transcode, skip_connection=transcode)
    coder = SparseCoder(d_in, config, d_out=7 if transcode else d_in).to(DEVICE)
    torch.manual_seed(1)
    with torch.no_grad():
        for p in coder.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    if coder.normalizes_decoder:
        coder.normalize_decoder()
    return coder


def _gradients(coder: SparseCoder) -> dict[str, torch.Tensor]:
    grads = {name: torch.randn_like(p) for name, p in coder.named_parameters()}
    for name in ("W_dec", "encoder.weight", "encoder.bias"):
        grads[name][3] = 0  # a latent that did not fire
    return grads


def _peer_step(
    coder: SparseCoder, optimizer: CoderOptimizer, grads: dict[str, torch.Tensor], scale: torch.Tensor, step: int
) -> None:
    """As train/step.py does it, parameter by parameter and operation by operation."""
    for name, p in coder.named_parameters():
        p.grad = grads[name].clone()
    optimizer.step(step, "coder", scale)


@pytest.mark.parametrize(("d_in", "transcode"), [(8, False), (72, False), (5, True)])
@pytest.mark.parametrize("optimizer_name", ["signum", "adam"])
def test_steps_are_those_of_the_optimizer(optimizer_name: str, d_in: int, transcode: bool) -> None:
    torch.manual_seed(0)
    peer, ours = (_coder(d_in, transcode=transcode) for _ in range(2))
    config = RunConfig(optimizer=optimizer_name, lr=0.01, lr_warmup_steps=2)
    optimizer = CoderOptimizer(config, {"coder": peer}, NUM_STEPS)
    params = {name: p.detach() for name, p in ours.named_parameters()}
    copies = {name: torch.empty_like(p, dtype=torch.bfloat16) for name, p in params.items()}
    group = {"lr": config.lr}
    if optimizer_name == "signum":
        state = {f"{name}/z": p.clone() for name, p in params.items()}
    else:
        state = {
            f"{name}/{key}": torch.zeros_like(p) for name, p in params.items() for key in ("exp_avg", "exp_avg_sq")
        }
    for step in range(NUM_STEPS):
        grads, scale = _gradients(peer), torch.rand((), device=DEVICE)
        _peer_step(peer, optimizer, grads, scale, step)
        share = averaging_share(group)
        corrections = adam_corrections(torch.tensor(step + 1.0, device=DEVICE))
        for name, p in params.items():
            shared = {
                "scale": scale,
                "lr": optimizer.lr(step),
                "normalize": name == "W_dec" and not transcode,
                "copy": None if name == "b_dec" else copies[name],
            }
            if optimizer_name == "signum":
                signum_update(p, state[f"{name}/z"], grads[name], share=share, momentum=0.95, **shared)
            else:
                averages = state[f"{name}/exp_avg"], state[f"{name}/exp_avg_sq"]
                adam_update(p, *averages, grads[name], corrections=corrections, **shared)
        theirs = {key.removeprefix("coder/"): value for key, value in optimizer.tensors().items()}
        for key, value in state.items():
            torch.testing.assert_close(
                value, theirs[key], rtol=2e-6, atol=2e-7, msg=lambda text, key=key: f"{key}: {text}"
            )
        for name, p in peer.named_parameters():
            torch.testing.assert_close(params[name], p.detach(), rtol=2e-6, atol=2e-7)
            if name != "b_dec":
                # The interpreter cuts digits off where the GPU rounds.
                torch.testing.assert_close(copies[name].float(), params[name], rtol=2**-7, atol=0)
    if optimizer_name == "signum":
        (scalars,) = optimizer.scalars()["coder"]
        assert scalars == group


@pytest.mark.parametrize(("width", "num_warps"), [(1024, 4), (1025, 8)])
def test_wider_rows_get_more_warps(launches: Launches, width: int, num_warps: int) -> None:
    torch.manual_seed(0)
    y = torch.nn.functional.normalize(torch.randn(3, width, device=DEVICE))
    old = y.clone()
    options = {"scale": torch.ones((), device=DEVICE), "lr": 0.1, "share": 1.0, "momentum": 0.95, "normalize": True}
    signum_update(y, y.clone(), torch.randn_like(y), **options)
    assert launches.only("_signum_rows_kernel")["num_warps"] == num_warps
    torch.testing.assert_close(y.double().norm(dim=1), torch.ones(3, device=DEVICE).double(), rtol=1e-6, atol=0)
    assert (y != old).any(1).all()


def test_a_rising_rate_weighs_later_steps_more() -> None:
    group = {"lr": 1.0}
    shares = []
    for lr in (1.0, 2.0, 0.5):
        group["lr"] = lr
        shares.append(averaging_share(group))
    assert shares == [1, 4 / 5, 4 / 9]


def test_what_does_not_fit_is_refused() -> None:
    y, scale = torch.zeros(4, 6), torch.ones(())
    options = {"scale": scale, "lr": 0.1, "share": 1.0, "momentum": 0.95}
    with pytest.raises(ValueError, match="float16"):
        signum_update(y, y.half(), y, **options)
    with pytest.raises(ValueError, match="strides"):
        signum_update(y.T, y.T, y.T, **options)
    with pytest.raises(ValueError, match="bfloat16"):
        signum_update(y, y, y, **options, copy=y)
    with pytest.raises(ValueError, match="scalar"):
        signum_update(y, y, y, **{**options, "scale": scale.double()})
    with pytest.raises(ValueError, match="matrix"):
        signum_update(y[0], y[0], y[0], **options, normalize=True)
