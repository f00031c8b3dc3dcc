// The queue: follows the stream, and lets runs be dragged, or moved with Alt and the arrow keys.
//
// A move is always said relative to another run, so it is right whatever else has moved since the page was drawn.
import { coalesce, connect } from "./live.js";

const form = document.getElementById("move");
let dragged = null;
let target = null;
let isStale = false;

const refresh = coalesce(() => {
  if (dragged) isStale = true;
  else document.body.dispatchEvent(new CustomEvent("sb-queue"));
}, 1000);

/** Show a run beside another one at once, and ask the server for the same. */
function move(row, other, ahead) {
  other[ahead ? "before" : "after"](row);
  form.elements.run.value = row.dataset.run;
  form.elements.ahead_of.value = ahead ? other.dataset.run : "";
  form.elements.behind_of.value = ahead ? "" : other.dataset.run;
  form.requestSubmit();
}

function rowOf(element) {
  return element.closest?.(".queued > li") ?? null;
}

function mark(row, ahead) {
  target?.row.classList.remove("is-ahead", "is-behind");
  target = row && row !== dragged ? { row, ahead } : null;
  target?.row.classList.add(ahead ? "is-ahead" : "is-behind");
}

function endDrag() {
  mark(null);
  dragged?.classList.remove("is-dragged");
  dragged = null;
  if (isStale) refresh();
  isStale = false;
}

document.addEventListener("dragstart", (event) => {
  if (!event.target.closest?.(".grip")) return;
  dragged = rowOf(event.target);
  event.dataTransfer.effectAllowed = "move";
  event.dataTransfer.setData("text/plain", dragged.dataset.run);
  event.dataTransfer.setDragImage(dragged, 16, 16);
  dragged.classList.add("is-dragged");
});
document.addEventListener("dragover", (event) => {
  const row = dragged && rowOf(event.target);
  if (!row) return;
  event.preventDefault();
  const { top, height } = row.getBoundingClientRect();
  mark(row, event.clientY < top + height / 2);
});
document.addEventListener("drop", (event) => {
  if (!dragged) return;
  event.preventDefault();
  const [row, place] = [dragged, target];
  endDrag();
  if (place) move(row, place.row, place.ahead);
});
document.addEventListener("dragend", endDrag);

document.addEventListener("keydown", (event) => {
  const row = rowOf(event.target);
  if (!row || !event.altKey || !["ArrowUp", "ArrowDown"].includes(event.key)) return;
  event.preventDefault();
  const ahead = event.key === "ArrowUp";
  const other = ahead ? row.previousElementSibling : row.nextElementSibling;
  if (!other) return;
  const focused = document.activeElement;
  move(row, other, ahead);
  focused.focus();
});

document.addEventListener("htmx:after:swap", () => {
  const { activeElement } = document;
  if (activeElement?.disabled) rowOf(activeElement)?.focus(); // the button that moved a run to the very top
});

for (const name of ["sb-run", "sb-runs", "sb-resync"]) document.body.addEventListener(name, refresh);
connect("runs", document.getElementById("queue").dataset.after);
