"""What was aimed at on one H100: the one home of the numbers that measured ones are judged by."""

from typing import NamedTuple


class Goal(NamedTuple):
    """Speed-ups over the other side of the comparison; `floor` is what the hardware allows, where it was counted.

    `memory`: our peak is to be at most this share of the other side's.
    """

    must: float
    aim: float
    floor: float | None = None
    memory: float = 0.6


GOALS: dict[tuple[str, str], Goal] = {
    ("W1", "signum"): Goal(4.8, 5.6, 10),
    ("W1", "adam"): Goal(4.6, 5.5),
    ("W1", "muon"): Goal(4.6, 5.5),
    ("W1", "auxk"): Goal(5.5, 6.3),
    ("W1", "transcode"): Goal(4.5, 5.3),
    ("W1", "skip"): Goal(4.5, 5.3),
    ("W1", "groupmax"): Goal(4.5, 5.3),
    ("W1", "multi_topk"): Goal(5, 6),
    ("W1", "batchtopk"): Goal(1 / 1.15, 1 / 1.05, memory=1.15),  # against our own topk
    ("W1", "ce"): Goal(1.5, 2, memory=0.5),
    ("W1", "kl"): Goal(1.7, 2.5, memory=0.5),
    ("W2", "signum"): Goal(5.3, 6.5, 9),
    ("W3", "k64:signum"): Goal(5.4, 5.9, 6.3),
    ("W3", "k192:signum"): Goal(7.1, 8, 9.2),
    ("W3", "k64:adam"): Goal(4, 4.6, 4.8),
    ("W3", "k64:muon"): Goal(2, 5),
    # Total tokens per second of two GPUs against one. sparsify: 1.99, 1.91, 1.06.
    ("W1", "ddp"): Goal(1.9, 1.98, 2),
    ("W2", "ddp"): Goal(1.85, 1.95, 2),
    ("W2", "distribute_modules"): Goal(1.85, 1.95, 2),
    ("demo", "cpu"): Goal(4.5, 5.5, 6),
    ("demo", "served"): Goal(0.99, 1.0),
}
"""By workload and mode."""
