"""Quantities that change with the optimizer step. Steps count from 0."""


def lr_factor(step: int, num_steps: int, warmup_steps: int) -> float:
    """Linear warmup, then linear decay to the end of the run; no step has the factor 0."""
    warm = (step + 1) / warmup_steps if warmup_steps else 1.0
    decay = (num_steps - step) / max(num_steps - warmup_steps, 1)
    return min(warm, decay, 1.0)


def decayed_k(batch: int, *, k: int, width: int, num_latents: int, decay_batches: int) -> int:
    """k of batch number `batch`: falls linearly from ten times the width (at most all latents) to `k`."""
    if batch >= decay_batches:
        return k
    first = min(num_latents, 10 * width)
    return max(k, round(first + (k - first) * batch / decay_batches))
