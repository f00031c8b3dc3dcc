// The list of runs: a run that changed refetches its own row, a new one refetches the list. Chosen runs are counted.
import { coalesce, connect } from "./live.js";

const refreshers = new Map();

function refresh(id) {
  if (document.getElementById(`run-${id}`)) document.body.dispatchEvent(new CustomEvent(`sb-row-${id}`));
}

function onRun(event) {
  const id = event.detail.run_id;
  if (!refreshers.has(id)) refreshers.set(id, coalesce(() => refresh(id), 1000));
  refreshers.get(id)();
}

document.body.addEventListener("sb-run", onRun);
const refreshList = coalesce(() => document.body.dispatchEvent(new CustomEvent("sb-list")), 1000);
document.body.addEventListener("sb-runs", refreshList);
document.body.addEventListener("sb-resync", refreshList);
connect("runs", document.getElementById("runs").dataset.after);

const bulk = document.getElementById("bulk");
const picks = () => [...document.querySelectorAll("#runs [name=run]")];

function countPicks() {
  const all = picks();
  const num = all.filter((pick) => pick.checked).length;
  bulk.toggleAttribute("data-some", num > 0);
  document.getElementById("bulk-count").textContent = `${num} ${num === 1 ? "run" : "runs"} chosen`;
  document.getElementById("bulk-cancel-title").textContent = num === 1 ? "Cancel 1 run?" : `Cancel ${num} runs?`;
  const pickAll = document.getElementById("pick-all");
  if (!pickAll) return;
  pickAll.checked = num > 0 && num === all.length;
  pickAll.indeterminate = num > 0 && num < all.length;
}

if (bulk) {
  document.addEventListener("change", ({ target }) => {
    if (target.id === "pick-all") for (const pick of picks()) pick.checked = target.checked;
    countPicks();
  });
  document.addEventListener("htmx:after:swap", countPicks);
  // Whatever was asked for the chosen runs was asked once.
  bulk.addEventListener("submit", () => {
    document.getElementById("bulk-cancel").hidePopover();
    setTimeout(() => {
      for (const pick of picks()) pick.checked = false;
      countPicks();
    });
  });
  countPicks(); // a browser keeps what was checked before a reload
}
