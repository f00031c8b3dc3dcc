// One uPlot chart per <figure class="chart">, drawn from a SeriesStore, at most once per animation frame.
import { coderOf, metricOf } from "./series.js";

const COLORS = 6;
const SYNC_KEY = "run";
const SVG = "http://www.w3.org/2000/svg";

function color(index) {
  const probe = document.getElementById("swatches").children[index % COLORS];
  return getComputedStyle(probe).color;
}

function themed(name) {
  return getComputedStyle(document.getElementById(`probe-${name}`)).color;
}

/** A number as the page shows it; `form` is the figure's data-format: ratio, percent, rate or plain. */
export function format(form, value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (form === "percent") return `${(100 * value).toFixed(value < 0.1 ? 2 : 1)}%`;
  if (form === "rate") return Math.round(value).toLocaleString("en");
  if (value === 0) return "0";
  if (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e6) return value.toExponential(2);
  return form === "ratio" ? value.toFixed(4) : String(Number(value.toPrecision(4)));
}

function tick(form, value) {
  if (value === null) return "";
  if (form === "percent") return `${Number((100 * value).toPrecision(3))}%`;
  if (Math.abs(value) >= 10_000) return `${Number((value / 1000).toPrecision(3))}k`;
  if (value !== 0 && Math.abs(value) < 1e-3) return value.toExponential(0);
  return String(Number(value.toPrecision(4)));
}

const LOG_LABELS = new Set([1, 2, 3, 5, 7]);

/** Every whole number of every decade between `min` and `max`. */
function logSplits(min, max) {
  const splits = [];
  for (let exponent = Math.floor(Math.log10(min)); exponent <= Math.ceil(Math.log10(max)); exponent++) {
    for (let digit = 1; digit < 10; digit++) {
      const value = Number(`${digit}e${exponent}`);
      if (value >= min && value <= max) splits.push(value);
    }
  }
  return splits;
}

function logLabel(form, value) {
  return LOG_LABELS.has(Number(value.toExponential(0)[0])) ? tick(form, value) : "";
}

export class Chart {
  constructor(figure, store) {
    this.figure = figure;
    this.store = store;
    this.plot = figure.querySelector(".plot");
    this.legend = figure.querySelector(".legend");
    this.metrics = figure.dataset.metrics.split(" ");
    this.labels = JSON.parse(figure.dataset.labels);
    this.form = figure.dataset.format;
    this.logScale = figure.dataset.log === "true";
    this.keys = [];
    this.uplot = null;
    this.frame = 0;
    this.toggle = figure.querySelector(".log-toggle");
    this.toggle?.addEventListener("click", () => this.setLog(!this.logScale));
    new ResizeObserver(() => this.resize()).observe(this.plot);
  }

