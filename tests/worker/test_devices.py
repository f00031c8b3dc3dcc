"""What a worker says of its GPUs."""

from pathlib import Path
from types import SimpleNamespace

import pynvml
import pytest

from worker.devices import Gpus, is_visible, measure_host


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
        "nvmlDeviceGetTemperature": lambda handle, sensor: 62,
        "nvmlDeviceGetPowerUsage": lambda handle: 312_500,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, name, answer)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    gpus = Gpus()
    assert gpus.found == [{"index": 1, "name": "GPU 1", "memory_bytes": 80 << 30, "uuid": "GPU-1"}]
    told = {"used_bytes": 1 << 30, "num_processes": 1, "temperature_c": 62, "power_w": 312.5}
    assert gpus.measure() == [gpus.found[0] | told]


def test_a_machine_without_gpus_measures_itself(tmp_path: Path) -> None:
    measure_host(tmp_path)
    load = measure_host(tmp_path)
    assert 0 <= load["cpu_frac"] <= 1
    assert 0 < load["memory_used_bytes"] < load["memory_bytes"]
    assert 0 < load["disk_free_bytes"] <= load["disk_bytes"]
