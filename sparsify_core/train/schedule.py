"""Learning rates, and what else changes with the optimizer step. Steps count from 0. Torch-free."""

import math

_BASE_LR = {"adam": 2e-4, "signum": 5e-3}
_MUON_LR = 2e-3
_BASE_NUM_LATENTS = 2**14


def default_lr(optimizer: str, num_latents: int) -> float:
    """Upstream's scaling law: the rate falls with the square root of the number of latents, except muon's."""
    if optimizer == "muon":
        return _MUON_LR
    return _BASE_LR[optimizer] / math.sqrt(num_latents / _BASE_NUM_LATENTS)


def lr_factor(step: int, num_steps: int, warmup_steps: int, *, starts_at_zero: bool = False) -> float:
    """Linear warmup, then linear decay to the end of the run. No step has the factor 0, but the first with
    `starts_at_zero`, where upstream begins.
    """
    warm = (step + (not starts_at_zero)) / warmup_steps if warmup_steps else 1.0
    decay = (num_steps - step) / max(num_steps - warmup_steps, 1)
    return min(warm, decay, 1.0)


def decayed_k(batch: int, *, k: int, width: int, num_latents: int, decay_batches: int) -> int:
    """k of batch number `batch`: falls linearly from ten times the width (at most all latents) to `k`."""
    if batch >= decay_batches:
        return k
    first = min(num_latents, 10 * width)
    return max(k, round(first + (k - first) * batch / decay_batches))


def divisor_from(k: int, num_latents: int) -> int:
    """The smallest number from `k` up that divides `num_latents` (k at most that): groupmax needs equal groups."""
    while num_latents % k:
        k += 1
    return k
