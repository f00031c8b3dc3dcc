"""Where the time of a step goes: spans against brute force, whole runs, the floor against numbers counted by hand."""

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaModel

from runs import TrainFunction
from sparsify_core.capture.compile import compiled_layers
from sparsify_core.capture.forward import ActivationTap
from sparsify_core.capture.load import load_model
from sparsify_core.config import RunConfig
from sparsify_core.events import StepTimed
from sparsify_core.floor import PEAKS, Floor
from sparsify_core.parts import PARTS, WARM_UP_STEPS, Part
from sparsify_core.sizes import CoderSize
from sparsify_core.timing import Span, StepClock, spanned
from sparsify_core.train.distributed import Group
from sparsify_core.train.floor import build_floor, causal_operations, lm_operations
from sparsify_core.train.report import Reporter
from sparsify_core.train.waterfall import Waterfall

CPU = torch.device("cpu")
H100 = PEAKS["NVIDIA H100 80GB HBM3"]
SMALL = CoderSize(576, 576, 18_432, k=32)
LARGE = CoderSize(4096, 4096, 131_072, k=64)


class Collected(Reporter):
    """Keeps the events."""

    def __init__(self) -> None:
        super().__init__(None, Path("unused"))
        self.events: list[StepTimed] = []

    def event(self, event: object) -> None:
        assert isinstance(event, StepTimed)
        self.events.append(event)


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Work of so many milliseconds, on a machine that does nothing else."""
    now = [0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0] / 1000)

    def pass_ms(ms: int) -> None:
        now[0] += ms

    return pass_ms


def test_time_belongs_to_the_innermost_span(work: Callable[[int], None]) -> None:
    """Brute force: a random tree of spans, in which every piece of work notes the part that it stands in."""
    parts: list[Part] = list(PARTS)
    draw = random.Random(0)
    worked = dict.fromkeys(parts, 0)

    def piece(part: Part) -> None:
        ms = draw.randint(1, 9)
        worked[part] += ms
        work(ms)

    def grow(part: Part, depth: int) -> None:
        piece(part)
        for _ in range(3 if depth else 0):
            inner = draw.choice(parts)
            with Span(inner):
                grow(inner, depth - 1)
            piece(part)

    clock = StepClock(CPU)
    with clock.running():
        grow("other", 4)
    assert clock.milliseconds() == pytest.approx(worked)


def test_a_span_ends_with_an_exception_and_a_clock_with_its_step(work: Callable[[int], None]) -> None:
    @Span("encode")
    def fail() -> None:
        work(1)
        raise KeyError

    @Span("lm")
    def fail_inside() -> None:
        work(2)
        fail()

    clock = StepClock(CPU)
    with clock.running():
        with pytest.raises(KeyError):
            fail_inside()
        work(4)
    with pytest.raises(KeyError), StepClock(CPU).running():
        raise KeyError
    with Span("decode"):  # no clock runs any more
        work(8)
    assert clock.milliseconds() == pytest.approx({"encode": 1, "lm": 2, "other": 4})


def test_the_wait_for_items_is_a_span_and_their_use_is_not(work: Callable[[int], None]) -> None:
    def items() -> Iterator[int]:
        for number in range(3):
            work(10)
            yield number
        work(5)

    clock = StepClock(CPU)
    got = []
    with clock.running():
        for number in spanned("data", items()):
            got.append(number)
            work(1)
    assert got == [0, 1, 2]
    assert clock.milliseconds() == pytest.approx({"data": 35, "other": 3})


def test_steps_are_measured_once_warm_and_then_every_so_often() -> None:
    reporter = Collected()
    waterfall = Waterfall(10, CPU, reporter, floor=lambda: {"encode": 0.5})
    waterfall.start(17)
    for step in range(18, 51):
        with waterfall.step(step), Span("encode"):
            pass
    waterfall.flush()
    assert [event.step for event in reporter.events] == [17 + WARM_UP_STEPS + 1, 30, 40, 50]
    assert all(event.floor_ms == {"encode": 0.5} for event in reporter.events)


def test_the_floor_is_that_of_the_k_which_the_step_has_set() -> None:
    reporter, k = Collected(), [0.0]
    waterfall = Waterfall(1, CPU, reporter, floor=lambda: {"encode": k[0]})
    for step in range(1, WARM_UP_STEPS + 3):
        with waterfall.step(step):
            k[0] = float(step)
    waterfall.flush()
    assert [(event.step, event.floor_ms) for event in reporter.events] == [(6, {"encode": 6.0}), (7, {"encode": 7.0})]


def timed(events: list[StepTimed]) -> list[StepTimed]:
    return [event for event in events if event.type == "step_timed"]


def test_a_run_tells_where_its_time_goes(train: TrainFunction) -> None:
    done = train(waterfall_every=4, auxk_alpha=1 / 32, dead_feature_threshold=1, multi_topk=True)
    events = timed(done.events())
    assert [event.step for event in events] == [WARM_UP_STEPS + 1, 8]
    for event in events:
        assert set(event.parts_ms) == set(PARTS)
        assert sum(event.parts_ms.values()) == pytest.approx(event.total_ms)
        assert all(ms > 0 for ms in event.parts_ms.values())
        assert (event.floor_ms is None) == (done.events()[0].device not in PEAKS)


@pytest.mark.parametrize("changes", [{"activation": "batchtopk", "micro_acc_steps": 2}, {"loss_fn": "kl"}])
def test_other_ways_to_train_are_measured_too(train: TrainFunction, changes: dict[str, object]) -> None:
    (event,) = timed(train(waterfall_every=100, **changes).events())
    assert all(event.parts_ms[part] > 0 for part in ("data", "lm", "encode", "select", "decode", "backward"))


def test_with_cached_activations_the_model_takes_no_time(train: TrainFunction, tmp_path: Path) -> None:
    (event,) = timed(train(waterfall_every=100, cache_activations=tmp_path / "cache").events())
    assert event.parts_ms["data"] > 0
    assert "lm" not in event.parts_ms


def test_no_measurement_is_made_with_0_and_none_changes_the_run(train: TrainFunction) -> None:
    without, with_all = train("without", waterfall_every=0), train("with", waterfall_every=1)
    assert timed(without.events()) == []
    assert len(timed(with_all.events())) == 10 - WARM_UP_STEPS
    assert without.series("fvu/layers.0") == with_all.series("fvu/layers.0")


@pytest.mark.parametrize(
    ("coder", "tokens", "expected"),
    [
        (
            CoderSize(576, 576, 18432, k=32),
            65_536,
            {"lm": 12.7, "encode": 1.8, "decode": 0.3, "backward": 0.6, "optimizer": 0.13},
        ),
        (
            CoderSize(4096, 4096, 131_072, k=64),
            8192,
            {"lm": 12.7, "encode": 11.3, "decode": 1.4, "backward": 1.1, "optimizer": 6.4},
        ),
    ],
)
def test_the_floor_is_that_counted_by_hand(coder: CoderSize, tokens: int, expected: dict[str, float]) -> None:
    """Of two workloads on an H100, from measured rates: a decoder that stays in the cache, and one that does not."""
    floor = Floor(H100, lm_operations=9.89e12, num_tokens=tokens, state_bytes=18).milliseconds([coder])
    assert floor == pytest.approx(expected, rel=0.05)
    twice = Floor(H100, lm_operations=9.89e12, num_tokens=tokens, state_bytes=18).milliseconds([coder, coder])
    assert twice == pytest.approx({**{part: 2 * ms for part, ms in floor.items()}, "lm": floor["lm"]})


def test_a_cache_of_unknown_speed_counts_as_free() -> None:
    unknown = Floor(PEAKS["NVIDIA A100-SXM4-80GB"], 0.0, num_tokens=65_536, state_bytes=18).milliseconds([SMALL])
    assert unknown["decode"] == pytest.approx(1e3 * 2 * 576 * 18432 / 2.04e12)
    assert unknown["backward"] == pytest.approx(1e3 * 2 * 65_536 * (576 + 576) / 2.04e12)


@pytest.mark.parametrize("hookpoint", ["layers.0", "layers.1"])
def test_operations_of_the_model_as_far_as_the_hookpoint(tiny_model: Path, hookpoint: str) -> None:
    from transformers import AutoModel

    model = AutoModel.from_pretrained(tiny_model, attn_implementation="eager")
    depth, length = int(hookpoint[-1]) + 1, 16
    tap = ActivationTap(model, [hookpoint], needs_inputs=False)
    parameters = sum(p.numel() for layer in model.layers[:depth] for p in layer.parameters() if p.dim() == 2)
    attention = depth * 4 * length * length * model.config.hidden_size
    assert lm_operations(tap, CPU, length) == 2 * parameters * length + attention


def test_operations_of_attention_whose_queries_share_keys() -> None:
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=64,
    )
    model, length = LlamaModel(config), 16
    tap = ActivationTap(model, ["layers.0"], needs_inputs=False)
    parameters = sum(p.numel() for p in model.layers.parameters() if p.dim() == 2)
    attention = 4 * length * length * config.hidden_size
    assert lm_operations(tap, CPU, length) == 2 * parameters * length + attention / 2


def test_fused_attention_counts_by_the_half_that_a_causal_mask_leaves() -> None:
    assert causal_operations({"aten.mm": 10, "aten._scaled_dot_product_flash_attention": 8}) == 14


def test_a_cpu_has_no_floor(tiny_model: Path) -> None:
    config = RunConfig(model=str(tiny_model), device="cpu")
    tap = ActivationTap(load_model(config, CPU).base_model, ["layers.0"], needs_inputs=False)
    assert build_floor(config, tap, [], Group(config), length=16) is None


@pytest.mark.gpu
def test_on_cuda_the_time_is_the_device_s_and_nobody_waits_for_it() -> None:
    clock = StepClock(torch.device("cuda"))
    with clock.running(), Span("lm"):
        torch.cuda._sleep(200_000_000)  # cycles: about a tenth of a second, which the host does not spend
    assert not clock.is_read_at_once()
    found = clock.milliseconds()
    assert clock.is_read_at_once()
    assert found["lm"] > 10 * found["other"]


@pytest.mark.gpu
def test_the_model_s_operations_are_counted_on_cuda_though_it_is_compiled(tiny_model: Path) -> None:
    from transformers import AutoModel

    device, length = torch.device("cuda"), 128
    model = AutoModel.from_pretrained(tiny_model, dtype=torch.bfloat16).to(device)
    tap = ActivationTap(model, ["layers.1"], needs_inputs=False)
    parameters = sum(p.numel() for layer in model.layers for p in layer.parameters() if p.dim() == 2)
    with compiled_layers(model, ["layers.1"], RunConfig(compile_model="on"), device):
        counted = lm_operations(tap, device, length)
    attention = 2 * 4 * length * length * model.config.hidden_size
    assert 2 * parameters * length + attention / 2 == pytest.approx(counted, rel=0.01)
