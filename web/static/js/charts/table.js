// A chart's numbers as text: the legend under it, and the tables in its fold.
import { shownSeries } from "./columns.js";
import { swatch } from "./colors.js";
import { count, format, place } from "./numbers.js";

const MAX_ROWS = 100;

/** A legend of one entry per line, with a value each, and the cursor's place at its end. */
export class Legend {
  constructor(element) {
    this.element = element;
    this.place = document.createElement("span");
    this.ids = "";
  }

  show(lines, values, where) {
    const ids = JSON.stringify(lines.map((line) => [line.id, line.color, line.kind, line.name]));
    if (ids !== this.ids) this.build(lines, ids);
    lines.forEach((_, i) => setText(this.values[i], values[i]));
    setText(this.place, where);
  }

  build(lines, ids) {
    this.ids = ids;
    this.values = lines.map(() => document.createElement("b"));
    const kinds = [...new Set(lines.map(({ kind }) => kind))];
    const rows = kinds.flatMap((kind) => this.row(kind, lines.map((line, i) => [line, this.values[i]]).filter(([line]) => line.kind === kind)));
    this.element.replaceChildren(...rows, this.place);
  }

  /** The entries of one kind of lines; what several have in common is said once, before them. */
  row(kind, entries) {
    const isShared = kind && entries.length > 1;
    const items = entries.map(([line, value]) => {
      const item = document.createElement("span");
      item.append(swatch(line), (isShared ? [line.name] : [kind, line.name]).filter(Boolean).join(", "), value);
      return item;
    });
    if (!isShared) return items;
    const row = document.createElement("div");
    row.append(Object.assign(document.createElement("em"), { textContent: kind }), ...items);
    return [row];
  }
}

/** Newest, least and greatest value of every line, over all that there is. */
export function fillSummary(body, lines, form) {
  const rows = lines.map(({ label, series }) => {
    const numbers = (values) => values.filter((value) => value !== null);
    const least = numbers(series.min).reduce((a, b) => Math.min(a, b), Infinity);
    const greatest = numbers(series.max).reduce((a, b) => Math.max(a, b), -Infinity);
    return row(label, ...[series.values.at(-1), least, greatest].map((value) => format(form, value)), count(series.length));
  });
  body.replaceChildren(...rows);
}

/** The newest points in view, one row per place on the axis. */
export function fillPoints(table, { x, columns }, lines, form, view, [from, to]) {
  const places = x.map((_, i) => i).filter((i) => x[i] >= from && x[i] <= to);
  const newest = places.slice(-MAX_ROWS).reverse();
  const isBucketed = lines.some((line) => shownSeries(line, view).width > 1);
  const found = newest.length < places.length ? `The newest ${newest.length} of ${count(places.length)} places in view` : `All ${count(places.length)} places in view`;
  table.caption.textContent = `${found}${isBucketed ? "; each value is the last of its bucket: zoom in for single steps, the CSV has all" : ""}.`;
  const head = row("Place", ...lines.map((line) => line.label));
  for (const cell of head.querySelectorAll("td")) cell.replaceWith(Object.assign(document.createElement("th"), { className: "num", scope: "col", textContent: cell.textContent }));
  head.firstElementChild.scope = "col";
  table.tHead.replaceChildren(head);
  table.tBodies[0].replaceChildren(...newest.map((i) => row(place(view.x, x[i]), ...columns.map(({ raw }) => format(form, raw[i])))));
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function row(...cells) {
  const tr = document.createElement("tr");
  cells.forEach((text, i) => {
    const cell = document.createElement(i ? "td" : "th");
    if (i) cell.className = "num";
    else cell.scope = "row";
    cell.textContent = text;
    tr.append(cell);
  });
  return tr;
}
