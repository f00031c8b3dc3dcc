// The page of one run: charts, live regions and the log follow the event stream.
import { coalesce, connect, drop } from "./live.js";
import { LogView } from "./log.js";
import { RunCharts } from "./run-charts.js";

const page = document.getElementById("run");
const charts = new RunCharts(page);
let status = JSON.parse(page.dataset.status);
const log = new LogView(document.querySelector(".log-card"), page.dataset.run, showSteps);
const fire = (name) => document.body.dispatchEvent(new CustomEvent(name));
const refreshHead = coalesce(() => fire("sb-head"), 1000);
const refreshLists = coalesce(() => fire("sb-lists"), 1000);
const refreshLineage = coalesce(() => fire("sb-lineage"), 1000);
const refreshTimings = coalesce(() => fire("sb-timings"), 1000);
const refreshWatch = coalesce(() => {
  fire("sb-health");
  fire("sb-system");
}, 10_000);

/** Show the charts around a step, and leave the log where it is. */
function showSteps(step, reach) {
  charts.group.change({ x: "step", zoom: [Math.max(0, step - reach), step + reach] });
  const figure = document.getElementById("chart-fvu");
  figure.scrollIntoView();
  figure.querySelector("[tabindex='0'], button")?.focus({ preventScroll: true });
}

document.body.addEventListener("sb-metrics", ({ detail }) => {
  charts.take(detail.points);
  refreshHead();
  refreshWatch();
});
document.body.addEventListener("sb-run", ({ detail }) => {
  // The stream begins with how the run looks, which is mostly how the page already shows it; steps come with the metrics.
  const { step, ...looks } = detail;
  const isShown = Object.entries(status).every(([name, value]) => looks[name] === value);
  const hasMoved = detail.last_event_id !== status.last_event_id;
  status = looks;
  if (isShown) return;
  if (hasMoved) refreshLineage(); // not at every checkpoint
  refreshHead();
  refreshLists();
  refreshTimings();
  refreshWatch();
});
document.body.addEventListener("sb-log", ({ detail }) => log.take(detail));
document.body.addEventListener("sb-resync", () => {
  fire("sb-head");
  fire("sb-lists");
  fire("sb-timings");
  fire("sb-health");
  log.showEnd();
  charts.reload();
});
// Forks and clones are made on other pages: whoever comes back from there sees them.
document.addEventListener("visibilitychange", () => document.hidden || refreshLineage());
document.addEventListener("htmx:after:swap", () => charts.draw());
document.addEventListener("sb-test-drop", drop);
const whenIdle = window.requestIdleCallback ?? ((act) => setTimeout(act, 200)); // Safari has none
whenIdle(() => page.classList.add("is-drawn")); // what has waited for the first picture is laid out

// Every series is fetched later than the page was rendered, so the stream from there leaves no gap.
connect(`run:${page.dataset.run}`, page.dataset.cursor);
