"""What to do about a run that failed or was paused by a fault, by its reason code."""

from typing import NamedTuple

from server.db.tables import Run, RunState


class Advice(NamedTuple):
    """`action` is the button that helps: `retry`, `clone`, `resume` or, between two tries, `requeue`."""

    action: str
    sentence: str


ADVICE = {
    "worker_lost": Advice("retry", "See under Workers whether the machine is back, then retry."),
    "not_started": Advice("retry", "See under Workers which one starts nothing, drain or restart it, then retry."),
    "killed": Advice(
        "clone", "The machine most likely ran out of memory: clone it with a smaller batch_size or ctx_len."
    ),
    "cuda_error": Advice("retry", "Look at the GPU with nvidia-smi and in the kernel's log, then retry."),
    "communication_error": Advice("retry", "Check the network between the GPUs or hosts of the run, then retry."),
    "hub_unavailable": Advice("retry", "Check that the machine reaches huggingface.co, then retry."),
    "crashed": Advice("retry", "The end of the log says where. Retry goes on from the newest checkpoint."),
    "stalled": Advice("retry", "The end of the log says what it was doing. Retry goes on from the newest checkpoint."),
    "gpu_out_of_memory": Advice("clone", "Clone it with a smaller batch_size, a larger micro_acc_steps or more GPUs."),
    "disk_full": Advice("resume", "Delete checkpoints or runs that nobody needs, then resume it."),
    "hub_denied": Advice(
        "retry", "Accept the licence on the model's page, give the worker a token (HF_TOKEN), then retry."
    ),
    "non_finite_loss": Advice("clone", "Clone it with a smaller lr or a longer warm-up."),
    "config_error": Advice("clone", "Clone it and correct the value."),
    "model_error": Advice("clone", "Clone it and correct the model's name or revision."),
    "data_error": Advice("clone", "Clone it and correct the dataset, its split or its text column."),
    "hookpoint_error": Advice("clone", "Clone it and correct the hookpoints."),
    "checkpoint_error": Advice("clone", "Clone it: a fresh run does not read the damaged checkpoint."),
    "checkpoint_missing": Advice("retry", "Check that server and worker see the same data folder, then retry."),
    "start_failed": Advice("retry", "The end of the log says what is missing on the worker: repair it, then retry."),
    "trainer_crashed": Advice("retry", "The end of the log says what broke. Retry goes on from the newest checkpoint."),
}
_UNKNOWN = Advice("retry", "The end of the log says more.")


def advice(run: Run) -> Advice:
    """For a person who looks at the run."""
    match run.state:
        case RunState.FAILED:
            return ADVICE.get(run.reason_code, _UNKNOWN)
        case RunState.PAUSED:
            return ADVICE.get(run.reason_code, Advice("resume", ""))
        case RunState.RETRY_WAIT:
            return Advice("requeue", "")
        case _:
            return Advice("", "")
