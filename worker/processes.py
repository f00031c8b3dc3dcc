"""Processes of runs: who is who, who is alive, and how to end all of them.

A process is named by its id, start time, boot and pid namespace, never by the id alone. Every process that works
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

from server.db.tables import ProcessIdentity

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


@lru_cache(maxsize=1)
def pid_namespace() -> str:
    """Names what process ids count in. Containers of one host have the same boot, and other processes by each id."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:  # no Linux: there is one for all
        return ""


def identity(pid: int) -> ProcessIdentity:
    """What tells a process that can be seen from here from all others."""
    return ProcessIdentity(pid=pid, started=start_time(pid), boot_id=boot_id(), pid_namespace=pid_namespace())


def find(identities: Iterable[ProcessIdentity]) -> list[psutil.Process]:
    """Those of them that still run, and can be seen from here."""
    here = (boot_id(), pid_namespace())
    found = [one for one in identities if (one["boot_id"], one["pid_namespace"]) == here]
    return [psutil.Process(one["pid"]) for one in found if is_alive(one["pid"], one["started"])]


def is_gone(one: ProcessIdentity) -> bool:
    """Whether a process of this host has ended. While the host is up, nobody knows that of another pid namespace."""
    if one["boot_id"] != boot_id():
        return True
    return one["pid_namespace"] == pid_namespace() and not is_alive(one["pid"], one["started"])


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
        return abs(start_time(pid) - started) < _START_TOLERANCE_S and is_running(psutil.Process(pid))
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


def kill(processes: Iterable[psutil.Process], timeout_s: float = 3.0) -> set[psutil.Process]:
    """SIGKILL every one of them and wait until they are gone. Returns those that survived (they hang in the kernel)."""
    doomed = list(set(processes))
    for process in doomed:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(doomed, timeout=timeout_s)
    return {process for process in alive if is_running(process)}


def kill_run(
    run_id: str, *, up_to_fence: int, node: int | None = None, also: Iterable[psutil.Process] = ()
) -> set[psutil.Process]:
    """Kill all processes of this host that work for a run under this fence or a lower one, and `also` these; with
    `node`, those of the other nodes under this very fence are left alone.

    Returns those that survived. A process that hangs while it exits has lost its environment, and is not found again:
    give it as one of `also`.
    """

    def marked() -> set[psutil.Process]:
        return {entry.process for entry in run_processes(run_id, up_to_fence=up_to_fence, node=node)}

    doomed, survivors = marked() | set(also), set[psutil.Process]()
    for _ in range(3):  # again, for what was being started meanwhile
        if not doomed:
            break
        survivors |= kill(doomed)
        doomed = marked() - survivors
    return {process for process in survivors if is_running(process)}


def is_running(process: psutil.Process) -> bool:
    """Whether a process, or one of its threads, still runs. A zombie does not."""
    try:
        return process.is_running() and (process.status() != psutil.STATUS_ZOMBIE or _has_threads(process.pid))
    except psutil.NoSuchProcess:
        return False


def _has_threads(pid: int) -> bool:
    """Whether a process whose main thread is a zombie has others that go on, or hang in the kernel."""
    try:
        return len(os.listdir(f"/proc/{pid}/task")) > 1
    except OSError:
        return False
