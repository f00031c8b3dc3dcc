// What stands on the x axis besides the points. Pure; no DOM.
//
//   mark = {
//     kind,         // checkpoint, attempt (goes on from a checkpoint), warning, or branch (a fork begins)
//     label, x,     // x in units of the axis
//     color,        // of the run that it belongs to, as a line's; undefined: the kind's own
//     parent        // of a branch: id of the run on whose line it stands
//   }
import { translate, xOf } from "./axis.js";

/** A run's marks, `{kind, label, step or ts}`, where they stand; `series` of the run tells a step from a time. */
export function placed(marks, mode, axis, series) {
  if (!series?.length) return [];
  return marks.map((mark) => {
    const step = mark.step ?? translate(mark.ts, series.ts, series.steps);
    const [x] = xOf({ steps: [step], ts: [translate(step, series.steps, series.ts)] }, mode, axis);
    return { ...mark, x };
  });
}

/** The series with the most points. */
export function longest(series) {
  return [...series].sort((a, b) => b.length - a.length)[0];
}

/** Marks of several runs, each with its `number`: alike ones at one place become one, which has no run's colour. */
export function merged(marks) {
  const alike = new Map();
  for (const mark of marks) {
    const key = `${mark.kind} ${mark.x} ${mark.label}`;
    alike.set(key, [...(alike.get(key) ?? []), mark]);
  }
  return [...alike.values()].map(([first, ...others]) => {
    const runs = [first, ...others].map((mark) => mark.number).join(", ");
    return { ...first, label: `${runs}: ${first.label}`, color: others.length ? undefined : first.color };
  });
}
