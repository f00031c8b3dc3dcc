// Which series a run has, and which of its hookpoints the charts show: all that the filter keeps, a part at a time.
import { byNumber, coderOf, metricOf } from "./series.js";

/** Lines on one canvas that an eye can still tell apart. */
export const PART = 12;

export class Catalog {
  constructor() {
    this.keys = new Set();
    this.coders = [];
  }

  /** Returns whether `key` is new. */
  add(key) {
    if (this.keys.has(key)) return false;
    this.keys.add(key);
    const coder = coderOf(key);
    if (coder && !this.coders.includes(coder)) this.coders = [...this.coders, coder].sort(byNumber);
    return true;
  }

  /** `{coders, from, total}`: the hookpoints of the view's part, the place of the first, and how many the filter keeps. */
  part({ filter, page }) {
    const wanted = filter.toLowerCase();
    const kept = this.coders.filter((coder) => coder.toLowerCase().includes(wanted));
    const last = Math.max(0, Math.ceil(kept.length / PART) - 1);
    const from = Math.min(page - 1, last) * PART;
    return { coders: kept.slice(from, from + PART), from, total: kept.length };
  }

  has(metrics) {
    return [...this.keys].some((key) => metrics.includes(metricOf(key)));
  }

  /** Series of `metrics` (names) in the view's part, in the order of metrics, then hookpoints. */
  keysOf(metrics, view) {
    const { coders } = this.part(view);
    return metrics.flatMap((name) => [name, ...coders.map((coder) => `${name}/${coder}`)]).filter((key) => this.keys.has(key));
  }
}
