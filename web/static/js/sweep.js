// The page of a sweep: refetched when one of its runs has changed.
import { coalesce, connect } from "./live.js";

const sweep = () => document.getElementById("sweep");
const refresh = coalesce(() => document.body.dispatchEvent(new CustomEvent("sb-sweep")), 2000);

document.body.addEventListener("sb-run", ({ detail }) => {
  if (sweep().querySelector(`a[href="/runs/${detail.run_id}"]`)) refresh();
});
document.body.addEventListener("sb-resync", refresh);
connect("runs", sweep().dataset.after);
