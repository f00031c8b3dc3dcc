// Charts that share a view: the axis, the zoom, the cursor, the marks. See chart.js for how they are put together.
import { translate, xOf } from "./axis.js";
import { onTheme } from "./colors.js";

const MARK_REACH = 0.006;
const SIGHT_MARGIN = 0.5; // of the window's height
let groups = 0;

export class ChartGroup {
  /**
   * view: as `readView` makes it; onView(view, changes) hears of every change, onShow(chart) of a chart that comes into
   * sight. marksOf(): what stands on the axis now (marks.js).
   * live: an element with aria-live, for the values at the keyboard's cursor.
   */
  constructor(view, { onView, onShow, marksOf, live }) {
    this.view = view;
    this.onView = onView;
    this.onShow = onShow;
    this.marksOf = marksOf;
    this.live = live;
    this.charts = [];
    this.marks = [];
    this.syncKey = `charts-${groups++}`;
    this.frame = 0;
    this.sight = new IntersectionObserver((entries) => entries.forEach((entry) => this.onSight(entry)), { rootMargin: `${100 * SIGHT_MARGIN}%` });
    onTheme(() => this.charts.forEach((chart) => chart.recolor()));
  }

  add(chart) {
    this.charts.push(chart);
    this.sight.observe(chart.figure);
  }

  onSight({ target, isIntersecting }) {
    const chart = this.charts.find(({ figure }) => figure === target);
    chart.isVisible = isIntersecting;
    if (!isIntersecting) return;
    this.onShow(chart);
    this.draw();
  }

  /** What is in sight as the page opens: the observer tells a frame later. */
  lookAround() {
    for (const chart of this.charts) {
      const { top, bottom, height } = chart.figure.getBoundingClientRect();
      const margin = SIGHT_MARGIN * innerHeight;
      if (height && bottom > -margin && top < innerHeight + margin) this.onSight({ target: chart.figure, isIntersecting: true });
    }
  }

  /** Draw what is in sight, in the next frame: a hidden tab has none, and draws once when it is shown. */
  draw() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      const visible = this.charts.filter((chart) => chart.isVisible);
      for (const chart of visible) chart.load();
      this.marks = this.view.marks ? this.marksOf() : [];
      for (const chart of visible) chart.draw();
    });
  }

  /** The range of x that all lines together cover. */
  extent() {
    let [from, to] = [Infinity, -Infinity];
    for (const line of this.charts.flatMap((chart) => chart.lines)) {
      const x = this.edges(line);
      if (x.length) [from, to] = [Math.min(from, x[0]), Math.max(to, x[1])];
    }
    if (from > to) return [0, 1];
    return from === to ? [from - 0.5, to + 0.5] : [from, to];
  }

  edges({ series, ...line }) {
    if (!series.length) return [];
    const ends = (column) => [column[0], column.at(-1)];
    const edges = xOf({ steps: ends(series.steps), ts: ends(series.ts) }, this.view.x, line);
    return this.view.logX && edges[0] <= 0 ? [Math.min(1, edges[1] / 1000), edges[1]] : edges;
  }

  xRange() {
    return this.view.zoom ?? this.extent();
  }

  change(changes) {
    Object.assign(this.view, changes);
    this.onView(this.view, changes);
    this.draw();
  }

  /** Another x axis shows the same points: the zoom goes with them. */
  setX(mode) {
    const line = this.charts.flatMap((chart) => chart.lines).sort((a, b) => b.series.length - a.series.length)[0];
    const { zoom, x } = this.view;
    const moved = zoom && line ? zoom.map((edge) => translate(edge, xOf(line.series, x, line), xOf(line.series, mode, line))) : null;
    this.change({ x: mode, zoom: moved && moved[0] < moved[1] ? moved : null });
  }

  zoomTo(range) {
    this.change({ zoom: range });
  }

  /** Make the range in view `factor` times as wide, around `x`; what leaves everything in view is no zoom. */
  zoomAround(x, factor) {
    const [from, to] = this.xRange();
    const all = this.extent();
    const half = ((to - from) * factor) / 2;
    const range = [Math.max(x - half, all[0]), Math.min(x + half, all[1])];
    this.zoomTo(range[0] === all[0] && range[1] === all[1] ? null : range);
  }

  flip(id) {
    const flipped = new Set(this.view.flipped);
    if (!flipped.delete(id)) flipped.add(id);
    this.change({ flipped });
  }

  /** The mark beside `x`, if there is one. */
  markAt(x) {
    const [from, to] = this.xRange();
    const near = this.marks.filter((mark) => Math.abs(mark.x - x) <= (to - from) * MARK_REACH);
    return near.sort((a, b) => Math.abs(a.x - x) - Math.abs(b.x - x))[0] ?? null;
  }

  say(text) {
    this.live.textContent = text;
  }
}
