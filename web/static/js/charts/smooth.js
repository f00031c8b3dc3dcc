// Smoothing. Pure; no DOM.

const VIEWPORT = 1000;

/**
 * Exponential moving average, weighted by the distance of the points, without the pull of its start (debiased), as
 * Weights & Biases does it: series of different density over the same range are smoothed alike.
 * `range` is the extent of x to which distances are relative; null values stay null and weigh nothing.
 */
export function smooth(x, y, weight, range) {
  if (!weight || !range) return y;
  const decay = Math.min(Math.sqrt(weight), 0.999);
  let sum = 0;
  let norm = 0;
  let before = null;
  return y.map((value, i) => {
    if (value === null || value === undefined) return value;
    const factor = before === null ? 0 : decay ** (((x[i] - before) / range) * VIEWPORT);
    before = x[i];
    sum = sum * factor + value;
    norm = norm * factor + 1;
    return sum / norm;
  });
}
