// Charts of several runs on one grid: a line per run and hookpoint, in the run's colour.
import { translate, xOf } from "./charts/axis.js";
import { Catalog } from "./charts/catalog.js";
import { Chart } from "./charts/chart.js";
import { Controls } from "./charts/controls.js";
import { ChartGroup } from "./charts/group.js";
import { MAX_POINTS, Series, coderOf, metricOf } from "./charts/series.js";
import { readView, writeView } from "./charts/view.js";

const ZOOM_SETTLES_MS = 150;

const section = document.getElementById("curves");
const runs = JSON.parse(section.dataset.runs);
const catalog = new Catalog();
for (const key of runs.flatMap((run) => run.keys)) catalog.add(key);

const whole = new Map(); // key -> {run id -> Series}, all that there is
const fine = new Map(); // the same inside the zoom
let zooms = new AbortController();

const group = new ChartGroup(readView(new URLSearchParams(location.search)), { onView, onShow: (chart) => load([chart]), marksOf: () => [], live: document.getElementById("curves-live") });
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
  const edges = keys.flatMap((key) => [...whole.get(key)].map(([id, series]) => zoom.map((edge) => translate(edge, xOf(series, x, axisOf(id, series)), series.steps))));
  const start = Math.max(0, Math.floor(Math.min(...edges.map(([first]) => first))));
  const end = Math.ceil(Math.max(...edges.map(([, last]) => last)));
  setTimeout(async () => {
    if (signal.aborted) return;
    const found = await fetchSeries(keys, { start, end }, signal).catch(() => new Map()); // the coarse lines stay
    for (const [key, series] of found) fine.set(key, series);
    draw();
  }, ZOOM_SETTLES_MS);
}

function axisOf(id, series) {
  return { tokensPerStep: runs.find((run) => run.id === id).tokensPerStep || 1, origin: series.ts[0] };
}

function linesOf({ figure }) {
  const labels = JSON.parse(figure.dataset.labels);
  const keys = keysOf({ figure }).filter((key) => whole.get(key)?.size);
  const areCoders = new Set(keys.map(coderOf)).size > 1;
  const areMetrics = new Set(keys.map(metricOf)).size > 1;
  return keys.flatMap((key) =>
    runs.flatMap((run, place) => {
      const series = whole.get(key).get(run.id);
      if (!series?.length) return [];
      const parts = [`${place + 1} ${run.name}`, areMetrics && labels[metricOf(key)], areCoders && coderOf(key)].filter(Boolean);
      return [
        {
          id: `${run.id} ${key}`,
          label: parts.join(", "),
          short: `${place + 1} ${run.name}`,
          color: place,
          isHeldOut: metricOf(key).startsWith("eval_"),
          panel: coderOf(key),
          series,
          detail: fine.get(key)?.get(run.id),
          ...axisOf(run.id, series),
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
  controls.show(catalog.part(group.view), catalog.coders.length, runs.every((run) => run.tokensPerStep));
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
