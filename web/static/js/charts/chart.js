// A chart draws lines and knows nothing of runs. Whoever owns the data makes them:
//
//   line = {
//     id, label,            // label: in the tables and as spoken
//     kind, name, short,    // in the legend: what the chart's title leaves open, what tells it from others of its
//                           // kind, and what does so beside other lines of its panel
//     color,                // 0, 1, 2, …: place in the palette
//     isHeldOut,            // drawn with dashes and points, never smoothed
//     panel,                // lines of the same panel share a canvas in the layout "multiples"
//     series,               // a Series (series.js) of all that there is
//     detail,               // optional: a finer Series of the range that is zoomed in
//     run,                  // optional: id of its run, for marks that stand on a run's line
//     tokensPerStep, origin // for the axes tokens and time; origin: Unix time of the run's beginning
//     before,               // optional: {steps, tokens} that were trained before its step 0
//   }
//
//   const group = new ChartGroup(readView(params), { onView });   // group.js: shared view, cursor, zoom
//   new Chart(figure, group, (chart) => lines);                   // figure: parts/chart.html
//   group.draw();                                                 // after every change of the data
//
// A chart is built when it comes into sight; `onShow` of the group then tells the owner to load its data.
import { extent, padded } from "./axis.js";
import { drawnColumns, prepare } from "./columns.js";
import { format, place } from "./numbers.js";
import { Plot } from "./plot.js";
import { Legend, fillPoints, fillSummary } from "./table.js";

const SPOKEN_LINES = 6;

export class Chart {
  constructor(figure, group, linesOf) {
    this.figure = figure;
    this.group = group;
    this.linesOf = linesOf;
    this.id = figure.id;
    this.form = figure.dataset.form;
    this.metrics = figure.dataset.metrics.split(" ");
    this.lines = [];
    this.panels = [];
    this.yRange = [0, 1];
    this.isVisible = false;
    this.canvases = figure.querySelector(".plots");
    this.legend = new Legend(figure.querySelector(".legend"));
    this.fold = figure.querySelector("details");
    this.fold.addEventListener("toggle", () => this.draw());
    this.toggle = figure.querySelector(".log-toggle");
    this.toggle.addEventListener("click", () => group.flip(this.id));
    group.add(this);
  }

  /** Figures say how they come; a reader may flip that. */
  get isLog() {
    return (this.figure.dataset.log === "true") !== this.group.view.flipped.has(this.id);
  }

  /** Show the figure once there are values of its metrics. */
  reveal(catalog) {
    if (this.figure.hidden && catalog.has(this.metrics)) this.figure.hidden = false;
  }

  load() {
    this.lines = this.linesOf(this);
  }

  draw() {
    this.toggle.setAttribute("aria-pressed", String(this.isLog));
    if (!this.isVisible) return;
    if (!this.lines.length) return this.clear();
    const range = this.group.extent();
    const parts = this.parts();
    const prepared = parts.map(({ lines }) => prepare(lines, this.group.view, range));
    this.yRange = padded(this.yExtent(prepared), this.isLog);
    this.arrange(parts);
    this.panels.forEach((panel, i) => panel.plot.show(parts[i].lines, prepared[i]));
    this.showValues();
    this.fillTables();
    this.figure.dataset.points = String(this.lines.reduce((count, { series }) => count + series.length, 0));
  }

  /** No line is left to draw; what is there before the first data came stays. */
  clear() {
    if (!this.panels.length) return;
    this.arrange([]);
    this.legend.show([], [], "");
    this.fillTables();
    this.figure.dataset.points = "0";
  }

  /** The canvases' lines: all on one, or one canvas per panel. */
  parts() {
    const names = [...new Set(this.lines.map((line) => line.panel))];
    if (this.group.view.layout === "overlay" || names.length < 2) return [{ name: "", lines: this.lines }];
    return names.map((name) => ({ name, lines: this.lines.filter((line) => line.panel === name) }));
  }

