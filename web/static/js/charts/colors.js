// Colours for canvases: what the style sheets say, in the theme that the page has now; and what has them everywhere.

const SERIES = 9;
const SVG = "http://www.w3.org/2000/svg";
const probes = new Map();

/** The text colour of an element of `className`. */
export function colorOf(className) {
  if (!probes.has(className)) {
    const probe = document.createElement("i");
    probe.className = className;
    probe.hidden = true;
    document.body.append(probe);
    probes.set(className, probe);
  }
  return getComputedStyle(probes.get(className)).color;
}

/** How every axis looks. */
export const AXIS = {
  stroke: () => colorOf("muted"),
  grid: { stroke: () => colorOf("probe-grid"), width: 1 },
  ticks: { show: false },
  font: "11px system-ui, sans-serif",
};

/** Call `redraw` whenever the page gets another theme. */
export function onTheme(redraw) {
  new MutationObserver(redraw).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}

export function lineClass(index) {
  return `swatch-${(index % SERIES) + 1}`;
}

/** Dashes of a line: held-out values have long ones; short ones tell the lines beyond the number of colours. */
export function dashOf(line) {
  if (line.isHeldOut) return [6, 4];
  return line.color >= SERIES ? [2, 3] : undefined;
}

/** A piece of the line, for a legend. */
export function swatch(line) {
  const svg = document.createElementNS(SVG, "svg");
  const path = document.createElementNS(SVG, "path");
  const set = (element, attributes) => Object.entries(attributes).forEach(([name, value]) => element.setAttribute(name, value));
  set(svg, { width: "16", height: "8", "aria-hidden": "true", class: lineClass(line.color) });
  set(path, { d: "M0 4h16", stroke: "currentColor", "stroke-width": "2" });
  const dash = dashOf(line);
  if (dash) path.setAttribute("stroke-dasharray", dash.join(" "));
  svg.append(path);
  return svg;
}
