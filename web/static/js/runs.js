// The list of runs: a run that changed refetches its own row, a new one refetches the list.
import { coalesce, connect } from "./live.js";

const refreshers = new Map();

function rowOf(id) {
  return document.getElementById(`run-${id}`);
}

function refresh(id) {
  if (!rowOf(id)) {
    document.body.dispatchEvent(new CustomEvent("sb-list"));
    return;
  }
  document.body.dispatchEvent(new CustomEvent(`sb-row-${id}`));
}

function onRun(event) {
  const id = event.detail.run_id ?? event.detail.id;
  if (!id) return;
  if (!refreshers.has(id)) refreshers.set(id, coalesce(() => refresh(id), 1000));
  refreshers.get(id)();
}

document.body.addEventListener("sb-run", onRun);
document.body.addEventListener("sb-metrics", onRun);
document.body.addEventListener("sb-resync", () => document.body.dispatchEvent(new CustomEvent("sb-list")));
connect("runs", "");
