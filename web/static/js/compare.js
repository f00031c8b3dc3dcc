// Charts of several runs on one grid: a line per run and hookpoint, in the run's colour.
import { translate, xOf } from "./charts/axis.js";
import { Catalog } from "./charts/catalog.js";
import { Chart } from "./charts/chart.js";
import { Controls } from "./charts/controls.js";
import { ChartGroup } from "./charts/group.js";
import { longest, merged, placed } from "./charts/marks.js";
import { count } from "./charts/numbers.js";
import { MAX_POINTS, Series, coderOf, metricOf } from "./charts/series.js";
import { readView, writeView } from "./charts/view.js";

const ZOOM_SETTLES_MS = 150;

const section = document.getElementById("curves");
const runs = JSON.parse(section.dataset.runs).map((run, place) => ({
  ...run,
  place,
  title: `${place + 1} ${run.name}`,
  axis: { tokensPerStep: run.tokens_per_step || 1, origin: run.origin, before: run.before },
}));
const runOf = new Map(runs.map((run) => [run.id, run]));
const catalog = new Catalog();
for (const key of runs.flatMap((run) => run.keys)) catalog.add(key);

const whole = new Map(); // key -> {run id -> Series}, all that there is
const fine = new Map(); // the same inside the zoom
let zooms = new AbortController();

const group = new ChartGroup(readView(new URLSearchParams(location.search)), { onView, onShow: (chart) => load([chart]), marksOf: () => [...ownMarks(), ...branches()], live: document.getElementById("curves-live") });
const controls = new Controls(section.querySelector(".chart-bar"), group);
const charts = [...section.querySelectorAll("figure.chart")].map((figure) => new Chart(figure, group, linesOf));

function keysOf({ figure }) {
  return catalog.keysOf(figure.dataset.metrics.split(" "), group.view);
}

function keysInSight() {
  return charts.filter((chart) => chart.isVisible).flatMap(keysOf);
}

async function fetchSeries(keys, range, signal) {
  const query = new URLSearchParams([...runs.map((run) => ["run", run.id]), ...keys.map((key) => ["key", key]), ["max_points", MAX_POINTS], ...Object.entries(range)]);
  const response = await fetch(`/api/v1/metrics?${query}`, { headers: { Accept: "application/json" }, signal });
  if (!response.ok) throw new Error(`${response.url}: ${response.status}`);
  const found = (await response.json()).series;
  return new Map(keys.map((key) => [key, new Map(runs.filter((run) => found[run.id]?.[key]).map((run) => [run.id, Series.from(found[run.id][key])]))]));
}

async function load(wanted) {
  const missing = wanted.flatMap(keysOf).filter((key) => !whole.has(key));
  for (const key of missing) whole.set(key, new Map());
  if (!missing.length) return;
  try {
    for (const [key, series] of await fetchSeries(missing, {})) whole.set(key, series);
  } catch (error) {
    for (const key of missing) whole.delete(key); // the next look at the chart tries again
    throw error;
  }
  draw();
  refine();
}

/** What stands between the edges of the zoom, at finer width; only the last request counts. */
function refine() {
  zooms.abort();
  zooms = new AbortController();
  fine.clear();
  const { zoom, x } = group.view;
  const keys = keysInSight().filter((key) => [...(whole.get(key)?.values() ?? [])].some((series) => series.width > 1));
  if (!zoom || !keys.length) return;
  const { signal } = zooms;
  const edges = keys.flatMap((key) => [...whole.get(key)].map(([id, series]) => zoom.map((edge) => translate(edge, xOf(series, x, runOf.get(id).axis), series.steps))));
  const start = Math.max(0, Math.floor(Math.min(...edges.map(([first]) => first))));
  const end = Math.ceil(Math.max(...edges.map(([, last]) => last)));
  setTimeout(async () => {
    if (signal.aborted) return;
    const found = await fetchSeries(keys, { start, end }, signal).catch(() => new Map()); // the coarse lines stay
    for (const [key, series] of found) fine.set(key, series);
    draw();
  }, ZOOM_SETTLES_MS);
}

/** Checkpoints, attempts and warnings, each in its run's colour. */
function ownMarks() {
  const all = runs.flatMap((run) => {
    const series = longest([...whole.values()].flatMap((byRun) => byRun.get(run.id) ?? []));
    return placed(run.marks, group.view.x, run.axis, series).map((mark) => ({ ...mark, number: run.place + 1, color: run.place }));
  });
  return merged(all);
}

/** Where forks leave the lines of their parents; wall time knows no such place. */
function branches() {
  if (group.view.x === "time") return [];
  return runs.filter(({ branch }) => branch).map(({ place, branch }) => {
    const [x] = xOf({ steps: [branch.step] }, group.view.x, runOf.get(branch.parent).axis);
    return { kind: "branch", label: `${place + 1} is forked here`, x, color: place, parent: branch.parent };
  });
}

/** Where a fork comes from, in words. */
function originOf({ branch }) {
  return branch && `fork of ${runOf.get(branch.parent).place + 1} at step ${count(branch.step)}`;
}

function linesOf({ figure }) {
  const [labels, kinds] = [figure.dataset.labels, figure.dataset.kinds].map((text) => JSON.parse(text));
  const keys = keysOf({ figure }).filter((key) => whole.get(key)?.size);
  const areCoders = new Set(keys.map(coderOf)).size > 1;
  const areMetrics = new Set(keys.map(metricOf)).size > 1;
  return keys.flatMap((key) =>
    runs.flatMap((run) => {
      const series = whole.get(key).get(run.id);
      if (!series?.length) return [];
      const joined = (...parts) => [run.title, originOf(run), ...parts].filter(Boolean).join(", ");
      const coder = areCoders && coderOf(key);
      return [
        {
          id: `${run.id} ${key}`,
          label: joined(areMetrics && labels[metricOf(key)], coder),
          kind: kinds[metricOf(key)],
          name: joined(coder),
          short: joined(),
          color: run.place,
          isHeldOut: metricOf(key).startsWith("eval_"),
          panel: coderOf(key),
          run: run.id,
          series,
          detail: fine.get(key)?.get(run.id),
          ...run.axis,
        },
      ];
    }),
  );
}

function onView(_view, changes) {
  controls.keepView();
  if ("filter" in changes || "page" in changes) load(charts.filter((chart) => chart.isVisible));
  if ("zoom" in changes || "x" in changes) refine();
  showControls();
}

function showControls() {
  controls.show(catalog.part(group.view), catalog.coders.length, runs.every((run) => run.tokens_per_step));
}

function draw() {
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

draw();