  /** Ask for a redraw in the next frame. */
  draw() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.drawNow();
    });
  }

  drawNow() {
    const keys = this.store.keysOf(this.metrics);
    if (keys.length === 0) return;
    if (this.figure.hidden) this.figure.hidden = false;
    const data = this.store.align(keys);
    if (this.uplot && keys.join() === this.keys.join()) {
      this.uplot.setData(this.safe(data));
    } else {
      this.keys = keys;
      this.build(data);
    }
    this.figure.dataset.points = String(data.slice(1).reduce((n, y) => n + y.filter((v) => v !== undefined).length, 0));
    this.fillLegend();
    this.fillTable();
  }

  /** A log axis has no place for zero and below. */
  safe(data) {
    if (!this.logScale) return data;
    return [data[0], ...data.slice(1).map((y) => y.map((v) => (typeof v === "number" && v <= 0 ? null : v)))];
  }

  build(data) {
    this.uplot?.destroy();
    this.plot.replaceChildren();
    this.uplot = new uPlot(this.options(), this.safe(data), this.plot);
  }

  options() {
    const axis = { stroke: () => themed("muted"), grid: { stroke: () => themed("grid"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    return {
      width: Math.max(this.plot.clientWidth, 50),
      height: this.plot.clientHeight,
      legend: { show: false },
      cursor: { sync: { key: SYNC_KEY, setSeries: false }, points: { size: 7 }, drag: { x: true, y: false } },
      scales: { x: { time: false }, y: this.logScale ? { distr: 3, log: 10, range: (u, min, max) => logRange(min, max) } : { range: (u, min, max) => this.range(min, max) } },
      axes: [
        { ...axis, size: 28, gap: 4, values: (u, ticks) => ticks.map((v) => (Number.isInteger(v) ? tick("plain", v) : "")) },
        this.logScale
          ? { ...axis, size: 52, gap: 6, splits: (u, i, min, max) => logSplits(min, max), filter: (u, splits) => splits, values: (u, ticks) => ticks.map((v) => logLabel(this.form, v)) }
          : { ...axis, size: 52, gap: 6, values: (u, ticks) => ticks.map((v) => tick(this.form, v)) },
      ],
      series: [{}, ...this.keys.map((key, i) => this.line(key, i))],
      hooks: { setCursor: [() => this.fillLegend()] },
    };
  }

  range(min, max) {
    if (min === null || max === null) return [0, 1];
    if (min === max) return [min === 0 ? 0 : min - Math.abs(min) * 0.1, max === 0 ? 1 : max + Math.abs(max) * 0.1];
    const pad = (max - min) * 0.08;
    return [min >= 0 ? Math.max(0, min - pad) : min - pad, max + pad];
  }

  colorIndex(key, i) {
    const coders = [...new Set(this.keys.map(coderOf))];
    return coders.length > 1 ? coders.indexOf(coderOf(key)) : i;
  }

  isHeldOut(key) {
    return metricOf(key).startsWith("eval_");
  }

  line(key, i) {
    const heldOut = this.isHeldOut(key);
    return {
      stroke: () => color(this.colorIndex(key, i)),
      width: heldOut ? 2 : 1.5,
      dash: heldOut ? [6, 4] : undefined,
      spanGaps: true,
      points: { show: heldOut ? true : undefined, size: 6, stroke: () => color(this.colorIndex(key, i)), fill: () => themed("surface") },
    };
  }

  name(key) {
    const coder = coderOf(key);
    const coders = new Set(this.keys.map(coderOf));
    if (this.metrics.length === 1) return coder || this.labels[metricOf(key)];
    return coders.size > 1 ? `${this.labels[metricOf(key)]}, ${coder}` : this.labels[metricOf(key)];
  }

  fillLegend() {
    if (this.legend.childElementCount !== this.keys.length + 1 || this.legend.dataset.keys !== this.keys.join()) this.buildLegend();
    const index = this.uplot?.cursor.idx;
    const step = index === null || index === undefined ? null : this.uplot.data[0][index];
    this.keys.forEach((key, i) => {
      const { steps, values } = this.store.get(key);
      const at = step === null ? values.length - 1 : nearestBefore(steps, step);
      setText(this.legend.children[i].lastElementChild, format(this.form, values[at]));
    });
    setText(this.legend.lastElementChild, step === null ? "" : `step ${step.toLocaleString("en")}`);
  }

  buildLegend() {
    this.legend.dataset.keys = this.keys.join();
    const items = this.keys.map((key, i) => {
      const item = document.createElement("span");
      const value = document.createElement("b");
      item.append(swatch(this.colorIndex(key, i), this.isHeldOut(key)), this.name(key), value);
      return item;
    });
    this.legend.replaceChildren(...items, document.createElement("span"));
  }

  fillTable() {
    const rows = this.keys.map((key) => {
      const finite = this.store.get(key).values.filter((v) => v !== null);
      const values = this.store.get(key).values;
      const cells = [values[values.length - 1], minimum(finite), maximum(finite)].map((v) => format(this.form, v));
      return row(this.name(key), ...cells, String(values.length));
    });
    this.figure.querySelector("tbody").replaceChildren(...rows);
  }

  setLog(on) {
    this.logScale = on;
    this.toggle.setAttribute("aria-pressed", String(on));
    if (this.keys.length) this.build(this.store.align(this.keys));
  }

  resize() {
    if (this.uplot) this.uplot.setSize({ width: Math.max(this.plot.clientWidth, 50), height: this.plot.clientHeight });
    else this.draw();
  }

  recolor() {
    this.uplot?.redraw(false, true);
  }
}

/** A little beyond the values: whole decades would squeeze a falling FVU into half the height. */
function logRange(min, max) {
  if (!(min > 0) || !(max > 0)) return [0.1, 1];
  const pad = Math.max((Math.log10(max) - Math.log10(min)) * 0.06, 0.02);
  return [10 ** (Math.log10(min) - pad), 10 ** (Math.log10(max) + pad)];
}

function minimum(values) {
  return values.length ? values.reduce((a, b) => Math.min(a, b)) : null;
}

function maximum(values) {
  return values.length ? values.reduce((a, b) => Math.max(a, b)) : null;
}

function nearestBefore(steps, step) {
  let at = -1;
  for (let low = 0, high = steps.length - 1; low <= high; ) {
    const middle = (low + high) >> 1;
    if (steps[middle] <= step) {
      at = middle;
      low = middle + 1;
    } else high = middle - 1;
  }
  return at;
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function row(...cells) {
  const tr = document.createElement("tr");
  cells.forEach((text, i) => {
    const cell = document.createElement(i ? "td" : "th");
    if (i) cell.className = "num";
    else cell.scope = "row";
    cell.textContent = text;
    tr.append(cell);
  });
  return tr;
}

function swatch(index, dashed) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("width", "16");
  svg.setAttribute("height", "8");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", `swatch-${(index % COLORS) + 1}`);
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", "M0 4h16");
  path.setAttribute("stroke", "currentColor");
  path.setAttribute("stroke-width", "2");
  if (dashed) path.setAttribute("stroke-dasharray", "5 3");
  svg.append(path);
  return svg;
}
