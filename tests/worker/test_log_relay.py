"""What training writes reaches its log whole, unless it is a flood; then the log says so and stays bounded."""

import os
import subprocess
from pathlib import Path

import psutil
import pytest

from server.services.text import printable
from services import python, wait_until
from worker import log_relay
from worker.ending import read_tail
from worker.log_pipe import LogPipe
from worker.log_relay import BURST_BYTES, LAST_BYTES, MAX_BYTES, RATE_BYTES_PER_S, LogRelay


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Relayed:
    """A relay into a file, on a clock of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = Clock()
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.relay = LogRelay(self._descriptor, clock=self.clock)

    @property
    def content(self) -> bytes:
        return self.path.read_bytes()


@pytest.fixture
def relayed(tmp_path: Path) -> Relayed:
    return Relayed(tmp_path / "log")


LINE = b"x" * 99 + b"\n"


def flood(relayed: Relayed, num_bytes: int, block: bytes = LINE * 600) -> None:
    for _ in range(num_bytes // len(block)):
        relayed.relay.take(block)


def test_ordinary_output_is_copied_to_the_byte(relayed: Relayed) -> None:
    odd = [b"step 1\n", b"\x1b[31mred\x1b[0m\r", b"\x00\xff\xfe\n", "grüße".encode()[:4], b"no end"]
    for block in odd:
        relayed.relay.take(block)
    relayed.relay.finish()
    assert relayed.content == b"".join(odd)


def test_a_flood_is_cut_marked_and_ends_with_its_last_words(relayed: Relayed) -> None:
    flood(relayed, 5 * BURST_BYTES)
    relayed.relay.take(b"ValueError: the reason\n")
    relayed.relay.finish()
    assert len(relayed.content) <= BURST_BYTES + LAST_BYTES + 200
    assert relayed.content.count(b"[truncated: ") == 1
    assert relayed.content.endswith(b"ValueError: the reason\n")
    left_out = int(relayed.content.split(b"[truncated: ")[1].split(b" ")[0].replace(b",", b""))
    num_given = 5 * BURST_BYTES // len(LINE * 600) * len(LINE * 600) + len(b"ValueError: the reason\n")
    mark = next(line for line in relayed.content.splitlines(keepends=True) if line.startswith(b"[truncated"))
    assert left_out + len(relayed.content) - len(mark) == pytest.approx(num_given, abs=1)


def test_when_the_flood_ebbs_the_log_goes_on_at_a_lines_start(relayed: Relayed) -> None:
    flood(relayed, 2 * BURST_BYTES)
    relayed.clock.now += 2.0
    relayed.relay.take(b"the end of a line\nhere again\n")
    relayed.relay.finish()
    assert relayed.content.endswith(b"there was too much of it]\nhere again\n")


def test_a_flood_that_lasts_gets_the_rate_and_no_more(relayed: Relayed) -> None:
    flood(relayed, 2 * BURST_BYTES)
    before = len(relayed.content)
    for _ in range(100):
        relayed.clock.now += 0.1
        flood(relayed, 1 << 20)
    assert 0.5 < (len(relayed.content) - before) / (10 * RATE_BYTES_PER_S) < 1.2


def test_an_attempts_log_has_a_largest_size(relayed: Relayed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_relay, "MAX_BYTES", BURST_BYTES + 1000)
    for _ in range(100):
        relayed.clock.now += 100.0
        flood(relayed, 1 << 20)
    relayed.relay.finish()
    assert len(relayed.content) <= BURST_BYTES + 1000 + LAST_BYTES + 200
    assert MAX_BYTES > BURST_BYTES


def test_a_line_of_ten_megabytes_and_bytes_that_are_no_text_can_be_shown(relayed: Relayed) -> None:
    relayed.relay.take(b"first\n")
    flood(relayed, 10 << 20, block=b"\x1b[2K\x00\xff" * 10_000)
    relayed.relay.take(b"\nlast\n")
    relayed.relay.finish()
    assert read_tail(relayed.path).endswith("last")
    shown = printable(relayed.content[-64_000:])
    assert shown.endswith("last\n")
    assert "\x1b" not in shown
    assert "\x00" not in shown


def test_a_full_disk_costs_lines_and_not_the_relay() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    relay = LogRelay(descriptor)
    relay.take(b"lost\n")
    relay.take(b"lost too\n")
    relay.finish()
    os.close(descriptor)


def test_a_flood_from_a_process_takes_little_memory(tmp_path: Path) -> None:
    with (tmp_path / "log").open("ab") as log:
        relay = subprocess.Popen(python("-m", "worker.log_relay"), stdin=subprocess.PIPE, stdout=log)
    assert relay.stdin is not None
    block = os.urandom(1 << 20)
    for _ in range(100):
        relay.stdin.write(block)
    assert psutil.Process(relay.pid).memory_info().rss < 60 << 20
    relay.stdin.close()
    assert relay.wait(timeout=20) == 0
    assert (tmp_path / "log").stat().st_size < BURST_BYTES + 20 * RATE_BYTES_PER_S + LAST_BYTES


def test_a_relay_that_is_killed_is_replaced_and_the_writer_never_notices(tmp_path: Path) -> None:
    pipe = LogPipe(tmp_path / "log")
    writer = subprocess.Popen(python("-u", "-c", "for n in range(3): print(n); input()"), **_ends(pipe))
    pipe.close_inlet()
    assert writer.stdin is not None
    wait_until(lambda: (tmp_path / "log").read_text() == "0\n", timeout_s=10, what="the first line")
    pipe._relay.kill()
    pipe._relay.wait()
    writer.stdin.write(b"\n\n\n")
    writer.stdin.flush()
    assert writer.wait(timeout=10) == 0
    pipe.look_after()
    pipe.finish()
    assert (tmp_path / "log").read_text() == "0\n1\n2\n"


def _ends(pipe: LogPipe) -> dict[str, int]:
    return {"stdin": subprocess.PIPE, "stdout": pipe.inlet, "stderr": pipe.inlet}
