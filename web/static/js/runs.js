// The list of runs: a run that changed refetches its own row, a new one refetches the list.
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
