"""Quantities that change with the optimizer step. Steps count from 0."""


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
