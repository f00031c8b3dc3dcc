"""What people are told about a run that waits."""

import pytest

from server.scheduling import GB, DeviceKind, Gpu, HeldDevice, QueuedRun, Resources, RunningRun, WorkerView, schedule
from server.scheduling import never_satisfiable as never
from server.scheduling.explain import roughly


def worker(name: str, *gigabytes: int, labels: tuple[str, ...] = (), silent_s: float = 0.0) -> WorkerView:
    gpus = tuple(Gpu(index, size * GB, f"{name}-{index}") for index, size in enumerate(gigabytes))
    return WorkerView(name, name, gpus=gpus, labels=frozenset(labels), silent_s=silent_s)


def test_a_waiting_run_says_what_it_waits_for_and_when_that_comes() -> None:
    taken = [HeldDevice("w", DeviceKind.GPU, index, f"x{index}") for index in range(2)]
    running = {"x0": RunningRun("red-owl"), "x1": RunningRun("blue-fox", remaining_s=38 * 60)}
    runs = [QueuedRun("a", "a", Resources(2, min_memory_bytes=24 * GB)), QueuedRun("b", "b", Resources(1))]
    done = schedule(runs, [worker("w", 24, 24)], taken, running)
    assert done.waits_for == {
        "a": "waits for 2 GPUs of ≥24 GB; GPU 1 frees in ~40 min (run blue-fox); position 1",
        "b": "waits for 1 GPU; GPU 1 frees in ~40 min (run blue-fox); position 2",
    }
    unknown = schedule(runs, [worker("w", 24, 24), worker("v", 8)], taken[:1], {"x0": RunningRun("red-owl")})
    assert unknown.waits_for["a"] == "waits for 2 GPUs of ≥24 GB; GPU 0 of w is held by run red-owl; position 1"


def test_a_device_that_is_set_aside_is_named() -> None:
    aside = [HeldDevice("w", DeviceKind.GPU, 0, "x", is_quarantined=True)]
    done = schedule([QueuedRun("a", "a", Resources())], [worker("w", 24)], aside, {})
    assert "GPU 0 is set aside, because processes on it could not be ended" in done.waits_for["a"]


def test_a_run_without_any_worker_waits_for_one() -> None:
    done = schedule([QueuedRun("a", "a", Resources(8))], [worker("w", 24, silent_s=1000)], [], {})
    assert done.waits_for == {"a": "waits for a worker: none is connected; position 1"}
    assert never(Resources(8), [worker("w", silent_s=1000)]) is None


@pytest.mark.parametrize(
    ("resources", "sentence"),
    [
        (Resources(2, min_memory_bytes=24 * GB), None),
        (Resources(2, num_nodes=2), None),
        (Resources(64, device="cpu"), None),
        (Resources(3), "needs 3 GPUs, and no connected worker has more than 2 of them"),
        (Resources(1, min_memory_bytes=100 * GB), "needs 1 GPU of ≥100 GB, and no connected worker has any"),
        (Resources(2, num_nodes=3), "needs 2 GPUs on each of 3 workers, and only 2 connected workers could take part"),
        (
            Resources(1, labels=frozenset(["h100"])),
            "needs a worker labelled h100, and no connected worker has that label",
        ),
    ],
)
def test_what_idle_workers_could_not_start_is_never_satisfiable(resources: Resources, sentence: str | None) -> None:
    workers = [worker("a", 24, 24), worker("b", 80, 80, labels=("a100",))]
    assert never(resources, workers) == sentence


@pytest.mark.parametrize(
    ("seconds", "text"), [(1, "~1 min"), (38 * 60, "~40 min"), (7 * 60, "~7 min"), (7000, "~2 h"), (5e5, "~6 d")]
)
def test_durations_are_coarse(seconds: float, text: str) -> None:
    assert roughly(seconds) == text
