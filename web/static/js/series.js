// The points of a run: one value per series and step, whatever the order of arrival; the later one wins.

export class SeriesStore {
  constructor() {
    this.series = new Map();
  }

  clear() {
    this.series.clear();
  }

  /** Take a whole series; points that arrived before are kept only where they are not in it. */
  load(key, steps, values) {
    const { steps: oldSteps, values: oldValues } = this.get(key);
    this.series.set(key, { steps: [...steps], values: [...values] });
    const known = new Set(steps);
    oldSteps.forEach((step, i) => known.has(step) || this.put(key, step, oldValues[i]));
  }

  put(key, step, value) {
    if (!this.series.has(key)) this.series.set(key, { steps: [], values: [] });
    const { steps, values } = this.series.get(key);
    const number = typeof value === "number" ? value : null; // "nan", "inf": a hole in the line
    if (steps.length === 0 || step > steps[steps.length - 1]) {
      steps.push(step);
      values.push(number);
      return;
    }
    const at = lowerBound(steps, step);
    if (steps[at] === step) values[at] = number;
    else {
      steps.splice(at, 0, step);
      values.splice(at, 0, number);
    }
  }

  get(key) {
    return this.series.get(key) ?? { steps: [], values: [] };
  }

  /** Keys of the series of `metrics` (names), in that order, coders sorted within each. */
  keysOf(metrics) {
    const keys = [...this.series.keys()];
    return metrics.flatMap((name) => keys.filter((key) => key === name || key.startsWith(`${name}/`)).sort(byNumber));
  }

  /** One shared x array and a y array per key, as uPlot wants them; `null` where a series has no point. */
  align(keys) {
    const union = new Set();
    for (const key of keys) for (const step of this.get(key).steps) union.add(step);
    const x = [...union].sort((a, b) => a - b);
    const at = new Map(x.map((step, i) => [step, i]));
    return [
      x,
      ...keys.map((key) => {
        const { steps, values } = this.get(key);
        const y = new Array(x.length).fill(undefined);
        steps.forEach((step, i) => (y[at.get(step)] = values[i]));
        return y;
      }),
    ];
  }
}

function lowerBound(sorted, value) {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

function byNumber(a, b) {
  return a.localeCompare(b, "en", { numeric: true });
}

export function coderOf(key) {
  const slash = key.indexOf("/");
  return slash < 0 ? "" : key.slice(slash + 1);
}

export function metricOf(key) {
  const slash = key.indexOf("/");
  return slash < 0 ? key : key.slice(0, slash);
}
