// Charts of several runs on one grid: a line per run and hookpoint, in the run's colour. Those that are not over grow.
import { xOf } from "./charts/axis.js";
import { Catalog } from "./charts/catalog.js";
import { Chart } from "./charts/chart.js";
import { Controls } from "./charts/controls.js";
import { ChartGroup } from "./charts/group.js";
import { longest, merged, placed } from "./charts/marks.js";
import { count } from "./charts/numbers.js";
import { OverlaySource, idOf, runOf } from "./charts/overlay-source.js";
import { coderOf, metricOf } from "./charts/series.js";
import { readView, writeView } from "./charts/view.js";
import { coalesce, connect, drop } from "./live.js";

const section = document.getElementById("curves");
const catalog = new Catalog();
let runs = readRuns();
const source = new OverlaySource(draw, refine);
const group = new ChartGroup(readView(new URLSearchParams(location.search)), { onView, onShow: (chart) => load([chart]), marksOf: () => [...ownMarks(), ...branches()], live: document.getElementById("curves-live") });
const controls = new Controls(section.querySelector(".chart-bar"), group);
const charts = [...section.querySelectorAll("figure.chart")].map((figure) => new Chart(figure, group, linesOf));

/** What the page says of the runs, by id; the region that says it follows them. */
function readRuns() {
  const told = JSON.parse(document.getElementById("runs-drawn").dataset.runs);
  for (const key of told.flatMap((run) => run.keys)) catalog.add(key);
  return new Map(
    told.map((run, place) => [
      run.id,
      { ...run, place, title: `${place + 1} ${run.name}`, axis: { tokensPerStep: run.tokens_per_step || 1, origin: run.origin, before: run.before } },
    ]),
  );
}

function idsOf(chart) {
  return catalog.keysOf(chart.metrics, group.view).flatMap((key) => [...runs.keys()].map((run) => idOf(run, key)));
}

function inSight() {
  return charts.filter((chart) => chart.isVisible);
}

function load(wanted) {
  source.want(wanted.flatMap(idsOf));
  refine();
}

function refine() {
  source.refine(inSight().flatMap(idsOf), group.view, (id) => runs.get(runOf(id)).axis);
}

/** Checkpoints, attempts and warnings, each in its run's colour. */
function ownMarks() {
  const all = [...runs.values()].flatMap((run) => {
    const own = [...source.series].filter(([id]) => runOf(id) === run.id);
    const marks = placed(run.marks, group.view.x, run.axis, longest(own.map(([, series]) => series)));
    return marks.map((mark) => ({ ...mark, number: run.place + 1, color: run.place }));
  });
  return merged(all);
}

/** Where forks leave the lines of their parents; wall time knows no such place. */
function branches() {
  if (group.view.x === "time") return [];
  return [...runs.values()].filter(({ branch }) => branch).map(({ place, branch }) => {
    const [x] = xOf({ steps: [branch.step] }, group.view.x, runs.get(branch.parent).axis);
    return { kind: "branch", label: `${place + 1} is forked here`, x, color: place, parent: branch.parent };
  });
}

/** Where a fork comes from, in words. */
function originOf({ branch }) {
  return branch && `fork of ${runs.get(branch.parent).place + 1} at step ${count(branch.step)}`;
}

function linesOf(chart) {
  const [labels, kinds] = [chart.figure.dataset.labels, chart.figure.dataset.kinds].map((text) => JSON.parse(text));
  const isDrawn = (key) => [...runs.keys()].some((run) => source.series.get(idOf(run, key))?.length);
  const keys = catalog.keysOf(chart.metrics, group.view).filter(isDrawn);
  const areCoders = new Set(keys.map(coderOf)).size > 1;
  const areMetrics = new Set(keys.map(metricOf)).size > 1;
  return keys.flatMap((key) =>
    [...runs.values()].flatMap((run) => {
      const id = idOf(run.id, key);
      const series = source.series.get(id);
      if (!series?.length) return [];
      const joined = (...parts) => [run.title, originOf(run), ...parts].filter(Boolean).join(", ");
      const coder = areCoders && coderOf(key);
      return [
        {
          id,
          label: joined(areMetrics && labels[metricOf(key)], coder),
          kind: kinds[metricOf(key)],
          name: joined(coder),
          short: joined(),
          color: run.place,
          isHeldOut: metricOf(key).startsWith("eval_"),
          panel: coderOf(key),
          run: run.id,
          series,
          detail: source.detailOf(id, group.view, run.axis),
          ...run.axis,
        },
      ];
    }),
  );
}

function onView(_view, changes) {
  controls.keepView();
  if ("filter" in changes || "page" in changes) load(inSight());
  if ("zoom" in changes || "x" in changes) refine();
  showControls();
}

function showControls() {
  controls.show(catalog.part(group.view), catalog.coders.length, [...runs.values()].every((run) => run.tokens_per_step));
}

function draw() {
  section.hidden = !catalog.keys.size;
  for (const chart of charts) chart.reveal(catalog);
  showControls();
  group.draw();
}

// What leads to this page again keeps what its charts show.
document.addEventListener("click", ({ target }) => {
  const link = target.closest('a[href^="/compare?"]');
  if (link) link.search = writeView(group.view, new URLSearchParams(link.search));
});
document.querySelector("form.axes").addEventListener("formdata", ({ formData }) => {
  for (const [name, value] of writeView(group.view, new URLSearchParams())) formData.append(name, value);
});

const fire = (name) => document.body.dispatchEvent(new CustomEvent(name));
const refreshRuns = coalesce(() => fire("sb-compared"), 1000);
const refreshNumbers = coalesce(() => fire("sb-compared"), 10_000);

document.body.addEventListener("sb-metrics", ({ detail: { run_id: run, points } }) => {
  const areNew = points.map(([key]) => catalog.add(key)).some(Boolean);
  for (const [key, ...point] of points) source.put(idOf(run, key), ...point);
  if (areNew) load(inSight());
  draw();
  refreshNumbers();
});
document.body.addEventListener("sb-run", refreshRuns);
document.body.addEventListener("sb-resync", ({ detail }) => source.reload((id) => runOf(id) === detail.run_id));
document.addEventListener("htmx:after:swap", () => {
  runs = readRuns();
  draw();
});
document.addEventListener("sb-test-drop", drop);

draw();
// Every series is fetched later than the page was rendered, so the stream from there leaves no gap.
const { topics, cursor } = document.getElementById("compared").dataset;
if (topics) connect(topics, cursor);
