"""The charts' arithmetic, run where it runs for users: buckets, smoothing, axes, the view in the address."""

import math
import random
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from server.numbers import metric

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.e2e]

FORMS = ("plain", "ratio", "percent", "rate", "bytes")
NUMBERS = (0.0, 7e-9, 9.97e-7, 2e-6, 3.14e-5, 0.00123, 0.0312, 0.18341, 1.0, 31.62, 1234.6, 54_321.9, 2.5e6, 2e12)

WEB = Path(__file__).parents[2] / "web"
Run = Callable[..., Any]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def run(chromium: "Browser") -> Iterator[Run]:
    """`run(module, body, argument)` evaluates a function body that sees the module as `m` and the argument as `a`."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(WEB))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = chromium.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/")

        def evaluate(module: str, body: str, argument: object = None) -> Any:
            script = f"async (a) => {{ const m = await import('/static/js/charts/{module}.js'); {body} }}"
            return page.evaluate(script, argument)

        yield evaluate
        page.close()
        server.shutdown()


GROW = """
const series = new m.Series(a.width ?? 1);
for (const point of a.points) series.put(...point);
return {...series};
"""


def bucketed(points: list[tuple[int, float]], width: int) -> dict[str, list[float]]:
    """What the server makes of the points: last, least and greatest of every bucket."""
    buckets: dict[int, list[tuple[int, float]]] = {}
    for step, value in points:
        buckets.setdefault(step // width, []).append((step, value))
    members = [sorted(buckets[key]) for key in sorted(buckets)]
    return {
        "steps": [each[-1][0] for each in members],
        "values": [each[-1][1] for each in members],
        "min": [min(value for _, value in each) for each in members],
        "max": [max(value for _, value in each) for each in members],
    }


def test_live_points_give_the_servers_buckets_in_any_order_and_twice(run: Run) -> None:
    noise = random.Random(3)
    points = [(step, noise.random()) for step in range(1, 400, 3)]
    shuffled = noise.sample(points, len(points)) + noise.sample(points, 60)
    for width in (1, 4, 32):
        sent = [[step, value, 1000.0 + step] for step, value in shuffled]
        found = run("series", GROW, {"points": sent, "width": width})
        assert {name: found[name] for name in ("steps", "values", "min", "max")} == bucketed(points, width)
        assert found["ts"] == [1000.0 + step for step in found["steps"]]


def test_a_long_series_is_merged_to_half_and_keeps_its_extremes(run: Run) -> None:
    points = [(step, float(step * 7919 % 1000)) for step in range(10_000)]
    grow = "const s = new m.Series(); for (let i = 0; i < a; i++) s.put(i, (i * 7919) % 1000, 0); return {...s};"
    found = run("series", grow, len(points))
    assert found["width"] == 4
    assert {name: found[name] for name in ("steps", "values", "min", "max")} == bucketed(points, 4)


REFINE = """
const answers = [];
window.fetch = (url) => new Promise((resolve) => answers.push((series) => resolve(Response.json({series}))));
const answer = async (series) => {
  while (!answers.length) await new Promise((wait) => setTimeout(wait, 10));
  answers.shift()({lr: series});
};
let drawn = () => {};
const source = new m.RunSource("run", () => drawn(), () => {});
const [view, run] = [{x: "step", zoom: [4, 12]}, {}];
source.want(["lr"]);
await answer({steps: [3, 7, 11], values: [3, 7, 11], ts: [3, 7, 11], width: 4});
while (!source.series.has("lr")) await new Promise((wait) => setTimeout(wait, 10));
source.refine(["lr"], view, () => run);
while (!answers.length) await new Promise((wait) => setTimeout(wait, 10));
source.put("lr", 12, 12, 12);
source.put("lr", 400, 400, 400);
const isDrawn = new Promise((resolve) => (drawn = resolve));
await answer({steps: [10, 11], values: [10, 11], ts: [10, 11]});
await isDrawn;
return source.detailOf("lr", view, run).steps;
"""


def test_points_that_come_while_a_zoom_loads_are_in_it(run: Run) -> None:
    assert run("run-source", REFINE) == [10, 11, 12]


def test_what_is_no_number_is_a_hole(run: Run) -> None:
    found = run("series", GROW, {"points": [[1, 0.5, 0], [2, "nan", 0], [3, "inf", 0]]})
    assert found["values"] == [0.5, None, None]
    merged = run("series", GROW, {"points": [[2, 0.5, 0], [3, "nan", 0]], "width": 2})
    assert (merged["values"], merged["min"], merged["max"]) == ([None], [0.5], [0.5])


SMOOTH = "return m.smooth(a.x, a.y, a.weight, a.range);"


def test_smoothing_weighs_distance_and_has_no_pull_to_its_start(run: Run) -> None:
    assert run("smooth", SMOOTH, {"x": [1, 2, 3], "y": [7, 7, 7], "weight": 0.9, "range": 2}) == pytest.approx([7] * 3)
    assert run("smooth", SMOOTH, {"x": [1, 2], "y": [1, 2], "weight": 0, "range": 1}) == [1, 2]
    decay = math.sqrt(0.9) ** (4 / 1000 * 1000)
    found = run("smooth", SMOOTH, {"x": [0, 4, 8], "y": [1.0, None, 3.0], "weight": 0.9, "range": 1000})
    assert found == [1.0, None, pytest.approx((1 * decay**2 + 3) / (decay**2 + 1))]


BANDS = """
const series = {steps: [3, 7], ts: [0, 0], values: [5, 3], min: [1, 2], max: [9, 4], width: 4};
const bands = (count, smoothing) => {
  const found = m.prepare(Array(count).fill({series}), {x: "step", smoothing}, [3, 7]);
  return [found.columns[0].band, Math.max(...m.drawnColumns(found).flat())];
};
return [bands(1, 0), bands(1, 0.9), bands(7, 0.9)];
"""


def test_buckets_have_a_band_also_behind_a_smoothed_line(run: Run) -> None:
    band = {"min": [1, 2], "max": [9, 4]}
    assert run("columns", BANDS) == [[band, 9], [band, 9], [None, 5]]


AXIS = """
const series = {steps: [10, 20], ts: [105, 130]};
return m.X_MODES.map((mode) => m.xOf(series, mode, {tokensPerStep: 512, origin: 100}));
"""


def test_steps_are_told_in_tokens_and_wall_time(run: Run) -> None:
    assert run("axis", AXIS) == [[10, 20], [5120, 10_240], [5, 30]]
    between = "return a.map((value) => m.translate(value, [10, 20, 40], [0, 100, 110]));"
    assert run("axis", between, [10, 15, 30, 45]) == [0, 50, 105, 112.5]
    forked = AXIS.replace("origin: 100", "origin: 100, before: {steps: 40, tokens: 9000}")
    assert run("axis", forked) == [[50, 60], [14_120, 19_240], [5, 30]]


MARKS = """
const series = {steps: [10, 20], ts: [105, 125], length: 2};
const axis = {tokensPerStep: 2, origin: 100, before: {steps: 1, tokens: 3}};
const made = [{kind: "checkpoint", label: "saved", step: 15}, {kind: "warning", label: "slow", ts: 115}];
const places = ["step", "tokens", "time"].map((mode) => m.placed(made, mode, axis, series).map(({x}) => x));
const marksOf = (number) => m.placed(made.slice(number - 1), "step", axis, series);
const both = [1, 2].flatMap((number) => marksOf(number).map((mark) => ({...mark, number, color: number - 1})));
return [places, m.merged(both).map(({label, color}) => [label, color ?? null])];
"""


def test_marks_stand_on_every_axis_and_alike_ones_of_several_runs_are_one(run: Run) -> None:
    places, merged = run("marks", MARKS)
    assert places == [[16, 16], [33, 33], [15, 15]]
    assert merged == [["1: saved", 0], ["1, 2: slow", None]]


def test_series_of_different_steps_share_an_axis(run: Run) -> None:
    joined = "const {x, places} = m.join(a); const spread = (p, i) => m.spread(a[i], p, x.length).map(v => v ?? -1);"
    found = run("axis", joined + "return [x, ...places.map(spread)];", [[1, 2, 3], [2, 4]])
    assert found == [[1, 2, 3, 4], [1, 2, 3, -1], [-1, 2, -1, 4]]


def test_numbers_read_like_those_of_the_server(run: Run) -> None:
    write = "return a.map(([form, value]) => m.format(form, value));"
    pairs = [(form, number) for form in FORMS for number in NUMBERS]
    assert run("numbers", write, pairs) == [metric(number, form) for form, number in pairs]
    assert run("numbers", write, [("plain", None)]) == [metric(None)]


def test_ticks_tell_neighbours_apart(run: Run) -> None:
    write = "return a.map((value) => m.tick('plain', value));"
    ticks = [0, 2.5e-4, 5e-4, 7.5e-4, 1e-3, 0.25, 12_500]
    assert run("numbers", write, ticks) == ["0", "2.5e-04", "5e-04", "7.5e-04", "0.001", "0.25", "12.5k"]


def test_ticks_are_told_apart_and_have_no_more_decimals_than_that_takes(run: Run) -> None:
    close = [31.997, 31.998, 31.999, 32]
    sets = [["plain", close], ["plain", [0, 0.25, 0.5]], ["percent", [0.9995, 0.9996, 1]], ["bytes", [2.1e9, 2.15e9]]]
    assert run("numbers", "return a.map(([form, values]) => m.ticks(form, values));", sets) == [
        ["31.997", "31.998", "31.999", "32"],
        ["0", "0.25", "0.5"],
        ["99.95%", "99.96%", "100%"],
        ["2.1 GB", "2.15 GB"],
    ]


def test_a_log_axis_has_labels_however_narrow_it_is(run: Run) -> None:
    body = "return a.map(([min, max]) => m.logLabels((splits) => m.ticks('ratio', splits), m.logSplits(min, max)));"
    found = run("numbers", body, [[0.331, 0.362], [0.29, 0.75], [0.02, 0.9], [0.001, 20], [0.8, 0.92]])
    assert found[0] == ["0.34", "0.35", "0.36"]
    assert found[1] == ["0.3", "0.4", "0.5", "0.6", "0.7"]
    assert [text for text in found[2] if text] == ["0.02", "0.03", "0.05", "0.07", "0.1", "0.2", "0.3", "0.5", "0.7"]
    assert [text for text in found[3] if text] == ["0.001", "0.01", "0.1", "1", "10"]
    assert found[4] == ["0.8", "0.82", "0.84", "0.86", "0.88", "0.9", "0.92"]


VIEW = """
const view = m.readView(new URLSearchParams(a));
return [{...view, flipped: [...view.flipped]}, m.writeView(view, new URLSearchParams(a)).toString()];
"""


def test_the_view_is_read_from_the_address_and_written_back(run: Run) -> None:
    address = "run=7&x=tokens&logx=1&smooth=0.6&zoom=1000%7E2500.5&layout=multiples&flip=lr&marks=0&show=mlp&part=2"
    view, written = run("view", VIEW, address)
    assert (view["x"], view["smoothing"], view["zoom"], view["page"]) == ("tokens", 0.6, [1000, 2500.5], 2)
    assert written == address
    wrong, plain = run("view", VIEW, "run=7&x=moon&smooth=9&zoom=5~1&layout=pie&part=-3")
    assert (wrong["x"], wrong["smoothing"], wrong["zoom"], wrong["layout"], wrong["page"]) == (
        "step",
        0,
        None,
        "overlay",
        1,
    )
    assert plain == "run=7"
