// The series of one run, by key.
import { Source, fetchSeries, inParts } from "./source.js";

const KEYS_A_REQUEST = 100;

export class RunSource extends Source {
  constructor(runId, onData, onLoaded) {
    super(onData, onLoaded);
    this.path = `/api/v1/runs/${runId}/metrics`;
  }

  batches(keys) {
    return inParts(keys, KEYS_A_REQUEST);
  }

  async fetch(keys, range, signal) {
    return new Map(Object.entries(await fetchSeries(this.path, keys.map((key) => ["key", key]), range, signal)));
  }
}
