"""The failure classes: what can end an attempt, whether that is worth another try, and on whose budget.

`failures` is the budget of what training itself does, `losses` that of what machines do. A trainer's own errors come
with the reason code of their class (`sparsify_core.errors`).
"""

from dataclasses import dataclass
from typing import Literal

BUDGET = 3
"""How many attempts a run may lose to one budget before it fails."""


@dataclass(frozen=True)
class FailureClass:
    """What follows from one reason code."""

    sentence: str
    """For people, where the trainer said nothing."""
    retries: int = 0
    """Tries again while less of the budget than this is spent."""
    budget: Literal["failures", "losses"] = "failures"
    needs_step: bool = False
    """Tries again only if the attempt has trained a step: otherwise the next one would end alike."""
    pauses: bool = False
    """Waits for a person instead of failing."""


FAILURES: dict[str, FailureClass] = {
    "worker_lost": FailureClass(
        "the training processes vanished: the machine was shut down or killed them", BUDGET, "losses"
    ),
    "killed": FailureClass("a training process was killed", BUDGET, "losses"),
    "cuda_error": FailureClass("the GPU reported an error", BUDGET, "losses"),
    "communication_error": FailureClass("the training processes lost touch with each other", BUDGET, "losses"),
    "hub_unavailable": FailureClass("the Hugging Face Hub did not answer", BUDGET, "losses"),
    "crashed": FailureClass("a training process crashed", BUDGET),
    "stalled": FailureClass("training made no step for too long", BUDGET),
    "gpu_out_of_memory": FailureClass("the GPU has not enough memory", 1, needs_step=True),
    "disk_full": FailureClass("the disk is full: make room and resume the run", pauses=True),
    "hub_denied": FailureClass("the Hugging Face Hub denied access: accept the licence or give a token"),
    "non_finite_loss": FailureClass("the loss became NaN or infinite"),
    "config_error": FailureClass("a configuration value is wrong"),
    "model_error": FailureClass("the language model cannot be loaded"),
    "data_error": FailureClass("the dataset cannot be used"),
    "hookpoint_error": FailureClass("a hookpoint matches no module"),
    "checkpoint_error": FailureClass("a checkpoint is damaged or does not fit"),
    "checkpoint_missing": FailureClass("training ended without a checkpoint on disk"),
    "start_failed": FailureClass("training could not be started"),
    "trainer_crashed": FailureClass("the trainer ended with an error"),
}

UNKNOWN = FailureClass("training failed")
"""Any other reason code: an error of the program, which would come again."""