  yExtent(prepared) {
    const all = prepared.map((one) => extent(one.x, drawnColumns(one), this.group.xRange(), this.isLog)).filter(Boolean);
    return all.length ? [Math.min(...all.map(([low]) => low)), Math.max(...all.map(([, high]) => high))] : null;
  }

  /** Make the elements of the panels, where they are not there already. */
  arrange(parts) {
    const names = JSON.stringify(parts.map(({ name }) => name));
    if (names === this.arranged) return;
    this.arranged = names;
    for (const { plot } of this.panels) plot.destroy();
    this.panels = parts.map(({ name }) => this.panel(name));
    this.canvases.replaceChildren(...this.panels.map(({ element }) => element));
    this.figure.classList.toggle("multiples", parts.length > 1);
  }

  panel(name) {
    const element = document.createElement("div");
    const title = document.createElement("p");
    const canvas = document.createElement("div");
    element.className = "panel";
    canvas.className = "plot";
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-label", `${[this.figure.dataset.title, name].filter(Boolean).join(", ")}: arrows move the cursor, plus, minus and 0 zoom; the table below has the numbers`);
    title.append(name, document.createElement("b"));
    element.append(...(name ? [title] : []), canvas);
    return { element, value: title.lastElementChild, plot: new Plot(canvas, this) };
  }

  /** The cursor of one of the canvases is at place `at` of its axis; null: nowhere. */
  pointAt(plot, at) {
    plot.at = at;
    this.showValues();
  }

  showValues() {
    const first = this.panels[0].plot;
    if (!this.panels.every(({ plot }) => plot.uplot)) return; // still being built
    if (this.panels.length === 1) return this.legend.show(this.lines, this.texts(first), this.whereIs(first));
    for (const { value, plot } of this.panels) value.textContent = areOfOneRun(plot.lines) ? this.texts(plot)[0] : "";
    const alike = new Map(this.lines.map((line) => [JSON.stringify([line.color, line.isHeldOut]), { ...line, name: line.short }]));
    const kinds = alike.size > 1 ? [...alike.values()].sort((a, b) => a.isHeldOut - b.isHeldOut || a.color - b.color) : [];
    return this.legend.show(kinds, kinds.map(() => ""), this.whereIs(first));
  }

  /** A value per line of the canvas: at its cursor, or the newest. */
  texts(plot) {
    return plot.lines.map((line, i) => {
      const { raw, main } = plot.prepared.columns[i];
      const at = lastNumber(raw, plot.at ?? raw.length - 1);
      const [text, measured] = [main, raw].map((column) => format(this.form, column[at]));
      return text === measured ? text : `${text} (${measured})`;
    });
  }

  whereIs(plot) {
    if (plot.at === null || plot.at === undefined) return "";
    const x = plot.prepared.x[plot.at];
    const mark = this.group.markAt(x);
    return place(this.group.view.x, x) + (mark ? ` · ${mark.label}` : "");
  }

  sentenceAt(plot) {
    const values = this.texts(plot).slice(0, SPOKEN_LINES);
    return `${this.whereIs(plot)}: ${values.map((text, i) => `${plot.lines[i].label} ${text}`).join(", ")}`;
  }

  fillTables() {
    fillSummary(this.figure.querySelector(".summary tbody"), this.lines, this.form);
    if (!this.fold.open) return;
    const all = prepare(this.lines, this.group.view, this.group.extent());
    fillPoints(this.figure.querySelector(".points"), all, this.lines, this.form, this.group.view, this.group.xRange());
  }

  recolor() {
    for (const { plot } of this.panels) plot.recolor();
  }
}

function areOfOneRun(lines) {
  return lines.every(({ run }) => run === lines[0].run);
}

/** The last place up to `at` that has a number, or -1. */
function lastNumber(column, at) {
  let i = at;
  while (i >= 0 && typeof column[i] !== "number") i--;
  return i;
}
