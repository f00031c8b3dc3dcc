"""The failure classes: what can end an attempt, whether that is worth another try, and on whose budget.

`failures` is the budget of what training itself does, `losses` that of what machines do; some classes have a budget of
their own. A trainer's own errors come with the reason code of their class (`sparsify_core.errors`).
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
    budget: Literal["failures", "losses", ""] = "failures"
    """Empty: one of its own, used up by the attempts that ended with this reason code."""
    needs_step: bool = False
    """Tries again only if the attempt has trained a step: otherwise the next one would end alike."""
    needs_policy: bool = False
    """Tries again only if the run's `nan_policy` says so and it has a checkpoint to go back to."""
    pauses: bool = False
    """Waits for a person instead of failing."""
    is_of_run: bool = False
    """Comes from what the run asks for, and says nothing about the machine."""


FAILURES: dict[str, FailureClass] = {
    "worker_lost": FailureClass(
        "the training processes vanished: the machine was shut down or killed them", BUDGET, "losses"
    ),
    "not_started": FailureClass("the worker vanished before it had started the run", BUDGET, ""),
    "killed": FailureClass("a training process was killed", BUDGET, "losses"),
    "cuda_error": FailureClass("the GPU reported an error", BUDGET, "losses"),
    "communication_error": FailureClass("the training processes lost touch with each other", BUDGET, "losses"),
    "hub_unavailable": FailureClass("the Hugging Face Hub did not answer", BUDGET, "losses"),
    "crashed": FailureClass("a training process crashed", BUDGET),
    "stalled": FailureClass("training made no step for too long", BUDGET),
    "gpu_out_of_memory": FailureClass("the GPU has not enough memory", 1, "", needs_step=True, is_of_run=True),
    "disk_full": FailureClass("the disk is full: make room and resume the run", pauses=True),
    "hub_denied": FailureClass(
        "the Hugging Face Hub denied access: accept the licence or give a token", is_of_run=True
    ),
    "non_finite_loss": FailureClass("the loss became NaN or infinite", 1, "", needs_policy=True, is_of_run=True),
    "config_error": FailureClass("a configuration value is wrong", is_of_run=True),
    "model_error": FailureClass("the language model cannot be loaded", is_of_run=True),
    "data_error": FailureClass("the dataset cannot be used", is_of_run=True),
    "hookpoint_error": FailureClass("a hookpoint matches no module", is_of_run=True),
    "checkpoint_error": FailureClass("a checkpoint is damaged or does not fit", is_of_run=True),
    "checkpoint_missing": FailureClass("training ended without a checkpoint on disk"),
    "start_failed": FailureClass("training could not be started"),
    "trainer_crashed": FailureClass("the trainer ended with an error"),
}

UNKNOWN = FailureClass("training failed")
"""Any other reason code: an error of the program, which would come again."""
