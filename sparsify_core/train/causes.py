"""Which of our errors an exception of somebody else's code is: it decides whether a run is tried again."""

import errno
from collections.abc import Iterator
from http import HTTPStatus

import torch
from huggingface_hub.errors import HfHubHTTPError
from torch import distributed

from sparsify_core.errors import (
    CommunicationError,
    DeviceError,
    DiskFullError,
    GpuMemoryError,
    HubDeniedError,
    HubUnavailableError,
    ModelError,
)

_DENIED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


def as_failure(error: BaseException) -> BaseException:
    """The error to report for one that ended an attempt; the same where we have no better name for it."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError("the disk is full: make room and resume the run")
    if isinstance(error, torch.OutOfMemoryError):
        return GpuMemoryError(
            "the GPU has not enough memory: lower batch_size, expansion_factor or the number of hookpoints"
        )
    if type(error).__name__ in ("BackendCompilerFailed", "InductorError"):  # torch._dynamo.exc moves them about
        return ModelError(f"the model's layers cannot be compiled ({_first_line(error)}): set compile_model off")
    is_gloo = type(error) is RuntimeError and "gloo" in str(error)  # which has no class of its own
    if is_gloo or isinstance(error, distributed.DistError):
        return CommunicationError(f"the training processes lost touch with each other ({_first_line(error)})")
    if isinstance(error, RuntimeError) and "CUDA error" in str(error):
        return DeviceError(f"the GPU reported an error ({_first_line(error)})")
    return _hub_failure(error) or error


def _hub_failure(error: BaseException) -> BaseException | None:
    for cause in _chain(error):
        if not isinstance(cause, HfHubHTTPError):
            continue
        status = cause.response.status_code
        if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return HubUnavailableError(str(error))
        if status in _DENIED:
            return HubDeniedError(str(error))
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
