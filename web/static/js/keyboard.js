// Keys that work everywhere. A page gives any link or button a key of its own with data-key.
import { openDialog } from "./dialogs.js";

const ROWS = "main tbody tr, main .queue > li, main ul.items > li";

function isTyping(element) {
  return element.closest("input:not([type=checkbox]), textarea, select, [contenteditable]") !== null;
}

/** Focus the first link of the next row, or of the one before; the first row when none has the focus. */
function moveFocus(by) {
  const rows = [...document.querySelectorAll(ROWS)].filter((row) => row.querySelector("a[href]") && row.offsetParent);
  const now = rows.findIndex((row) => row.contains(document.activeElement));
  const next = now < 0 ? 0 : Math.min(Math.max(now + by, 0), rows.length - 1);
  rows[next]?.querySelector("a[href]").focus();
}

/** Choose the row that has the focus, or no longer. */
function pick() {
  document.activeElement.closest(ROWS)?.querySelector("input[type=checkbox]")?.click();
}

/** Into the search field of the part of the page that has the focus, else into that of the runs. */
function search() {
  const field = document.activeElement.closest("section")?.querySelector("input[type=search]") ?? document.getElementById("search");
  if (!field) return location.assign("/runs#search");
  field.focus();
  field.select();
}

const KEYS = {
  "/": search,
  "?": () => openDialog("help"),
  j: () => moveFocus(1),
  k: () => moveFocus(-1),
  x: pick,
  n: () => location.assign(document.body.dataset.new),
};

/** Out of the search for runs, to the first of those that were found. */
document.getElementById("search")?.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" && event.key !== "ArrowDown") return;
  event.preventDefault(); // Escape would empty the field
  event.target.blur();
  moveFocus(0);
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target) || document.querySelector("dialog[open]")) return;
  const owners = document.querySelectorAll(`[data-key="${CSS.escape(event.key)}"]:not(:disabled)`);
  const own = [...owners].find((element) => element.offsetParent);
  if (!own && !(event.key in KEYS && document.body.dataset.new)) return;
  event.preventDefault();
  if (own) own.click();
  else KEYS[event.key]();
});

if (location.hash === "#search") search();
