"""Which devices a run gets."""

from types import SimpleNamespace

import pynvml
import pytest

from server.db.tables import Attempt, Run
from worker.devices import Gpus, is_visible, obstacle, place

GPUS = [{"index": index, "name": "GPU", "memory_bytes": 1} for index in range(4)]


def run(num_processes: int = 1, device: str = "auto") -> Run:
    return Run(name="r", config={"device": device}, num_processes=num_processes)


def held(*devices: int) -> Attempt:
    return Attempt(run_id="r", attempt=1, worker_id="w", host="h", devices=list(devices))


def test_a_run_gets_whole_gpus_that_nobody_leases() -> None:
    assert place(run(2), GPUS, []) == [0, 1]
    assert place(run(2), GPUS, [held(0), held(2)]) == [1, 3]
    assert place(run(2), GPUS, [held(0, 1, 2)]) is None


def test_a_host_without_gpus_trains_one_run_at_a_time() -> None:
    assert place(run(2), [], []) == []
    assert place(run(), [], [held()]) is None


def test_a_cpu_run_fits_beside_gpu_runs_but_not_beside_another_cpu_run() -> None:
    assert place(run(device="cpu"), GPUS, [held(0, 1, 2, 3)]) == []
    assert place(run(device="cpu"), GPUS, [held()]) is None
    assert place(run(), GPUS, [held()]) == [0]


def test_a_waiting_run_says_what_it_waits_for() -> None:
    assert obstacle(run(8), GPUS) == "queued: needs 8 GPUs, the worker has 4"
    assert obstacle(run(1), GPUS) == "queued: waiting for 1 free GPU"
    assert obstacle(run(1), []) == "queued: waiting for the run before it"


def test_gpus_hidden_from_the_worker_are_not_used() -> None:
    device = {"index": 1, "uuid": "GPU-abcd"}
    assert is_visible(device, "0,1")
    assert is_visible(device, "GPU-ab")
    assert not is_visible(device, "0,2")
    assert not is_visible(device, "")


def test_what_the_driver_does_not_tell_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the driver: a machine of tests has no GPU, and a slice of one knows no utilization."""

    def unsupported(_handle: int) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    answers = {
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetName": lambda handle: f"GPU {handle}",
        "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(total=80 << 30, used=handle << 30),
        "nvmlDeviceGetUUID": lambda handle: f"GPU-{handle}",
        "nvmlDeviceGetUtilizationRates": unsupported,
        "nvmlDeviceGetComputeRunningProcesses": lambda handle: ["process"] * handle,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, name, answer)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    gpus = Gpus()
    assert gpus.found == [{"index": 1, "name": "GPU 1", "memory_bytes": 80 << 30, "uuid": "GPU-1"}]
    assert gpus.measure() == [gpus.found[0] | {"used_bytes": 1 << 30, "num_processes": 1}]
