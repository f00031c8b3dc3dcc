// The series of one run: fetched when a chart needs them, then kept up by live points, finer inside a zoom.
import { translate, xOf } from "./axis.js";
import { MAX_POINTS, Series } from "./series.js";

const KEYS_A_REQUEST = 100;
const ZOOM_SETTLES_MS = 150;
const RETRY_MS = 3000;
const ZOOM_MARGIN = 0.02;

export class RunSource {
  /** onData() hears when there is more to draw, onLoaded() when series have come whole. */
  constructor(runId, onData, onLoaded) {
    this.url = `/api/v1/runs/${runId}/metrics`;
    this.onData = onData;
    this.onLoaded = onLoaded;
    this.series = new Map();
    this.details = new Map();
    this.waiting = new Map(); // points that come while their series is on its way, by key
    this.late = new Map(); // likewise for the details
    this.retries = new AbortController();
    this.zooms = new AbortController();
    this.zoomTimer = 0;
  }

  /** Load those of `keys` that are not there or on their way. */
  want(keys) {
    const missing = keys.filter((key) => !this.series.has(key) && !this.waiting.has(key));
    for (const key of missing) this.waiting.set(key, []);
    for (let at = 0; at < missing.length; at += KEYS_A_REQUEST) this.load(missing.slice(at, at + KEYS_A_REQUEST), this.retries.signal);
  }

  async load(keys, signal) {
    const found = await this.fetch(keys, {}, signal).catch(() => null);
    if (signal.aborted) return;
    if (found === null) {
      setTimeout(() => signal.aborted || this.load(keys, signal), RETRY_MS);
      return;
    }
    for (const key of keys) {
      const series = found[key] ? Series.from(found[key]) : new Series();
      for (const point of this.waiting.get(key)) series.put(...point);
      this.waiting.delete(key);
      this.series.set(key, series);
    }
    this.onData();
    this.onLoaded();
  }

  async fetch(keys, range, signal) {
    const query = new URLSearchParams([...keys.map((key) => ["key", key]), ["max_points", MAX_POINTS], ...Object.entries(range)]);
    const response = await fetch(`${this.url}?${query}`, { headers: { Accept: "application/json" }, signal });
    if (!response.ok) throw new Error(`${this.url}: ${response.status}`);
    return (await response.json()).series;
  }

  /** A point of the stream; one that a request already brought changes nothing. */
  put(key, step, value, ts) {
    this.waiting.get(key)?.push([step, value, ts]);
    this.late.get(key)?.push([step, value, ts]);
    this.series.get(key)?.put(step, value, ts);
    this.putDetail(key, step, value, ts);
  }

  putDetail(key, step, value, ts) {
    const detail = this.details.get(key);
    if (detail && step >= detail.start && step <= detail.end) detail.series.put(step, value, ts);
  }

  /** Points were taken back: load everything again, and keep showing the old until the new is there. */
  reload() {
    this.retries.abort();
    this.retries = new AbortController();
    this.zooms.abort();
    this.details.clear();
    const keys = [...new Set([...this.series.keys(), ...this.waiting.keys()])];
    for (const key of keys) this.waiting.set(key, []);
    for (let at = 0; at < keys.length; at += KEYS_A_REQUEST) this.load(keys.slice(at, at + KEYS_A_REQUEST), this.retries.signal);
  }

  /** The finer series of `key` that covers the zoom of `view`, if it has been loaded. */
  detailOf(key, view, run) {
    const detail = this.details.get(key);
    if (!detail || !view.zoom) return undefined;
    const [start, end] = this.stepsOf(this.series.get(key), view, run);
    return detail.start <= start && end <= detail.end ? detail.series : undefined;
  }

  stepsOf(series, view, run) {
    const x = xOf(series, view.x, run);
    return view.zoom.map((edge) => Math.max(0, translate(edge, x, series.steps)));
  }

  /** Whether a request would bring nothing finer: single steps are there, or a range hardly wider than the zoom. */
  isFine(key, view, run) {
    if (!this.detailOf(key, view, run)) return false;
    const { start, end, series } = this.details.get(key);
    const [from, to] = this.stepsOf(this.series.get(key), view, run);
    return series.width === 1 || end - start < 1.5 * (to - from);
  }

  /** Load the buckets inside the zoom at finer width; asked again soon, only the last request counts. */
  refine(keys, view, run) {
    clearTimeout(this.zoomTimer);
    this.zooms.abort();
    this.zooms = new AbortController();
    this.late.clear();
    if (!view.zoom) return;
    const { signal } = this.zooms;
    this.zoomTimer = setTimeout(() => this.loadDetails(keys, view, run, signal).catch(() => {}), ZOOM_SETTLES_MS);
  }

  async loadDetails(keys, view, run, signal) {
    const coarse = keys.filter((key) => this.series.get(key)?.width > 1 && !this.isFine(key, view, run));
    if (!coarse.length) return;
    const edges = coarse.map((key) => this.stepsOf(this.series.get(key), view, run));
    const margin = Math.max(...edges.map(([start, end]) => end - start)) * ZOOM_MARGIN;
    const start = Math.max(0, Math.floor(Math.min(...edges.map(([first]) => first)) - margin));
    const end = Math.ceil(Math.max(...edges.map(([, last]) => last)) + margin);
    for (const key of coarse) this.late.set(key, []);
    const found = await this.fetch(coarse, { start, end }, signal);
    if (signal.aborted) return;
    for (const key of coarse.filter((one) => found[one])) {
      this.details.set(key, { start, end, series: Series.from(found[key]) });
      for (const point of this.late.get(key)) this.putDetail(key, ...point);
    }
    this.late.clear();
    this.onData();
  }
}
