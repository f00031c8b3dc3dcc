// The x axis: steps, tokens, wall time, or of machines the time of day (clock); and joining lines on one axis. Pure; no DOM.
import { lowerBound } from "./series.js";

export const X_MODES = ["step", "tokens", "time"];
const ROUNDING = 1e-9;

/**
 * The series' place on the axis: steps, tokens, or seconds since `origin` (Unix time). `before`: the steps and tokens
 * that were trained before its step 0.
 */
export function xOf(series, mode, { tokensPerStep, origin, before }) {
  if (mode === "tokens") return series.steps.map((step) => (before?.tokens ?? 0) + step * tokensPerStep);
  if (mode === "clock") return series.ts;
  if (mode === "time") return series.ts.map((ts) => ts - origin);
  return before?.steps ? series.steps.map((step) => before.steps + step) : series.steps;
}

/** Where `value` of the rising numbers `from` stands among the numbers `to`, straight in between and beyond. */
export function translate(value, from, to) {
  if (from.length === 0) return value;
  if (from.length === 1) return to[0];
  const at = Math.min(Math.max(lowerBound(from, value), 1), from.length - 1);
  const share = (value - from[at - 1]) / (from[at] - from[at - 1] || 1);
  return to[at - 1] + share * (to[at] - to[at - 1]);
}

/** One rising x for all of `xs`, and for each of them the place of its numbers in it. */
export function join(xs) {
  if (xs.length === 0) return { x: [], places: [] };
  if (xs.every((x) => same(x, xs[0]))) return { x: xs[0], places: xs.map(() => null) };
  const x = [...new Set(xs.flat())].sort((a, b) => a - b);
  const at = new Map(x.map((value, i) => [value, i]));
  return { x, places: xs.map((own) => own.map((value) => at.get(value))) };
}

/** `values` at their `places` of an axis of `length`; undefined where the axis has a place that they have not. */
export function spread(values, places, length) {
  if (places === null) return values;
  const y = new Array(length).fill(undefined);
  places.forEach((place, i) => (y[place] = values[i]));
  return y;
}

/** Least and greatest of the `columns` (aligned with `x`) inside `[from, to]`, or null; on a log axis above 0 only. */
export function extent(x, columns, [from, to], isLog) {
  let low = Infinity;
  let high = -Infinity;
  for (const column of columns) {
    for (let i = lowerBound(x, from); i < x.length && x[i] <= to; i++) {
      const value = column[i];
      if (value === null || value === undefined || (isLog && value <= 0)) continue;
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  return low <= high ? [low, high] : null;
}

/** A little beyond the values: whole decades would squeeze a falling FVU into half the height. */
export function padded(range, isLog) {
  if (range === null) return isLog ? [0.1, 1] : [0, 1];
  const [min, max] = range;
  if (isLog) {
    const pad = Math.max((Math.log10(max) - Math.log10(min)) * 0.06, 0.02);
    return [10 ** (Math.log10(min) - pad), 10 ** (Math.log10(max) + pad)];
  }
  const size = Math.max(Math.abs(min), Math.abs(max));
  if (max - min <= size * ROUNDING) return [min === 0 ? 0 : min - size * 0.1, max === 0 ? 1 : max + size * 0.1];
  const pad = (max - min) * 0.08;
  return [min >= 0 ? Math.max(0, min - pad) : min - pad, max + pad];
}

function same(a, b) {
  return a === b || (a.length === b.length && a.every((value, i) => value === b[i]));
}
