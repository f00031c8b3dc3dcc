"""Processes of runs are found by their environment and told apart by id and start time."""

import os
import subprocess
import time
from collections.abc import Iterator

import psutil
import pytest

from server.db.ids import new_id
from services import python, wait_until
from worker import processes

FAMILY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)
"""


HEADLESS = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
ctypes.CDLL(None).syscall(60, 0)  # exit(2) of the main thread alone, on x86-64
"""


class Hung(psutil.Process):
    def send_signal(self, sig: int) -> None:
        """Without effect."""


@pytest.fixture
def run_id() -> str:
    return new_id()


@pytest.fixture
def family(run_id: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process of the run under fence 2, and its child in a session of its own."""
    environment = os.environ | processes.marks(run_id, 2, node=1)
    parent = subprocess.Popen(python("-c", FAMILY), env=environment, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    both = {parent.pid, child}  # a program that is just being started has no environment for a moment
    wait_until(lambda: {e.process.pid for e in processes.run_processes(run_id)} == both, timeout_s=10, what="the child")
    yield parent, child
    parent.kill()
    parent.wait()
    processes.kill_run(run_id, up_to_fence=2)


def test_all_processes_of_a_run_die_whatever_their_session(
    run_id: str, family: tuple[subprocess.Popen[str], int]
) -> None:
    parent, child = family
    assert {entry.process.pid for entry in processes.run_processes(run_id)} == {parent.pid, child}
    assert {(entry.fence, entry.node) for entry in processes.run_processes(run_id)} == {(2, 1)}
    assert processes.kill_run(run_id, up_to_fence=1) == set()
    assert processes.kill_run(run_id, up_to_fence=2, node=0) == set()  # the other node of this machine goes on
    assert len(list(processes.run_processes(run_id))) == 2
    assert processes.kill_run(run_id, up_to_fence=2) == set()
    wait_until(lambda: processes.start_time(child) == 0.0, timeout_s=5, what="the child to be gone")
    assert list(processes.run_processes(run_id)) == []


def test_an_orphaned_child_is_found(run_id: str, family: tuple[subprocess.Popen[str], int]) -> None:
    parent, child = family
    parent.kill()
    parent.wait()
    assert [entry.process.pid for entry in processes.run_processes(run_id)] == [child]
    processes.kill_run(run_id, up_to_fence=2)
    assert list(processes.run_processes(run_id)) == []


def test_a_process_that_survives_is_remembered_though_it_has_lost_its_environment(run_id: str) -> None:
    """A driver that hangs keeps a rank in the middle of its exit. Here it is one that signals do not reach."""
    process = subprocess.Popen(python("-c", "import time; time.sleep(60)"), env={})
    hung = Hung(process.pid)
    try:
        assert processes.kill([hung], timeout_s=0.1) == {hung}
        assert processes.kill_run(run_id, up_to_fence=2, also=[hung]) == {hung}
        assert processes.find([processes.identity(process.pid)]) == [hung]
        assert not processes.is_gone(processes.identity(process.pid))
    finally:
        process.kill()
        process.wait()
    assert processes.kill_run(run_id, up_to_fence=2, also=[hung]) == set()


def test_a_process_whose_main_thread_is_a_zombie_runs_as_long_as_another_thread(run_id: str) -> None:
    process = subprocess.Popen(python("-c", HEADLESS), env=os.environ | processes.marks(run_id, 1, node=0))
    one = processes.identity(process.pid)
    try:
        seen = psutil.Process(process.pid)
        wait_until(lambda: seen.status() == psutil.STATUS_ZOMBIE, timeout_s=60, what="the main thread to end")
        assert list(processes.run_processes(run_id)) == []  # its environment is gone
        assert not processes.is_gone(one)
    finally:
        process.kill()
        process.wait()
    assert processes.is_gone(one)


def test_a_process_is_known_by_id_and_start_time(family: tuple[subprocess.Popen[str], int]) -> None:
    parent, _ = family
    started = processes.start_time(parent.pid)
    assert processes.is_alive(parent.pid, started)
    assert not processes.is_alive(parent.pid, started - 10)
    parent.kill()
    time.sleep(0.2)
    assert not processes.is_alive(parent.pid, started)  # a zombie by now
    parent.wait()
    assert not processes.is_alive(parent.pid, started)
