// The page of one run: charts, live regions and the log follow the event stream.
import { Chart } from "./charts.js";
import { coalesce, connect, drop } from "./live.js";
import { LogView } from "./log.js";
import { SeriesStore } from "./series.js";

const page = document.getElementById("run");
const runId = page.dataset.run;
const store = new SeriesStore();
const charts = [...document.querySelectorAll(".chart")].map((figure) => new Chart(figure, store));
const log = new LogView(document.getElementById("log"));
const fire = (name) => document.body.dispatchEvent(new CustomEvent(name));
const refreshHead = coalesce(() => fire("sb-head"), 1000);
const refreshLists = coalesce(() => fire("sb-lists"), 1000);
const refreshTimings = coalesce(() => fire("sb-timings"), 1000);
const refreshWatch = coalesce(() => {
  fire("sb-health");
  fire("sb-system");
}, 10_000);

function drawAll() {
  for (const chart of charts) chart.draw();
}

/** Load every series as the database has it, then follow the stream from exactly there. */
async function load() {
  const response = await fetch(`/runs/${runId}/series`, { headers: { Accept: "application/json" } });
  if (!response.ok) throw new Error(`series: ${response.status}`);
  const { cursor, series } = await response.json();
  store.clear();
  for (const [key, { steps, values }] of Object.entries(series)) store.load(key, steps, values.map(toNumber));
  drawAll();
  connect(`run:${runId}`, cursor);
}

function toNumber(value) {
  return typeof value === "number" ? value : null;
}

function loadWithRetry() {
  load().catch(() => setTimeout(loadWithRetry, 3000));
}

document.body.addEventListener("sb-metrics", ({ detail }) => {
  for (const [key, step, value] of detail.points) store.put(key, step, value);
  drawAll();
  refreshHead();
  refreshWatch();
});
document.body.addEventListener("sb-run", () => {
  refreshHead();
  refreshLists();
  refreshTimings();
  refreshWatch();
});
document.body.addEventListener("sb-log", ({ detail }) => {
  if (!log.take(detail)) fire("sb-log-gap");
});
document.body.addEventListener("sb-resync", () => {
  fire("sb-head");
  fire("sb-lists");
  fire("sb-timings");
  fire("sb-health");
  fire("sb-log-gap");
  loadWithRetry();
});
document.addEventListener("htmx:after:swap", () => log.attach(document.getElementById("log")));

const recolor = () => charts.forEach((chart) => chart.recolor());
new MutationObserver(recolor).observe(document.documentElement, { attributeFilter: ["data-theme"] });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolor);
document.addEventListener("sb-test-drop", drop);

loadWithRetry();
