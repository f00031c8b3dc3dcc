// The list of runs: a run that changed refetches its own row. Chosen runs are counted, and stay chosen.
//
// Rows never jump under the pointer: a new run shows up by itself only where it comes on top of the whole list and
// nobody is in the middle of something; elsewhere the list says that there are new runs.
import { coalesce, connect } from "./live.js";

const refreshers = new Map();
const list = () => document.getElementById("runs");
const fire = (name) => document.body.dispatchEvent(new CustomEvent(name));

function refresh(id) {
  if (document.getElementById(`run-${id}`)) fire(`sb-row-${id}`);
}

function onRun(event) {
  const id = event.detail.run_id;
  if (!refreshers.has(id)) refreshers.set(id, coalesce(() => refresh(id), 1000));
  refreshers.get(id)();
}

function onNewRun() {
  const isUndisturbed = list().hasAttribute("data-plain") && !numPicked() && !list().dataset.grown;
  const stale = document.getElementById("stale");
  if (isUndisturbed || !stale) fire("sb-list");
  else stale.hidden = false;
}

document.body.addEventListener("sb-run", onRun);
document.body.addEventListener("sb-runs", coalesce(onNewRun, 1000));
document.body.addEventListener("sb-resync", coalesce(onNewRun, 1000));
connect("runs", list().dataset.after);

const picks = () => [...document.querySelectorAll("#runs [name=run]")];
const numPicked = () => picks().filter((pick) => pick.checked).length;
const runs = (number) => `${number} ${number === 1 ? "run" : "runs"}`;
let lastPick = null;
let numShown = 0;

function countPicks() {
  const bulk = document.getElementById("bulk");
  if (!bulk) return;
  const all = picks();
  const num = numPicked();
  const everything = document.getElementById("everything");
  if (num < all.length) everything.checked = false;
  const chosen = everything.checked ? `all ${document.getElementById("num-matching").textContent.trim()} runs` : runs(num);
  bulk.toggleAttribute("data-some", num > 0);
  bulk.toggleAttribute("data-page", num > 0 && num === all.length);
  document.getElementById("bulk-count").textContent = `${chosen[0].toUpperCase()}${chosen.slice(1)} chosen`;
  document.getElementById("bulk-cancel-title").textContent = `Cancel ${chosen}?`;
  document.getElementById("compare").disabled = everything.checked;
  const pickAll = document.getElementById("pick-all");
  pickAll.checked = num > 0 && num === all.length;
  pickAll.indeterminate = num > 0 && num < all.length;
}

/** With Shift, everything between the last choice and this one. */
function pick(target, shift) {
  const all = picks();
  const [from, to] = [all.indexOf(lastPick), all.indexOf(target)].sort((a, b) => a - b);
  if (shift && from >= 0) for (const each of all.slice(from, to)) each.checked = target.checked;
  lastPick = target;
}

document.addEventListener("click", (event) => {
  const { target } = event;
  if (target.matches("#runs [name=run]")) pick(target, event.shiftKey);
  if (target.closest(".load-more a")) numShown = picks().length;
  if (target.closest("#compare")) {
    event.preventDefault();
    const chosen = picks().filter((each) => each.checked);
    location.assign(`/compare?${chosen.map((each) => `run=${each.value}`).join("&")}`);
  }
});
document.addEventListener("change", ({ target }) => {
  if (target.id === "pick-all") {
    for (const each of picks()) each.checked = target.checked;
    if (target.checked) fire("sb-count");
  }
  countPicks();
});

/** Whatever was asked for the chosen runs was asked once. */
function endBulk() {
  document.getElementById("bulk-cancel")?.hidePopover();
  for (const each of picks()) each.checked = false;
  fire("sb-list");
}

document.addEventListener("htmx:after:swap", ({ detail }) => {
  const target = detail?.ctx?.target;
  if (target?.id === "outcome") endBulk();
  else if (target?.id === "columns-body") document.getElementById("columns").showModal();
  else if (target?.classList?.contains("load-more")) {
    list().dataset.grown = "yes";
    if (document.activeElement === document.body) list().querySelectorAll("a.name")[numShown]?.focus(); // its link is gone
  }
  countPicks();
});
countPicks(); // a browser keeps what was checked before a reload
