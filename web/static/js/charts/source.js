// Series that are fetched when a chart needs them, then kept up by live points, finer inside a zoom. Their ids are the
// subclass's, which has
//
//   batches(ids)               // lists of ids, each for one request
//   fetch(ids, range, signal)  // Map of what the API has of them; range: {start, end} in steps, or {}
import { translate, xOf } from "./axis.js";
import { MAX_POINTS, Series } from "./series.js";

const ZOOM_SETTLES_MS = 150;
const RETRY_MS = 3000;
const ZOOM_MARGIN = 0.02;

export class Source {
  /** onData() hears when there is more to draw, onLoaded() when series have come whole. */
  constructor(onData, onLoaded) {
    this.onData = onData;
    this.onLoaded = onLoaded;
    this.series = new Map();
    this.details = new Map();
    this.waiting = new Map(); // points that come while their series is on its way, by id
    this.late = new Map(); // likewise for the details
    this.zooms = new AbortController();
    this.zoomTimer = 0;
  }

  /** Load those of `ids` that are not there or on their way. */
  want(ids) {
    this.order(ids.filter((id) => !this.series.has(id) && !this.waiting.has(id)));
  }

  order(ids) {
    for (const id of ids) this.waiting.set(id, []);
    for (const some of this.batches(ids)) this.load(new Map(some.map((id) => [id, this.waiting.get(id)])));
  }

  /** Fetch what is waited for; what was ordered again meanwhile waits with another list of points. */
  async load(queues) {
    const found = await this.fetch([...queues.keys()], {}).catch(() => null);
    const mine = new Map([...queues].filter(([id, points]) => this.waiting.get(id) === points));
    if (!mine.size) return;
    if (found === null) {
      setTimeout(() => this.load(mine), RETRY_MS);
      return;
    }
    for (const [id, points] of mine) {
      const series = found.has(id) ? Series.from(found.get(id)) : new Series();
      for (const point of points) series.put(...point);
      this.waiting.delete(id);
      this.series.set(id, series);
    }
    this.onData();
    this.onLoaded();
  }

  /** A point of the stream; one that a request already brought changes nothing. */
  put(id, step, value, ts) {
    this.waiting.get(id)?.push([step, value, ts]);
    this.late.get(id)?.push([step, value, ts]);
    this.series.get(id)?.put(step, value, ts);
    this.putDetail(id, step, value, ts);
  }

  putDetail(id, step, value, ts) {
    const detail = this.details.get(id);
    if (detail && step >= detail.start && step <= detail.end) detail.series.put(step, value, ts);
  }

  /** Points were taken back: load everything anew of which `isStale(id)`, and show the old until the new is there. */
  reload(isStale = () => true) {
    this.zooms.abort();
    const stale = [...new Set([...this.series.keys(), ...this.waiting.keys()])].filter(isStale);
    for (const id of stale) this.details.delete(id);
    this.order(stale);
  }

  /** The finer series of `id` that covers the zoom of `view`, if it has been loaded; `axis` as `xOf` takes it. */
  detailOf(id, view, axis) {
    const detail = this.details.get(id);
    if (!detail || !view.zoom) return undefined;
    const [start, end] = this.stepsOf(this.series.get(id), view, axis);
    return detail.start <= start && end <= detail.end ? detail.series : undefined;
  }

  stepsOf(series, view, axis) {
    const x = xOf(series, view.x, axis);
    return view.zoom.map((edge) => Math.max(0, translate(edge, x, series.steps)));
  }

  /** Whether a request would bring nothing finer: single steps are there, or a range hardly wider than the zoom. */
  isFine(id, view, axis) {
    if (!this.detailOf(id, view, axis)) return false;
    const { start, end, series } = this.details.get(id);
    const [from, to] = this.stepsOf(this.series.get(id), view, axis);
    return series.width === 1 || end - start < 1.5 * (to - from);
  }

  /** Load the buckets inside the zoom at finer width; asked again soon, only the last request counts. */
  refine(ids, view, axisOf) {
    clearTimeout(this.zoomTimer);
    this.zooms.abort();
    this.zooms = new AbortController();
    this.late.clear();
    if (!view.zoom) return;
    const { signal } = this.zooms;
    this.zoomTimer = setTimeout(() => this.loadDetails(ids, view, axisOf, signal).catch(() => {}), ZOOM_SETTLES_MS);
  }

  async loadDetails(ids, view, axisOf, signal) {
    const coarse = ids.filter((id) => this.series.get(id)?.width > 1 && !this.isFine(id, view, axisOf(id)));
    if (!coarse.length) return;
    const edges = coarse.map((id) => this.stepsOf(this.series.get(id), view, axisOf(id)));
    const margin = Math.max(...edges.map(([start, end]) => end - start)) * ZOOM_MARGIN;
    const start = Math.max(0, Math.floor(Math.min(...edges.map(([first]) => first)) - margin));
    const end = Math.ceil(Math.max(...edges.map(([, last]) => last)) + margin);
    for (const id of coarse) this.late.set(id, []);
    const answers = await Promise.all(this.batches(coarse).map((some) => this.fetch(some, { start, end }, signal)));
    if (signal.aborted) return;
    for (const [id, found] of answers.flatMap((answer) => [...answer])) {
      this.details.set(id, { start, end, series: Series.from(found) });
      for (const point of this.late.get(id)) this.putDetail(id, ...point);
    }
    this.late.clear();
    this.onData();
  }
}

/** `items` in lists of at most `size`. */
export function inParts(items, size) {
  return Array.from({ length: Math.ceil(items.length / size) }, (_, part) => items.slice(part * size, (part + 1) * size));
}

/** What the API has at `path`; `parameters` are `[name, value]`. */
export async function fetchSeries(path, parameters, range, signal) {
  const query = new URLSearchParams([...parameters, ["max_points", MAX_POINTS], ...Object.entries(range)]);
  const response = await fetch(`${path}?${query}`, { headers: { Accept: "application/json" }, signal });
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return (await response.json()).series;
}
