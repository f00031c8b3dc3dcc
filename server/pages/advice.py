"""What to do about a run that failed or waits to be tried again, by its reason code."""

ADVICE = {
    "worker_lost": "See under Workers whether the machine is back, then retry.",
    "killed": "Give the machine more memory or the run less: a smaller batch_size or ctx_len. Then retry.",
    "cuda_error": "Look at the GPU with nvidia-smi and in the kernel's log, then retry, if need be on another one.",
    "communication_error": "Check the network between the GPUs or hosts of the run, then retry.",
    "hub_unavailable": "Check that the machine reaches huggingface.co, then retry.",
    "crashed": "The end of the log says where it crashed. Retry goes on from the newest checkpoint.",
    "stalled": "The end of the log says what it was doing. Retry goes on from the newest checkpoint.",
    "gpu_out_of_memory": "Clone it with a smaller batch_size or a larger micro_acc_steps, or take more or larger GPUs.",
    "disk_full": "Delete checkpoints or runs that nobody needs, then resume it.",
    "hub_denied": "Accept the licence on the model's page at the Hub and give the worker a token (HF_TOKEN), then retry.",
    "non_finite_loss": "Clone it with a smaller lr or a longer warm-up; the newest checkpoint is from before the NaN.",
    "config_error": "Clone it and correct the value.",
    "model_error": "Clone it and correct the model's name or revision.",
    "data_error": "Clone it and correct the dataset, its split or its text column.",
    "hookpoint_error": "Clone it and correct the hookpoints.",
    "checkpoint_error": "Clone it: a fresh run does not read the damaged checkpoint.",
    "checkpoint_missing": "Check that the data folder is the same disk for server and worker, then retry.",
    "start_failed": "The end of the log says what is missing on the worker. Repair it, then retry.",
    "trainer_crashed": "The end of the log says what broke. Retry goes on from the newest checkpoint.",
}
_UNKNOWN = "The end of the log says more."


def advice(reason_code: str) -> str:
    """One or two sentences for a person."""
    return ADVICE.get(reason_code, _UNKNOWN)
