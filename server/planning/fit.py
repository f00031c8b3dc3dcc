"""How to make a run fit a device that is too small for it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from server.planning.job import Job
from server.planning.warnings import Fix

_AT_MOST = 2


def ways_to_fit(job: Job, fits: Callable[[Job], bool]) -> list[Fix]:
    """Changes after which it fits, each the smallest of its kind; those that change nothing else first.

    Args:
        fits: whether a job has room.
    """
    ways = {
        "Cut batches into {micro_acc_steps:,} chunks": _chunks(job),
        "Take {batch_size:,} sequences {grad_acc_steps:,} times a step": _smaller_batches(job),
        "Take {batch_size:,} sequences {grad_acc_steps:,} times a step, one by one": _one_by_one(job),
        "Keep Adam's state in 8 bits": _eight_bits(job),
    }
    found = []
    for label, changes in ways.items():
        values = next((values for values in changes if fits(_changed(job, values))), None)
        if values is not None:
            found.append(Fix(label.format(**values), {f"config.{name}": value for name, value in values.items()}))
    return found[:_AT_MOST]


def _changed(job: Job, values: dict[str, Any]) -> Job:
    return replace(job, config=job.config.model_copy(update=values))


def _chunks(job: Job) -> Iterator[dict[str, Any]]:
    chunks = 2 * job.config.micro_acc_steps
    while chunks <= job.config.batch_size:
        yield {"micro_acc_steps": chunks}
        chunks *= 2


def _smaller_batches(job: Job) -> Iterator[dict[str, Any]]:
    """As many sequences a step, so that it learns the same."""
    size, steps = job.config.batch_size, job.config.grad_acc_steps
    while size % 2 == 0:
        size, steps = size // 2, steps * 2
        yield {"batch_size": size, "grad_acc_steps": steps}


def _one_by_one(job: Job) -> Iterator[dict[str, Any]]:
    for values in _smaller_batches(job):
        if values["batch_size"] > job.config.micro_acc_steps:
            yield values | {"micro_acc_steps": values["batch_size"]}


def _eight_bits(job: Job) -> Iterator[dict[str, Any]]:
    if job.config.optimizer == "adam" and job.config.adam_bits == "32" and job.device.is_gpu:
        yield {"adam_bits": "8"}
