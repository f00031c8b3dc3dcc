"""Room that a run takes on the disk."""

from server.planning.job import Job
from sparsify_core.sizes import checkpoint_size


def checkpoint_bytes(job: Job) -> int:
    """Of one checkpoint: coders, optimizer state, and the look at latents."""
    return checkpoint_size(job.all_coders)


def kept_bytes(job: Job) -> int:
    """Of the checkpoints that are left at the end."""
    return checkpoint_bytes(job) * _num_at_most(job, job.config.keep_last + job.config.save_best)


def most_bytes(job: Job) -> int:
    """Of all checkpoints at the moment when there are most: the oldest goes once a new one is whole."""
    return checkpoint_bytes(job) * _num_at_most(job, job.config.keep_last + job.config.save_best + 1)


def _num_at_most(job: Job, limit: int) -> int:
    return min(limit, job.num_saves) if job.num_saves else limit


def cache_bytes(job: Job) -> int:
    """Of the activations that `cache_activations` writes for the training tokens, at most; 0 without it."""
    if job.config.cache_activations is None or job.num_tokens is None:
        return 0
    widths = {
        spec.hookpoint: spec.d_out + (spec.d_in if job.config.sae.transcode else 0) for spec in job.placement.coders
    }
    tokens = job.num_tokens // job.config.num_epochs
    return tokens * sum(widths.values()) * (2 if job.device.is_gpu else 4)
