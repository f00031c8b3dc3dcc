// The series of several runs, all in buckets of one width when they come; their ids are `idOf(run, key)`.
import { Source, fetchSeries, inParts } from "./source.js";

const KEYS_A_REQUEST = 20; // of 50 runs at most: one answer holds 1,333 series of 1,500 points

export function idOf(run, key) {
  return `${run} ${key}`;
}

export function runOf(id) {
  return id.slice(0, id.indexOf(" "));
}

function keyOf(id) {
  return id.slice(id.indexOf(" ") + 1);
}

export class OverlaySource extends Source {
  batches(ids) {
    return inParts(unique(ids.map(keyOf)), KEYS_A_REQUEST).map((keys) => ids.filter((id) => keys.includes(keyOf(id))));
  }

  async fetch(ids, range, signal) {
    const parameters = [...unique(ids.map(runOf)).map((run) => ["run", run]), ...unique(ids.map(keyOf)).map((key) => ["key", key])];
    const found = await fetchSeries("/api/v1/metrics", parameters, range, signal);
    return new Map(ids.map((id) => [id, found[runOf(id)]?.[keyOf(id)]]).filter(([, series]) => series));
  }
}

function unique(texts) {
  return [...new Set(texts)];
}
