"""What an exception of somebody else's code is called: it decides whether a run is tried again."""

import errno

import httpx2
import pytest
import torch
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError
from torch import distributed

from sparsify_core.errors import ModelError, SparsifyError
from sparsify_core.train.causes import as_failure


def hub(status: int) -> ModelError:
    """What is left of the Hub's answer once transformers and we have wrapped it."""
    request = httpx2.Request("GET", "https://hub.example/owner/model")
    kind = GatedRepoError if status == 403 else HfHubHTTPError
    try:
        try:
            raise kind("no", response=httpx2.Response(status, request=request))
        except HfHubHTTPError as error:
            raise OSError("cannot load owner/model") from error
    except OSError as error:
        wrapped = ModelError(f"owner/model cannot be loaded: {error}")
        wrapped.__cause__ = error
        return wrapped


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOSPC, "no space"), "disk_full"),
        (torch.OutOfMemoryError("CUDA out of memory"), "gpu_out_of_memory"),
        (RuntimeError("CUDA error: an illegal memory access was encountered\nmore"), "cuda_error"),
        (distributed.DistBackendError("NCCL timeout"), "communication_error"),
        (RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer"), "communication_error"),
        (hub(503), "hub_unavailable"),
        (hub(429), "hub_unavailable"),
        (hub(401), "hub_denied"),
        (hub(403), "hub_denied"),
        (hub(404), "model_error"),
        (ModelError("the model gloo-1b cannot be loaded"), "model_error"),
    ],
)
def test_an_error_gets_the_name_of_its_class(error: Exception, code: str) -> None:
    failure = as_failure(error)
    assert isinstance(failure, SparsifyError)
    assert failure.code == code
    assert "\n" not in str(failure)


def test_an_error_of_ours_keeps_its_message() -> None:
    assert "owner/model cannot be loaded" in str(as_failure(hub(503)))


def test_a_defect_stays_what_it_is() -> None:
    defect = ZeroDivisionError("oops")
    assert as_failure(defect) is defect
