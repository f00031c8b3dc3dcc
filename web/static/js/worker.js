// The page of one worker: what it measured of its machine, drawn over time and kept up by the event stream.
import { AXIS, colorOf, lineClass, onTheme } from "./charts/colors.js";
import { format, tick } from "./charts/numbers.js";
import { Legend } from "./charts/table.js";
import { connect } from "./live.js";

const RAW_HOURS = 2;
const LONG_EVERY_S = 300;
const MAX_SAMPLES = 720; // the server thins to so many
const MISSED = 4; // so many samples that did not come are a gap

const page = document.getElementById("worker");
const hours = Number(page.dataset.hours);
const everyS = hours > RAW_HOURS ? Math.max(LONG_EVERY_S, (3600 * hours) / MAX_SAMPLES) : 10;
const samples = []; // where there is a gap, one without values

const CLOCK = new Intl.DateTimeFormat("en-GB", hours <= 24 ? { hour: "2-digit", minute: "2-digit" } : { day: "numeric", month: "short" });
const clock = (ts) => CLOCK.format(1000 * ts);

class LoadChart {
  constructor(figure) {
    this.plot = figure.querySelector(".plot");
    this.legend = new Legend(figure.querySelector(".legend"));
    this.title = figure.querySelector("h3").textContent;
    this.field = figure.dataset.field;
    this.ofDevices = "devices" in figure.dataset;
    this.limit = Number(figure.dataset.limit ?? 0);
    this.form = figure.dataset.form;
    this.names = [];
    new ResizeObserver(() => this.uplot?.setSize(this.size())).observe(this.plot);
  }

  size() {
    return { width: Math.max(this.plot.clientWidth, 50), height: this.plot.clientHeight };
  }

  /** The lines by name: one, or one per GPU. */
  lines() {
    if (!this.ofDevices) return new Map([["", samples.map((sample) => sample[this.field] ?? null)]]);
    const indices = new Set(samples.flatMap((sample) => sample.devices.map((device) => device.index)));
    const value = (sample, index) => sample.devices.find((device) => device.index === index)?.[this.field] ?? null;
    return new Map([...indices].sort((a, b) => a - b).map((index) => [`GPU ${index}`, samples.map((one) => value(one, index))]));
  }

  draw() {
    const lines = this.lines();
    const data = [samples.map((sample) => sample.ts), ...lines.values()];
    const names = [...lines.keys()];
    if (this.uplot && names.join() === this.names.join()) this.setData(data);
    else {
      this.names = names;
      this.uplot?.destroy();
      this.uplot = new uPlot(this.options(), data, this.plot);
    }
    this.fillLegend([...lines.values()]);
    this.plot.setAttribute("aria-label", `${this.title} over time. ${[...lines].map((line) => this.describe(line)).join("; ")}`);
  }

  /** A zoom stays while samples come. */
  setData(data) {
    const { scales, data: before } = this.uplot;
    const { min, max } = scales.x;
    const isZoomed = min > before[0][0] || max < before[0].at(-1);
    this.uplot.setData(data, !isZoomed);
    if (isZoomed) this.uplot.setScale("x", { min, max });
  }

  /** A line for those who do not see it. */
  describe([name, values]) {
    const known = values.filter((value) => value !== null);
    if (!known.length) return `${name} no values`.trim();
    const [now, least, most] = [known.at(-1), Math.min(...known), Math.max(...known)].map((value) => format(this.form, value));
    return `${name} now ${now}, least ${least}, most ${most}`.trim();
  }

  options() {
    return {
      ...this.size(),
      legend: { show: false },
      cursor: { y: false, sync: { key: "worker" }, points: { size: 7 }, drag: { x: true, y: false } },
      scales: { y: { range: (u, min, max) => [0, this.limit || Math.max(max * 1.1, 1e-9)] } },
      axes: [{ ...AXIS, size: 28, gap: 4, space: 64, values: (u, ticks) => ticks.map(clock) }, { ...AXIS, size: 58, gap: 6, values: (u, ticks) => ticks.map((value) => tick(this.form, value)) }],
      series: [{}, ...this.names.map((name, i) => ({ stroke: () => colorOf(lineClass(i)), width: 1.5 }))],
      hooks: { setCursor: [() => this.fillLegend(this.uplot?.data.slice(1) ?? [])] },
    };
  }

  fillLegend(lines) {
    const at = this.uplot?.cursor.idx ?? null;
    const texts = lines.map((values) => format(this.form, values[at ?? samples.length - 1]));
    this.legend.show(this.names.map((name, color) => ({ id: name, kind: "", name, color })), texts, at === null ? "" : clock(samples[at].ts));
  }
}

const charts = [...page.querySelectorAll(".chart")].map((figure) => new LoadChart(figure));

function drawAll() {
  page.dataset.samples = String(samples.length);
  if (samples.length) for (const chart of charts) chart.draw();
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

onTheme(() => charts.forEach((chart) => chart.uplot?.redraw(false, true)));

loadWithRetry();
