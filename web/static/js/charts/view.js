// What a page of charts shows, and the part of the address that keeps it: a link restores the same view. Pure; no DOM.
import { X_MODES } from "./axis.js";

export const LAYOUTS = ["overlay", "multiples"];

/**
 * The view that `params` (URLSearchParams) describes; what is missing or wrong there is as on a first visit.
 * zoom: [from, to] in units of x, or null. flipped: ids of charts whose y axis is not as it comes.
 * marks: whether they are drawn. filter, page: which lines of many are drawn.
 */
export function readView(params) {
  const smoothing = Number(params.get("smooth"));
  const zoom = (params.get("zoom") ?? "").split("~").map(Number);
  const isRange = zoom.length === 2 && zoom.every(Number.isFinite) && zoom[0] < zoom[1];
  return {
    x: X_MODES.includes(params.get("x")) ? params.get("x") : "step",
    logX: params.get("logx") === "1",
    smoothing: smoothing > 0 && smoothing < 1 ? smoothing : 0,
    zoom: isRange ? zoom : null,
    layout: LAYOUTS.includes(params.get("layout")) ? params.get("layout") : "overlay",
    flipped: new Set((params.get("flip") ?? "").split(",").filter(Boolean)),
    marks: params.get("marks") !== "0",
    filter: params.get("show") ?? "",
    page: Math.max(1, Math.trunc(Number(params.get("part"))) || 1),
  };
}

/** `params` with the view in it; what is as on a first visit is left out, what is not the charts' stays. */
export function writeView(view, params) {
  const written = new URLSearchParams(params);
  const values = {
    x: view.x === "step" ? "" : view.x,
    logx: view.logX ? "1" : "",
    smooth: view.smoothing ? String(view.smoothing) : "",
    zoom: view.zoom ? view.zoom.map((edge) => Number(edge.toPrecision(9))).join("~") : "",
    layout: view.layout === "overlay" ? "" : view.layout,
    flip: [...view.flipped].join(","),
    marks: view.marks ? "" : "0",
    show: view.filter,
    part: view.page > 1 ? String(view.page) : "",
  };
  for (const [name, value] of Object.entries(values)) {
    if (value) written.set(name, value);
    else written.delete(name);
  }
  return written;
}
