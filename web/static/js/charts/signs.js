// The signs of marks (marks.js) on a canvas.
import { translate } from "./axis.js";
import { colorOf, lineClass } from "./colors.js";

const SHAPES = { checkpoint: [[0, 1], [4, 8], [-4, 8]], warning: [[0, 1], [4, 5], [0, 9], [-4, 5]] }; // below the axis
const RING = 4.5;

/** A triangle per checkpoint, a rhomb per warning, a dashed line where an attempt goes on, a ring where a fork begins. */
export function drawSigns(u, marks, lines, { x, columns }) {
  const { left, top, width, height } = u.bbox;
  const unit = devicePixelRatio;
  u.ctx.save();
  u.ctx.lineWidth = unit;
  for (const mark of marks) {
    const at = u.valToPos(mark.x, "x", true);
    if (!(at >= left && at <= left + width)) continue;
    u.ctx.fillStyle = u.ctx.strokeStyle = colorOf(mark.color === undefined ? `mark-${mark.kind}` : lineClass(mark.color));
    if (mark.kind === "branch") parentLines(mark, lines).forEach((i) => drawRing(u, at, heightAt(mark.x, x, columns[i].main)));
    else if (mark.kind === "attempt") drawDashes(u, at, top, top + height + 6 * unit);
    else drawShape(u, at, top + height, SHAPES[mark.kind]);
  }
  u.ctx.restore();
}

/** Places of the lines that the fork leaves: the trained ones, on a canvas of held-out ones alone these. */
function parentLines({ parent }, lines) {
  const places = lines.map((_, i) => i).filter((i) => lines[i].run === parent);
  const trained = places.filter((i) => !lines[i].isHeldOut);
  return trained.length ? trained : places;
}

function drawShape(u, x, base, points) {
  u.ctx.beginPath();
  for (const [dx, dy] of points) u.ctx.lineTo(x + dx * devicePixelRatio, base + dy * devicePixelRatio);
  u.ctx.fill();
}

function drawDashes(u, x, from, to) {
  u.ctx.setLineDash([4 * devicePixelRatio, 3 * devicePixelRatio]);
  u.ctx.beginPath();
  u.ctx.moveTo(x, from);
  u.ctx.lineTo(x, to);
  u.ctx.stroke();
  u.ctx.setLineDash([]);
}

function drawRing(u, x, value) {
  if (value === null) return;
  u.ctx.fillStyle = colorOf("probe-surface");
  u.ctx.lineWidth = 2 * devicePixelRatio;
  u.ctx.beginPath();
  u.ctx.arc(x, u.valToPos(value, "y", true), RING * devicePixelRatio, 0, 2 * Math.PI);
  u.ctx.fill();
  u.ctx.stroke();
  u.ctx.lineWidth = devicePixelRatio;
}

/** Where the line through `values` runs at `at`; null beyond its ends. */
function heightAt(at, x, values) {
  const places = x.map((_, i) => i).filter((i) => typeof values[i] === "number");
  const [xs, ys] = [places.map((i) => x[i]), places.map((i) => values[i])];
  return at >= xs[0] && at <= xs.at(-1) ? translate(at, xs, ys) : null;
}
