"""Who gets which devices: examples, and the rules that no queue may break."""

import itertools
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.scheduling import (
    ALIVE_S,
    GB,
    PATIENCE_S,
    DeviceKind,
    Gpu,
    HeldDevice,
    Node,
    QueuedRun,
    Resources,
    RunningRun,
    Schedule,
    WorkerView,
    schedule,
)


def worker(name: str, *gigabytes: int, **values: object) -> WorkerView:
    gpus = tuple(Gpu(index, size * GB, f"{name}-{index}") for index, size in enumerate(gigabytes))
    labels = frozenset(values.pop("labels", ()))  # type: ignore[call-overload]
    return WorkerView(name, name, gpus=gpus, labels=labels, **values)  # type: ignore[arg-type]


def queued(name: str, gpus: int = 1, *, rank: float = 0.0, priority: int = 0, **values: object) -> QueuedRun:
    timing = {key: values.pop(key) for key in ("waited_s", "duration_s") if key in values}
    labels = frozenset(values.pop("labels", ()))  # type: ignore[call-overload]
    resources = Resources(num_processes=gpus, labels=labels, **values)  # type: ignore[arg-type]
    return QueuedRun(name, name, resources, priority, rank, **timing)  # type: ignore[arg-type]


def held(worker: str, *indices: int, run: str, kind: DeviceKind = DeviceKind.GPU) -> list[HeldDevice]:
    return [HeldDevice(worker, kind, index, run) for index in indices]


def where(done: Schedule) -> dict[str, list[tuple[str, tuple[int, ...]]]]:
    return {p.run_id: [(node.worker_id, node.indices) for node in p.nodes] for p in done.placements}


def test_whole_gpus_go_to_the_fullest_worker_with_room_and_the_smallest_that_suffice() -> None:
    workers = [worker("big", 80, 80, 80, 80), worker("small", 24, 80, 24)]
    assert where(schedule([queued("a", 2)], workers, [], {})) == {"a": [("small", (0, 2))]}
    taken = held("small", 0, run="x")
    assert where(schedule([queued("a", 3)], workers, taken, {})) == {"a": [("big", (0, 1, 2))]}
    assert where(schedule([queued("a", 1, min_memory_bytes=40 * GB)], workers, taken, {})) == {"a": [("small", (1,))]}


def test_priority_then_rank_then_age_decide() -> None:
    runs = [queued("c"), queued("b", rank=-1), queued("a"), queued("d", priority=1)]
    assert list(where(schedule(runs, [worker("w", 1, 1)], [], {}))) == ["d", "b"]
    assert list(where(schedule(runs, [worker("w", 1, 1, 1, 1)], [], {}))) == ["d", "b", "a", "c"]


def test_labels_and_drains_and_silence_keep_runs_away() -> None:
    workers = [
        worker("plain", 80),
        worker("drained", 80, labels=["a100"], is_draining=True),
        worker("dead", 80, labels=["a100"], silent_s=ALIVE_S),
    ]
    done = schedule([queued("a", labels=["a100"])], workers, [], {})
    assert done.placements == []
    assert done.waits_for["a"] == (
        "waits for 1 GPU on a worker labelled a100; workers that have them are draining; position 1"
    )
    alive = [*workers, worker("alive", 80, labels=["a100", "fast"])]
    assert where(schedule([queued("a", labels=["a100"])], alive, [], {})) == {"a": [("alive", (0,))]}


def test_a_cpu_run_takes_a_slot_beside_gpu_runs_and_never_shares_it() -> None:
    host = worker("w", 80)
    assert where(schedule([queued("a", 4, device="cpu")], [host], held("w", 0, run="x"), {})) == {"a": [("w", (0,))]}
    done = schedule([queued("a", device="cpu")], [host], held("w", 0, run="x", kind=DeviceKind.CPU), {})
    assert done.waits_for == {"a": "waits for a CPU slot; the CPU is held; position 1"}


