// From lines to the columns of numbers that a plot draws. Pure; no DOM.
import { join, spread, xOf } from "./axis.js";
import { smooth } from "./smooth.js";

const MAX_BANDS = 6;

/** The series of a line that the view shows: inside a zoom the finer one, once there is one. */
export function shownSeries(line, view) {
  return (view.zoom && line.detail) || line.series;
}

/**
 * `{x, columns}`: one x for all lines, and for each line `raw` (as measured), `main` (as smoothed), and `band`
 * (`{min, max}` of its buckets; null where the values are exact, or too many lines would hide each other).
 * `range` is the extent of x over all that there is.
 */
export function prepare(lines, view, range) {
  const shown = lines.map((line) => shownSeries(line, view));
  const xs = shown.map((series, i) => xOf(series, view.x, lines[i]));
  const { x, places } = join(xs);
  const columns = shown.map((series, i) => {
    const put = (values) => spread(values, places[i], x.length);
    const isSmoothed = view.smoothing > 0 && !lines[i].isHeldOut;
    const raw = put(series.values);
    const main = isSmoothed ? put(smooth(xs[i], series.values, view.smoothing, range[1] - range[0])) : raw;
    const hasBand = series.width > 1 && lines.length <= MAX_BANDS;
    return { raw, main, band: hasBand ? { min: put(series.min), max: put(series.max) } : null };
  });
  return { x, columns };
}

/** What the y axis must hold. */
export function drawnColumns({ columns }) {
  return columns.flatMap(({ raw, main, band }) => (band ? [main, band.min, band.max] : [raw, main]));
}
