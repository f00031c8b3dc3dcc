"""Which devices a run gets."""

from server.db.tables import DeviceKind, Run
from worker.devices import is_visible, obstacle, place

GPUS = [{"index": index, "name": "GPU", "memory_bytes": 1} for index in range(4)]


def run(num_processes: int = 1, device: str = "auto") -> Run:
    return Run(name="r", config={"device": device}, num_processes=num_processes)


CPU = (DeviceKind.CPU, 0)


def gpus(*indices: int) -> set[tuple[str, int]]:
    return {(DeviceKind.GPU, index) for index in indices}


def test_a_run_gets_whole_gpus_that_nobody_leases() -> None:
    assert place(run(2), GPUS, set()) == [0, 1]
    assert place(run(2), GPUS, gpus(0, 2)) == [1, 3]
    assert place(run(2), GPUS, gpus(0, 1, 2)) is None


def test_a_host_without_gpus_trains_one_run_at_a_time() -> None:
    assert place(run(2), [], set()) == []
    assert place(run(), [], {CPU}) is None


def test_a_cpu_run_fits_beside_gpu_runs_but_not_beside_another_cpu_run() -> None:
    assert place(run(device="cpu"), GPUS, gpus(0, 1, 2, 3)) == []
    assert place(run(device="cpu"), GPUS, {CPU}) is None
    assert place(run(), GPUS, {CPU}) == [0]


def test_a_waiting_run_says_what_it_waits_for() -> None:
    assert obstacle(run(8), GPUS) == "needs 8 GPUs, the worker has 4"
    assert obstacle(run(1), GPUS) == "waits for 1 free GPU"
    assert obstacle(run(1), []) == "waits for the run before it"


def test_gpus_hidden_from_the_worker_are_not_used() -> None:
    device = {"index": 1, "uuid": "GPU-abcd"}
    assert is_visible(device, "0,1")
    assert is_visible(device, "GPU-ab")
    assert not is_visible(device, "0,2")
    assert not is_visible(device, "")