def test_auto_means_the_cpu_only_where_no_worker_with_the_labels_has_a_gpu() -> None:
    cpu, gpu = worker("c", labels=["lab"]), worker("g", 24)
    assert where(schedule([queued("a")], [cpu], [], {})) == {"a": [("c", (0,))]}
    assert where(schedule([queued("a")], [cpu, gpu], held("g", 0, run="x"), {})) == {}
    assert where(schedule([queued("a", labels=["lab"])], [cpu, gpu], [], {})) == {"a": [("c", (0,))]}
    assert where(schedule([queued("a", device="cuda")], [cpu], [], {})) == {}
    assert where(schedule([queued("a", min_memory_bytes=GB)], [cpu], [], {})) == {}


def test_a_gang_gets_all_its_nodes_or_none() -> None:
    workers = [worker("a", 24, 24), worker("b", 24, 24), worker("c", 24)]
    gang = queued("gang", 2, num_nodes=2)
    assert where(schedule([gang], workers, [], {})) == {"gang": [("a", (0, 1)), ("b", (0, 1))]}
    assert schedule([gang], workers, held("a", 0, run="x"), {}).placements == []


def test_two_workers_of_one_machine_never_give_the_same_gpu_away() -> None:
    shared = (Gpu(0, GB, "one"), Gpu(1, GB, "two"))
    workers = [WorkerView("a", "a", gpus=shared), WorkerView("b", "b", gpus=shared)]
    done = schedule([queued("r"), queued("s"), queued("t")], workers, held("b", 0, run="x"), {})
    assert where(done) == {"r": [("a", (1,))]}
    drained = [WorkerView("a", "a", gpus=shared), WorkerView("b", "b", gpus=shared, is_draining=True)]
    assert where(schedule([queued("r", 2)], drained, held("b", 0, run="x"), {})) == {}


def test_small_runs_pass_a_large_one_until_it_has_waited_long() -> None:
    workers, taken = [worker("w", 24, 24)], held("w", 0, run="x")
    running = {"x": RunningRun("x")}
    for waited_s, started in ((0.0, ["small"]), (PATIENCE_S + 1, [])):
        runs = [queued("large", 2, waited_s=waited_s), queued("small", rank=1)]
        assert list(where(schedule(runs, workers, taken, running))) == started
    assert schedule(runs, workers, taken, running).waits_for["small"] == (
        "waits for 1 GPU; what is free is kept for run large; position 2"
    )


def test_devices_that_are_free_soon_are_kept_for_the_first_in_line() -> None:
    workers, taken = [worker("w", 24, 24), worker("v", 24)], held("w", 0, run="x")
    running = {"x": RunningRun("x", remaining_s=600)}
    runs = [queued("large", 2), *(queued(name, rank=1) for name in ("a", "b"))]
    assert where(schedule(runs, workers, taken, running)) == {"a": [("v", (0,))]}
    short = [queued("large", 2), queued("a", rank=1), queued("b", rank=1, duration_s=599)]
    assert where(schedule(short, workers, taken, running)) == {"a": [("v", (0,))], "b": [("w", (1,))]}
    late = {"x": RunningRun("x", remaining_s=PATIENCE_S + 1)}
    assert len(where(schedule(runs, workers, taken, late))) == 2
    too_long = [queued("large", 2), queued("b", rank=1, duration_s=PATIENCE_S + 2)]
    assert where(schedule(too_long, [workers[0]], taken, late)) == {}


def test_a_run_that_can_never_start_reserves_nothing() -> None:
    runs = [queued("huge", 3, waited_s=1e6), queued("a", 2, waited_s=1e6, rank=1), queued("b", rank=2)]
    done = schedule(runs, [worker("w", 24, 24)], held("w", 0, run="x"), {})
    assert done.placements == []
    assert "kept for run a" in done.waits_for["b"]
    done = schedule(runs, [worker("w", 24, 24)], [HeldDevice("w", DeviceKind.GPU, 0, "x", is_quarantined=True)], {})
    assert list(where(done)) == ["b"]


