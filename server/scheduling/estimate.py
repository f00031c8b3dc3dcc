"""How long a run will still train."""

import math


def remaining_s(*, step: int, total_steps: int, tokens_per_step: int, tokens_per_s: float | None) -> float | None:
    """Seconds that the remaining steps take at the newest throughput; None while that is unknown."""
    if not total_steps or not tokens_per_step or not tokens_per_s or not math.isfinite(tokens_per_s):
        return None
    return max(0, total_steps - step) * tokens_per_step / tokens_per_s
