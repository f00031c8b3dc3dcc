// The page of one worker: what it measured of its machine, drawn over time and kept up by the event stream.
import { extent } from "./charts/axis.js";
import { ChartGroup } from "./charts/group.js";
import { format, place } from "./charts/numbers.js";
import { Plot } from "./charts/plot.js";
import { Legend } from "./charts/table.js";
import { readView } from "./charts/view.js";
import { connect } from "./live.js";

const RAW_HOURS = 2;
const LONG_EVERY_S = 300;
const MAX_SAMPLES = 720; // the server thins to so many
const MISSED = 4; // so many samples that did not come are a gap

const page = document.getElementById("worker");
const hours = Number(page.dataset.hours);
const everyS = hours > RAW_HOURS ? Math.max(LONG_EVERY_S, (3600 * hours) / MAX_SAMPLES) : 10;
const samples = []; // where there is a gap, one without values

/** A chart of a group (charts/group.js): a field of the samples, or of their devices. */
class LoadChart {
  constructor(figure, group) {
    this.figure = figure;
    this.group = group;
    this.title = figure.querySelector("h3").textContent;
    this.field = figure.dataset.field;
    this.ofDevices = "devices" in figure.dataset;
    this.limit = Number(figure.dataset.limit ?? 0);
    this.form = figure.dataset.form;
    this.isLog = false;
    this.isVisible = false;
    this.lines = [];
    this.legend = new Legend(figure.querySelector(".legend"));
    this.canvas = figure.querySelector(".plot");
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "application");
    this.plot = new Plot(this.canvas, this);
    group.add(this);
  }

  /** Values by name: one line, or one per GPU. */
  values() {
    if (!this.ofDevices) return new Map([["", samples.map((sample) => sample[this.field] ?? null)]]);
    const indices = new Set(samples.flatMap((sample) => sample.devices.map((device) => device.index)));
    const value = (sample, index) => sample.devices.find((device) => device.index === index)?.[this.field] ?? null;
    return new Map([...indices].sort((a, b) => a - b).map((index) => [`GPU ${index}`, samples.map((one) => value(one, index))]));
  }

  load() {
    const ts = samples.map((sample) => sample.ts);
    const series = { steps: ts, ts, length: ts.length };
    this.lines = [...this.values()].map(([name, values], color) => ({ id: name, kind: "", name, color, series, values }));
  }

  draw() {
    if (!samples.length) return;
    const x = samples.map((sample) => sample.ts);
    const columns = this.lines.map(({ values }) => ({ raw: values, main: values, band: null }));
    const [, most] = extent(x, columns.map(({ main }) => main), this.group.xRange(), false) ?? [0, 0];
    this.yRange = [0, this.limit || Math.max(most * 1.1, 1e-9)];
    this.plot.show(this.lines, { x, columns });
    this.showValues();
    this.canvas.setAttribute("aria-label", `${this.title} over time. ${this.lines.map((line) => this.describe(line)).join("; ")}. Arrows move the cursor, plus, minus and 0 zoom`);
  }

  /** A line for those who do not see it. */
  describe({ name, values }) {
    const known = values.filter((value) => value !== null);
    if (!known.length) return `${name} no values`.trim();
    const [now, least, most] = [known.at(-1), Math.min(...known), Math.max(...known)].map((value) => format(this.form, value));
    return `${name} now ${now}, least ${least}, most ${most}`.trim();
  }

  /** The cursor is at sample `at`; null: nowhere. */
  pointAt(plot, at) {
    plot.at = at;
    this.showValues();
  }

  showValues() {
    this.legend.show(this.lines, this.texts(), this.whereIs());
  }

  texts() {
    return this.lines.map(({ values }) => format(this.form, values[this.plot.at ?? values.length - 1]));
  }

  whereIs() {
    const { at } = this.plot;
    return at === null || at === undefined ? "" : place("clock", samples[at].ts);
  }

  sentenceAt() {
    return `${this.whereIs()}: ${this.texts().map((text, i) => `${this.lines[i].name} ${text}`.trim()).join(", ")}`;
  }

  recolor() {
    this.plot.recolor();
  }
}

const reset = document.getElementById("reset-zoom");
const group = new ChartGroup({ ...readView(new URLSearchParams()), x: "clock" }, {
  onView: (view) => (reset.hidden = !view.zoom),
  onShow: () => {},
  marksOf: () => [],
  live: document.getElementById("charts-live"),
});
for (const figure of page.querySelectorAll(".chart")) new LoadChart(figure, group);
reset?.addEventListener("click", () => group.zoomTo(null));

function drawAll() {
  page.dataset.samples = String(samples.length);
  group.draw();
}

/** Take a sample that is new; a long look back has one in five minutes. */
function take(sample) {
  const last = samples.at(-1);
  const gap = hours > RAW_HOURS ? LONG_EVERY_S : 0;
  if (last && sample.ts <= last.ts + gap) return;
  if (last && sample.ts > last.ts + MISSED * everyS) samples.push({ ts: (last.ts + sample.ts) / 2, devices: [] });
  samples.push(sample);
  while (samples[0].ts < sample.ts - 3600 * hours) samples.shift();
}

document.body.addEventListener("sb-sample", ({ detail }) => {
  take(detail);
  drawAll();
});

async function load() {
  const response = await fetch(`/api/v1/workers/${page.dataset.worker}/samples?hours=${hours}`, { headers: { Accept: "application/json" } });
  if (!response.ok) throw new Error(`samples: ${response.status}`);
  for (const sample of (await response.json()).items) take(sample);
  drawAll();
  connect(`worker:${page.dataset.worker}`, String(samples.at(-1)?.ts ?? ""));
}

function loadWithRetry() {
  load().catch(() => setTimeout(loadWithRetry, 3000));
}

loadWithRetry();
