"""Choosing launches: with a clock of our own on any machine, and on a GPU that no choice changes a bit."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="Triton exists for Linux only")
from triton import knobs
from triton.runtime.errors import OutOfResources

from sparsify_core import tuned
from sparsify_core.kernels import decode, encode_gemm, topk, tuning
from sparsify_core.kernels.maxima import group_maxima
from sparsify_core.kernels.tuning import Launch, Space

CUDA = torch.device("cuda")
SPACE = Space("op N 8", [{"num_warps": 4}, {"num_warps": 8}, {"num_warps": 16}])


@pytest.fixture(autouse=True)
def file(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where choices are kept, empty; nothing is remembered from other tests."""
    monkeypatch.setattr(tuning, "_chosen", {})
    return tuned.path()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[[Launch], None]:
    """A launch on a made-up GPU whose clock goes on by `run.ms[num_warps]`; None is more than it can hold."""

    class Event:
        now = 0.0

        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            self.at = Event.now

        def elapsed_time(self, end: "Event") -> float:
            return end.at - self.at

    class Run:
        def __init__(self) -> None:
            self.ms: dict[int, float | None] = {4: 1.0, 8: 0.5, 16: 2.0}
            self.calls = 0

        def __call__(self, launch: Launch) -> None:
            self.calls += 1
            time = self.ms[launch["num_warps"]]
            if time is None:
                raise OutOfResources(300, 200, "shared memory")
            Event.now += time

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Made-up")
    monkeypatch.setattr(knobs.runtime, "interpret", False)
    tuning._machine.cache_clear()
    yield Run()
    tuning._machine.cache_clear()


def test_a_cpu_takes_the_default_untimed(file: Path) -> None:
    calls: list[Launch] = []
    assert tuning.choose(SPACE, torch.device("cpu"), calls.append) is SPACE.launches[0]
    assert calls == []
    assert tuning.known(SPACE, torch.device("cpu")) is None
    assert not file.exists()


def test_the_interpreter_takes_the_default_untimed(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knobs.runtime, "interpret", True)
    assert tuning.choose(SPACE, CUDA, run) is SPACE.launches[0]
    assert run.calls == 0


@pytest.mark.parametrize(
    ("ms", "expected"),
    [
        ({4: 1.0, 8: 0.5, 16: 2.0}, 8),
        ({4: 1.0, 8: 0.99, 16: 2.0}, 4),  # a difference within the noise
        ({4: 1.0, 8: None, 16: 0.9}, 16),
        ({4: 1.0, 8: None, 16: None}, 4),
    ],
)
def test_the_fastest_that_fits_is_chosen_once(run, ms: dict[int, float | None], expected: int) -> None:
    run.ms = ms
    assert tuning.choose(SPACE, CUDA, run) == {"num_warps": expected}
    calls = run.calls
    assert tuning.choose(SPACE, CUDA, run) == {"num_warps": expected}
    assert run.calls == calls
    found = tuning.known(SPACE, CUDA)
    assert (found.ms, found.default_ms) == (pytest.approx(ms[expected]), pytest.approx(1.0))


def test_a_default_that_does_not_fit_is_an_error(run) -> None:
    run.ms = {4: None, 8: 1.0, 16: 1.0}
    with pytest.raises(OutOfResources):
        tuning.choose(SPACE, CUDA, run)


def test_other_processes_need_not_measure(run, monkeypatch: pytest.MonkeyPatch) -> None:
    tuning.choose(SPACE, CUDA, run)
    other = Space("op N 16", SPACE.launches)
    tuning.choose(other, CUDA, run)
    calls = run.calls
    monkeypatch.setattr(tuning, "_chosen", {})
    assert tuning.choose(SPACE, CUDA, run) == tuning.choose(other, CUDA, run) == {"num_warps": 8}
    assert run.calls == calls


def test_what_is_no_choice_any_more_is_measured_anew(run, monkeypatch: pytest.MonkeyPatch) -> None:
    tuning.choose(SPACE, CUDA, run)
    monkeypatch.setattr(tuning, "_chosen", {})
    assert tuning.choose(Space(SPACE.key, SPACE.launches[::2]), CUDA, run) == {"num_warps": 4}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"Made-up": {"launch": "x"}}'])
def test_a_broken_file_is_replaced(run, file: Path, text: str) -> None:
    file.parent.mkdir(parents=True)
    file.write_text(text)
    assert tuning.choose(SPACE, CUDA, run) == {"num_warps": 8}
    assert "op N 8" in file.read_text()
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_file_that_cannot_be_written_is_done_without(run, file: Path) -> None:
    file.parent.parent.joinpath("sparseboard").write_text("a file where the folder should be")
    assert tuning.choose(SPACE, CUDA, run) == {"num_warps": 8}
    assert tuning.choose(SPACE, CUDA, run) == {"num_warps": 8}


def test_sizes_that_wander_share_a_choice() -> None:
    assert [tuning.round_up(size) for size in (0, 1, 2, 3, 4, 5, 65_000, 65_536, 65_537)] == [
        1, 1, 2, 4, 4, 8, 65_536, 65_536, 131_072,
    ]  # fmt: skip


@pytest.mark.gpu
@pytest.mark.parametrize(("tokens", "latents", "width", "k"), [(4096, 18_432, 576, 32), (1000, 4104, 1032, 64)])
def test_no_choice_changes_a_bit(
    monkeypatch: pytest.MonkeyPatch, tokens: int, latents: int, width: int, k: int
) -> None:
    torch.manual_seed(0)
    x, weight = (torch.randn(rows, width, device="cuda").bfloat16() for rows in (tokens, latents))
    bias = torch.randn(latents, device="cuda")
    num_launches = [
        len(space.launches)
        for space in (
            encode_gemm.launches(tokens, latents, width, x.dtype),
            topk.launches(tokens, latents, k, x.dtype),
            decode.launches(tokens, tokens * k, weight.shape, x.dtype),
        )
    ]
    first = None
    for number in range(max(num_launches)):
        # Leave out the choice of the fastest: take each in turn.
        monkeypatch.setattr(tuning, "choose", lambda space, *_, n=number: space.launches[n % len(space.launches)])
        pre, maxima = encode_gemm.encode_gemm(x, weight, bias)
        acts, indices = topk.select_topk(pre, maxima, k)
        decoded = decode.decode(acts, indices, weight, bias[:width], dtype=torch.float32)
        results = (pre, maxima, acts, indices, decoded)
        first = first or results
        for ours, theirs in zip(results, first, strict=True):
            assert torch.equal(ours, theirs), number
    assert torch.equal(maxima, group_maxima(pre))


@pytest.mark.gpu
def test_a_launch_on_a_gpu_is_timed_once_and_kept(file: Path) -> None:
    pre = torch.randn(512, 4096, device="cuda")
    maxima = group_maxima(pre)
    first = topk.select_topk(pre, maxima, 8)
    found = tuning.known(topk.launches(512, 4096, 8, pre.dtype), pre.device)
    assert 0 < found.ms <= found.default_ms
    assert "topk N 512" in file.read_text()
    assert all(map(torch.equal, topk.select_topk(pre, maxima, 8), first))
