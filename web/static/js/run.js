// The page of one run: charts, live regions and the log follow the event stream.
import { coalesce, connect, drop } from "./live.js";
import { LogView } from "./log.js";
import { RunCharts } from "./run-charts.js";

const page = document.getElementById("run");
const charts = new RunCharts(page);
const log = new LogView(document.querySelector(".log-card"), page.dataset.run);
const fire = (name) => document.body.dispatchEvent(new CustomEvent(name));
const refreshHead = coalesce(() => fire("sb-head"), 1000);
const refreshLists = coalesce(() => fire("sb-lists"), 1000);
const refreshLineage = coalesce(() => fire("sb-lineage"), 1000);
const refreshTimings = coalesce(() => fire("sb-timings"), 1000);
const refreshWatch = coalesce(() => {
  fire("sb-health");
  fire("sb-system");
}, 10_000);

document.body.addEventListener("sb-metrics", ({ detail }) => {
  charts.take(detail.points);
  refreshHead();
  refreshWatch();
});
document.body.addEventListener("sb-run", ({ detail }) => {
  if (detail.last_event_id !== Number(document.getElementById("lineage").dataset.lastEvent)) refreshLineage();
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

// Every series is fetched later than the page was rendered, so the stream from there leaves no gap.
connect(`run:${page.dataset.run}`, page.dataset.cursor);
