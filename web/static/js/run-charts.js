// The charts of a run's page: which lines they have, where their data comes from.
import { Catalog } from "./charts/catalog.js";
import { Chart } from "./charts/chart.js";
import { Controls } from "./charts/controls.js";
import { ChartGroup } from "./charts/group.js";
import { longest, placed } from "./charts/marks.js";
import { RunSource } from "./charts/run-source.js";
import { coderOf, metricOf } from "./charts/series.js";
import { readView } from "./charts/view.js";

export class RunCharts {
  constructor(page) {
    this.catalog = new Catalog();
    for (const row of page.querySelectorAll(".summary [data-key]")) this.catalog.add(row.dataset.key);
    this.source = new RunSource(page.dataset.run, () => this.draw(), () => this.refine());
    const first = document.getElementById("first-series"); // which the browser has asked for already
    if (first) this.source.want(new URL(first.href).searchParams.getAll("key"));
    this.group = new ChartGroup(readView(new URLSearchParams(location.search)), {
      onView: (view, changes) => this.onView(view, changes),
      onShow: (chart) => this.load([chart]),
      marksOf: () => this.marks(),
      live: page.querySelector("#charts-live"),
    });
    this.csv = `/api/v1/runs/${page.dataset.run}/metrics.csv`;
    this.controls = new Controls(page.querySelector(".chart-bar"), this.group);
    this.charts = [...page.querySelectorAll("figure.chart")].map((figure) => new Chart(figure, this.group, (chart) => this.lines(chart)));
    this.draw();
    this.group.lookAround();
  }

  /** What the page says of the run: `{tokensPerStep, origin, marks}`; its regions follow the run. */
  get run() {
    const { tokensPerStep, origin, marks } = document.getElementById("axis").dataset;
    return { tokensPerStep: Number(tokensPerStep) || 1, hasTokens: Number(tokensPerStep) > 0, origin: Number(origin), marks: JSON.parse(marks) };
  }

  keys(chart) {
    return this.catalog.keysOf(chart.metrics, this.group.view);
  }

  /** Fetch what the charts in sight need. */
  load(charts) {
    this.source.want(charts.flatMap((chart) => this.keys(chart)));
    this.refine();
  }

  inSight() {
    return this.charts.filter((chart) => chart.isVisible);
  }

  refine() {
    const keys = this.inSight().flatMap((chart) => this.keys(chart));
    this.source.refine(keys, this.group.view, () => this.run);
  }

  onView(view, changes) {
    this.controls.keepView();
    if ("zoom" in changes) this.refine();
    if ("filter" in changes || "page" in changes) this.load(this.inSight());
    this.showControls();
  }

  showControls() {
    this.controls.show(this.catalog.part(this.group.view), this.catalog.coders.length, this.run.hasTokens);
  }

  draw() {
    for (const chart of this.charts) chart.reveal(this.catalog);
    this.showControls();
    this.group.draw();
  }

  lines(chart) {
    const { view } = this.group;
    const run = this.run;
    const { metrics } = chart;
    const [labels, kinds] = [chart.figure.dataset.labels, chart.figure.dataset.kinds].map((text) => JSON.parse(text));
    const keys = this.keys(chart).filter((key) => this.source.series.get(key)?.length);
    const coders = [...new Set(keys.map(coderOf))];
    const areMany = coders.length > 1 && view.layout === "overlay";
    chart.figure.querySelector(".csv").href = `${this.csv}?${new URLSearchParams(keys.map((key) => ["key", key]))}`;
    const nameOf = (key) => (metrics.length === 1 || coders.length > 1 ? coderOf(key) : "");
    return keys.map((key) => ({
      id: key,
      label: [(metrics.length > 1 || !nameOf(key)) && labels[metricOf(key)], nameOf(key)].filter(Boolean).join(", "),
      kind: kinds[metricOf(key)],
      name: nameOf(key),
      short: "",
      color: areMany ? coders.indexOf(coderOf(key)) : metrics.indexOf(metricOf(key)),
      isHeldOut: metricOf(key).startsWith("eval_"),
      panel: coderOf(key),
      series: this.source.series.get(key),
      detail: this.source.detailOf(key, view, run),
      ...run,
    }));
  }

  marks() {
    return placed(this.run.marks, this.group.view.x, this.run, longest(this.source.series.values()));
  }

  /** Points of the stream, `[key, step, value, ts]`. */
  take(points) {
    let isNew = false;
    for (const [key, ...point] of points) {
      isNew = this.catalog.add(key) || isNew;
      this.source.put(key, ...point);
    }
    if (isNew) this.load(this.inSight());
    this.draw();
  }

  reload() {
    this.source.reload();
  }
}
