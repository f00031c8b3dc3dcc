// One series of a run in buckets: what the server sends, and how live points go on in it. Pure; no DOM.
//
// A bucket covers `width` steps (a power of two), aligned to step 0, so that every series and every viewer cuts at the
// same places. It keeps the last value, with its step and time, and the least and the greatest. A series of width 1
// is exact. Values that are no numbers ("nan", "inf") are null: holes in the line.

/** Buckets that are asked for; a series that grows to twice as many by live points is merged to half. */
export const MAX_POINTS = 1500;

export class Series {
  constructor(width = 1) {
    this.width = width;
    this.steps = [];
    this.values = [];
    this.ts = [];
    this.min = [];
    this.max = [];
  }

  /** As the API has it: `{steps, values, ts, min?, max?, width?}`. */
  static from({ steps, values, ts, min, max, width = 1 }) {
    const series = new Series(width);
    series.steps = [...steps];
    series.values = values.map(finite);
    series.ts = [...ts];
    series.min = (min ?? values).map(finite);
    series.max = (max ?? values).map(finite);
    return series;
  }

  get length() {
    return this.steps.length;
  }

  /** Take a point; one that came before changes nothing, so a stream may repeat itself. */
  put(step, value, ts) {
    const number = finite(value);
    const bucket = Math.floor(step / this.width);
    const at = this.placeOf(bucket);
    if (at === this.length || Math.floor(this.steps[at] / this.width) !== bucket) this.insert(at, step, number, ts);
    else this.merge(at, step, number, ts);
    if (this.length > 2 * MAX_POINTS) this.coarsen();
  }

  /** First place whose bucket is `bucket` or a later one. */
  placeOf(bucket) {
    if (!this.length || Math.floor(this.steps[this.length - 1] / this.width) < bucket) return this.length;
    return lowerBound(this.steps, bucket * this.width);
  }

  insert(at, step, value, ts) {
    if (at === this.length) this.columns().forEach((column, i) => column.push([step, value, ts, value, value][i]));
    else this.columns().forEach((column, i) => column.splice(at, 0, [step, value, ts, value, value][i]));
  }

  merge(at, step, value, ts) {
    if (this.width === 1) {
      this.values[at] = this.min[at] = this.max[at] = value;
      return;
    }
    if (step >= this.steps[at]) {
      this.steps[at] = step;
      this.values[at] = value;
      this.ts[at] = ts;
    }
    this.min[at] = least(this.min[at], value);
    this.max[at] = greatest(this.max[at], value);
  }

  columns() {
    return [this.steps, this.values, this.ts, this.min, this.max];
  }

  /** Double the width by merging the buckets that fall into one. */
  coarsen() {
    const fine = this.columns();
    this.width *= 2;
    [this.steps, this.values, this.ts, this.min, this.max] = [[], [], [], [], []];
    fine[0].forEach((step, i) => {
      const last = this.length - 1;
      if (last < 0 || Math.floor(this.steps[last] / this.width) !== Math.floor(step / this.width)) {
        this.columns().forEach((column, j) => column.push(fine[j][i]));
        return;
      }
      [this.steps[last], this.values[last], this.ts[last]] = [step, fine[1][i], fine[2][i]];
      this.min[last] = least(this.min[last], fine[3][i]);
      this.max[last] = greatest(this.max[last], fine[4][i]);
    });
  }
}

function finite(value) {
  return typeof value === "number" ? value : null;
}

function least(a, b) {
  return a === null ? b : b === null ? a : Math.min(a, b);
}

function greatest(a, b) {
  return a === null ? b : b === null ? a : Math.max(a, b);
}

/** First place in `sorted` whose number is `value` or more. */
export function lowerBound(sorted, value) {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

export function coderOf(key) {
  const slash = key.indexOf("/");
  return slash < 0 ? "" : key.slice(slash + 1);
}

export function metricOf(key) {
  const slash = key.indexOf("/");
  return slash < 0 ? key : key.slice(0, slash);
}

export function byNumber(a, b) {
  return a.localeCompare(b, "en", { numeric: true });
}
