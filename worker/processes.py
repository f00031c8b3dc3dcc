"""Processes of runs: who is who, who is alive, and how to end all of them.

A process is named by its id, start time and boot, never by the id alone: ids are used again. Every process that works
for a run carries the run's id and fence in its environment, so it is found whatever session or parent it has. `killpg`
would not do: torchrun starts every rank in a session of its own.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import psutil

RUN_ID_VARIABLE = "SPARSEBOARD_RUN_ID"
FENCE_VARIABLE = "SPARSEBOARD_FENCE"
NODE_VARIABLE = "SPARSEBOARD_NODE"
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""Ask a supervisor to give its run back."""

_START_TOLERANCE_S = 0.1


@dataclass(frozen=True)
class RunProcess:
    """A living process of a run."""

    process: psutil.Process
    run_id: str
    fence: int
    node: int


def marks(run_id: str, fence: int, node: int) -> dict[str, str]:
    """What every process of a node of an attempt carries in its environment."""
    return {RUN_ID_VARIABLE: run_id, FENCE_VARIABLE: str(fence), NODE_VARIABLE: str(node)}


@lru_cache(maxsize=1)
def boot_id() -> str:
    """Names this boot of the host: processes of another one are gone, whatever their id."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return str(int(psutil.boot_time()))


def start_time(pid: int) -> float:
    """When a process started, in seconds on a clock that nobody sets: since boot on Linux. 0 when it is gone."""
    try:
        if not sys.platform.startswith("linux"):
            return psutil.Process(pid).create_time()
        # The name stands in parentheses and may hold anything; starttime is the 20th field behind it.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return 0.0


def is_alive(pid: int, started: float) -> bool:
    """Whether the process that had this id at that time still runs. A zombie does not."""
    try:
        return abs(start_time(pid) - started) < _START_TOLERANCE_S and _is_running(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return False


def run_processes(
    run_id: str | None = None, *, up_to_fence: int | None = None, node: int | None = None
) -> Iterator[RunProcess]:
    """All processes of runs on this host, or those of one run; never the caller.

    Args:
        up_to_fence: only those under this fence or a lower one.
        node: under this very fence only those of this node.
    """
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        try:
            environment = process.environ()
            owner, fence, number = (environment.get(name) for name in (RUN_ID_VARIABLE, FENCE_VARIABLE, NODE_VARIABLE))
        except (psutil.Error, OSError):
            continue
        if not (owner and fence and fence.isdecimal() and run_id in (None, owner)):
            continue
        entry = RunProcess(process, owner, int(fence), int(number) if number and number.isdecimal() else 0)
        if up_to_fence is not None and entry.fence > up_to_fence:
            continue
        if node is None or entry.fence != up_to_fence or entry.node == node:
            yield entry


def descendants(pid: int) -> list[psutil.Process]:
    """A process and everything that it started, as far as parents can tell."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def kill(processes: Iterable[psutil.Process], timeout_s: float = 3.0) -> int:
    """SIGKILL every one of them and wait until they are gone. Returns how many survived (they hang in the kernel)."""
    doomed = list(set(processes))
    for process in doomed:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(doomed, timeout=timeout_s)
    return sum(1 for process in alive if _is_running(process))


def kill_run(run_id: str, *, up_to_fence: int, node: int | None = None) -> int:
    """Kill all processes of this host that work for a run under this fence or a lower one; with `node`, those of the
    other nodes under this very fence are left alone. Returns how many there were.
    """
    count = 0
    for _ in range(3):  # again, for what was being started meanwhile
        found = [entry.process for entry in run_processes(run_id, up_to_fence=up_to_fence, node=node)]
        if not found:
            break
        count += len(found)
        kill(found)
    return count


def _is_running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
