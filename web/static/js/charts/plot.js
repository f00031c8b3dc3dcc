// One canvas of a chart: its lines, their bands, the marks on the axis, and the cursor.
import { AXIS, colorOf, dashOf, lineClass } from "./colors.js";
import { logLabels, logSplits, ticks, timeSteps, xTick } from "./numbers.js";
import { drawSigns } from "./signs.js";

const FAINT = 0.16;
const CLEAR = 0.34;
const MANY = 4; // more bands than these lie over each other; under a smoothed line lies the raw one too

export class Plot {
  /** `chart` knows the scales (`isLog`, `form`, `yRange`, `group`) and hears of the cursor (`pointAt`). */
  constructor(element, chart) {
    this.element = element;
    this.chart = chart;
    this.group = chart.group;
    this.built = "";
    new ResizeObserver(() => this.uplot?.setSize(this.size())).observe(element);
    element.addEventListener("keydown", (event) => this.onKey(event));
  }

  get view() {
    return this.group.view;
  }

  /** Draw `lines` from what `prepare` made of them. */
  show(lines, prepared) {
    this.lines = lines;
    this.prepared = prepared;
    const shape = JSON.stringify([lines.map((line) => [line.id, line.color]), this.view.x, this.view.logX, this.chart.isLog, this.view.smoothing > 0]);
    if (this.uplot && shape === this.built) this.uplot.setData(this.data());
    else this.build(shape);
  }

  build(shape) {
    this.uplot?.destroy();
    this.uplot = null;
    this.element.replaceChildren();
    this.built = shape;
    this.uplot = new uPlot(this.options(), this.data(), this.element);
  }

  size() {
    return { width: Math.max(this.element.clientWidth, 50), height: Math.max(this.element.clientHeight, 50) };
  }

  /** Behind x, a raw and a main column of every line; without smoothing the raw ones are drawn by nothing. */
  data() {
    const columns = this.prepared.columns.flatMap(({ raw, main }) => (this.view.smoothing ? [raw, main] : [main]));
    return [this.prepared.x, ...(this.chart.isLog ? columns.map(positive) : columns)];
  }

  /** Place of the main column of line `i` in the data. */
  mainOf(i) {
    return this.view.smoothing ? 2 * i + 2 : i + 1;
  }

  options() {
    const { view, chart, group } = this;
    const write = (splits) => ticks(chart.form, splits);
    const writeX = (splits) => splits.map((value) => xTick(view.x, value));
    const logAxis = (texts) => ({ splits: (u, i, min, max) => logSplits(min, max), filter: (u, splits) => splits, values: (u, splits) => logLabels(texts, splits) });
    const plainAxis = (texts) => ({ values: (u, splits) => texts(splits) });
    return {
      ...this.size(),
      legend: { show: false },
      padding: [8, 18, 0, 0],
      cursor: {
        y: false,
        sync: { key: group.syncKey, scales: ["x", null], setSeries: false, filters: { pub: (type) => type === "mousemove" || type === "mouseleave" } },
        points: { size: (u, i) => (this.isMain(i) ? 7 : 0) },
        drag: { x: true, y: false, setScale: false },
        bind: { dblclick: () => () => group.zoomTo(null) },
      },
      scales: { x: { time: false, distr: view.logX ? 3 : 1, range: () => group.xRange() }, y: { distr: chart.isLog ? 3 : 1, range: () => chart.yRange } },
      axes: [
        { ...AXIS, size: 33, gap: 11, space: 64, ...(view.logX ? logAxis(writeX) : plainAxis(writeX)), ...(view.x === "time" && !view.logX ? { incrs: timeSteps() } : {}) },
        { ...AXIS, size: 54, gap: 6, space: 34, ...(chart.isLog ? logAxis(write) : plainAxis(write)) },
      ],
      series: [{}, ...this.lines.flatMap((line) => this.strokes(line))],
      hooks: { setCursor: [() => this.onCursor()], setSelect: [(u) => this.onSelect(u)], drawAxes: [(u) => this.drawBands(u)], draw: [(u) => drawSigns(u, this.group.marks, this.lines, this.prepared)] },
    };
  }