def test_a_paused_queue_starts_nothing() -> None:
    done = schedule([queued("a")], [worker("w", 24)], [], {}, paused="upgrade at noon")
    assert (done.placements, done.waits_for) == ([], {"a": "the queue is paused: upgrade at noon; position 1"})


# ---- What holds for every queue

sizes = st.sampled_from([8, 24, 80])
labels = st.frozensets(st.sampled_from(["a100", "lab"]), max_size=2)


@st.composite
def clusters(draw: st.DrawFn) -> tuple[list[WorkerView], list[HeldDevice], dict[str, RunningRun]]:
    workers, taken, running = [], [], {}
    for number in range(draw(st.integers(0, 4))):
        one = worker(
            f"w{number}",
            *draw(st.lists(sizes, max_size=4)),
            labels=draw(labels),
            cpu_slots=draw(st.integers(1, 2)),
            is_draining=draw(st.booleans()) and draw(st.booleans()),
            silent_s=draw(st.sampled_from([0.0, 0.0, 0.0, 100.0])),
        )
        workers.append(one)
        places = [(DeviceKind.GPU, gpu.index) for gpu in one.gpus]
        places += [(DeviceKind.CPU, slot) for slot in range(one.cpu_slots)]
        for kind, index in places:
            if draw(st.booleans()):
                name = f"x{len(taken)}"
                taken.append(HeldDevice(one.id, kind, index, name, is_quarantined=draw(st.integers(0, 5)) == 0))
                running[name] = RunningRun(name, draw(st.none() | st.floats(1, 1e4)))
    return workers, taken, running


@st.composite
def queues(draw: st.DrawFn) -> list[QueuedRun]:
    return [
        queued(
            f"r{number}",
            draw(st.integers(1, 4)),
            num_nodes=draw(st.sampled_from([1, 1, 1, 2, 3])),
            min_memory_bytes=draw(st.sampled_from([0, 0, 24 * GB])),
            labels=draw(labels),
            device=draw(st.sampled_from(["auto", "auto", "cpu", "cuda"])),
            priority=draw(st.integers(0, 1)),
            rank=draw(st.integers(0, 2)),
            waited_s=draw(st.sampled_from([0.0, 2 * PATIENCE_S])),
            duration_s=draw(st.none() | st.floats(1, 1e4)),
        )
        for number in range(draw(st.integers(0, 6)))
    ]


def can_start(run: QueuedRun, workers: Sequence[WorkerView], free: set[tuple[str, DeviceKind, int]]) -> bool:
    """Whether some choice of devices would do, by trying all choices of workers."""
    able = []
    labelled = [w for w in workers if w.is_alive and run.resources.labels <= w.labels]
    has_gpus = any(w.gpus for w in labelled)
    cpu = run.resources.device == "cpu" or (
        run.resources.device == "auto" and not run.resources.min_memory_bytes and not has_gpus
    )
    for one in labelled:
        if one.is_draining:
            continue
        if cpu:
            room = not run.resources.min_memory_bytes and any(
                (one.id, DeviceKind.CPU, slot) in free for slot in range(one.cpu_slots)
            )
        else:
            large = [gpu for gpu in one.gpus if gpu.memory_bytes >= run.resources.min_memory_bytes]
            room = sum((one.id, DeviceKind.GPU, g.index) in free for g in large) >= run.resources.num_processes
        able.append(room)
    return any(all(choice) for choice in itertools.combinations(able, run.resources.num_nodes))


def every_device(workers: Sequence[WorkerView]) -> set[tuple[str, DeviceKind, int]]:
    gpus = {(w.id, DeviceKind.GPU, gpu.index) for w in workers for gpu in w.gpus}
    return gpus | {(w.id, DeviceKind.CPU, slot) for w in workers for slot in range(w.cpu_slots)}


def devices_of(node: Node) -> set[tuple[str, DeviceKind, int]]:
    return {(node.worker_id, node.kind, index) for index in node.indices}