  isMain(column) {
    return !this.view.smoothing || column % 2 === 0;
  }

  strokes(line) {
    const stroke = () => colorOf(lineClass(line.color));
    const main = {
      stroke,
      width: line.isHeldOut ? 2 : 1.5,
      dash: dashOf(line),
      points: { show: line.isHeldOut ? true : undefined, size: 6, stroke, fill: () => colorOf("probe-surface") },
    };
    return this.view.smoothing ? [{ stroke, width: 1, alpha: 0.28, points: { show: false } }, main] : [main];
  }

  /** The values between least and greatest of every bucket, behind the lines. */
  drawBands(u) {
    const { x, columns } = this.prepared;
    const height = (value) => u.valToPos(this.chart.isLog ? Math.max(value, this.chart.yRange[0]) : value, "y", true);
    u.ctx.save();
    clip(u);
    u.ctx.globalAlpha = columns.length > MANY || this.view.smoothing ? FAINT : CLEAR;
    columns.forEach(({ band }, i) => {
      if (!band) return;
      const places = x.map((_, at) => at).filter((at) => typeof band.min[at] === "number");
      u.ctx.fillStyle = colorOf(lineClass(this.lines[i].color));
      u.ctx.beginPath();
      for (const at of places) u.ctx.lineTo(u.valToPos(x[at], "x", true), height(band.max[at]));
      for (const at of places.reverse()) u.ctx.lineTo(u.valToPos(x[at], "x", true), height(band.min[at]));
      u.ctx.fill();
    });
    u.ctx.restore();
  }

  onSelect(u) {
    if (u.select.width < 4) return;
    const edges = [u.select.left, u.select.left + u.select.width].map((left) => u.posToVal(left, "x"));
    u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.group.zoomTo(edges);
  }

  onCursor() {
    if (this.uplot) this.chart.pointAt(this, this.uplot.cursor.idx ?? null);
  }

  /** Arrows move the cursor by a point, with Shift by ten; Home and End; + - 0 zoom. */
  onKey(event) {
    const [from, to] = this.group.xRange();
    const x = this.prepared?.x ?? [];
    const at = this.uplot?.cursor.idx ?? null;
    const moves = { ArrowLeft: -1, ArrowRight: 1, Home: -x.length, End: x.length };
    if (event.key in moves) this.step(at, moves[event.key] * (event.shiftKey ? 10 : 1));
    else if (event.key === "Escape") this.moveTo(null);
    else if (event.key === "0") this.group.zoomTo(null);
    else if (event.key === "+" || event.key === "=") this.group.zoomAround(at === null ? (from + to) / 2 : x[at], 0.5);
    else if (event.key === "-") this.group.zoomAround((from + to) / 2, 2);
    else return;
    event.preventDefault();
  }

  /** Move the cursor from place `at` (null: from the end) over `count` places that have values and are in view. */
  step(at, count) {
    const [from, to] = this.group.xRange();
    const { x, columns } = this.prepared;
    const places = x.map((_, i) => i).filter((i) => x[i] >= from && x[i] <= to && columns.some(({ main }) => typeof main[i] === "number"));
    if (!places.length) return;
    const now = at === null ? (count < 0 ? places.length : -1) : places.findLastIndex((i) => i <= at);
    this.moveTo(places[Math.min(Math.max(now + count, 0), places.length - 1)]);
    this.group.say(this.chart.sentenceAt(this, this.uplot.cursor.idx));
  }

  moveTo(place) {
    const left = place === null ? -10 : this.uplot.valToPos(this.prepared.x[place], "x");
    this.uplot.setCursor({ left, top: place === null ? -10 : this.uplot.bbox.height / devicePixelRatio / 2 }, true, true);
  }

  recolor() {
    this.uplot?.redraw(false, true);
  }

  destroy() {
    this.uplot?.destroy();
  }
}

function clip(u) {
  u.ctx.beginPath();
  u.ctx.rect(u.bbox.left, u.bbox.top, u.bbox.width, u.bbox.height);
  u.ctx.clip();
}

/** A log axis has no place for zero and below. */
function positive(column) {
  return column.map((value) => (typeof value === "number" && value <= 0 ? null : value));
}