@given(clusters(), queues())
@settings(max_examples=300, deadline=None)
def test_no_queue_breaks_the_rules(
    cluster: tuple[list[WorkerView], list[HeldDevice], dict[str, RunningRun]], runs: list[QueuedRun]
) -> None:
    workers, taken, running = cluster
    done = schedule(runs, workers, taken, running)
    free = every_device(workers) - {(one.worker_id, one.kind, one.index) for one in taken}
    placed = {placement.run_id: placement for placement in done.placements}
    assert placed.keys() | done.waits_for.keys() == {run.id for run in runs}
    assert not placed.keys() & done.waits_for.keys()

    may_hold_back = False  # whether devices may be kept for an earlier run
    for run in sorted(runs, key=lambda run: run.order):
        if run.id not in placed:
            # What fits starts, unless an earlier run is waited for.
            assert may_hold_back or not can_start(run, workers, free), run
            may_hold_back = True
            continue
        assert can_start(run, workers, free)
        nodes = placed[run.id].nodes
        assert len({node.worker_id for node in nodes}) == len(nodes) == run.resources.num_nodes
        for node in nodes:
            assert devices_of(node) <= free, "a device was given away twice"
            free -= devices_of(node)
    same = {}
    for run in sorted(runs, key=lambda run: run.order):
        if run.duration_s is None:  # of two equal runs the first in line starts first
            assert not (run.id in placed and same.get(run.resources) is False)
            same[run.resources] = run.id in placed


@given(clusters(), queues())
@settings(max_examples=200, deadline=None)
def test_nothing_idles_while_nobody_is_waited_for(
    cluster: tuple[list[WorkerView], list[HeldDevice], dict[str, RunningRun]], runs: list[QueuedRun]
) -> None:
    """Without estimates and without a run that has waited long, whatever fits starts."""
    workers, taken, running = cluster
    unknown = {name: RunningRun(name) for name in running}
    fresh = [QueuedRun(run.id, run.name, run.resources, run.priority, run.rank) for run in runs]
    done = schedule(fresh, workers, taken, unknown)
    free = every_device(workers) - {(one.worker_id, one.kind, one.index) for one in taken}
    for placement in done.placements:
        for node in placement.nodes:
            free -= devices_of(node)
    for run in fresh:
        assert run.id not in done.waits_for or not can_start(run, workers, free)


@given(st.integers(0, 2**32), st.integers(1, 2), st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_large_run_starts_however_many_small_ones_come(seed: int, num_nodes: int, is_known: bool) -> None:
    """Endless small runs on two workers, with and without estimates of their ends."""
    workers = [worker("a", 24, 24, 24), worker("b", 24, 24, 24)]
    chance, longest, now, number = random.Random(seed), 3000.0, 0.0, 0
    ends: dict[str, float] = {}
    places: dict[str, list[HeldDevice]] = {}
    large = queued("large", 3, num_nodes=num_nodes)
    while now <= PATIENCE_S + 2 * longest:
        for name in [name for name, end in ends.items() if end <= now]:
            del ends[name], places[name]
        small = [queued(f"s{number + i}", chance.randint(1, 2), rank=1) for i in range(4)]
        number += len(small)
        waiting = [QueuedRun("large", "large", large.resources, waited_s=now), *small]
        running = {name: RunningRun(name, end - now if is_known else None) for name, end in ends.items()}
        # The small ones are there first: when the queue opens, all devices are theirs.
        done = schedule(
            waiting if now else small, workers, [one for devices in places.values() for one in devices], running
        )
        for placement in done.placements:
            if placement.run_id == "large":
                return
            ends[placement.run_id] = now + chance.uniform(60, longest)
            places[placement.run_id] = [
                HeldDevice(node.worker_id, node.kind, index, placement.run_id)
                for node in placement.nodes
                for index in node.indices
            ]
        now += 60
    pytest.fail("the large run never started")
