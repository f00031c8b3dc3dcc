// The tab's one event stream. Named events of the server become DOM events on <body>: `metrics` -> `sb-metrics`.
//
// Ids are cursors of the database: after any break the stream goes on behind the last one seen, so nothing is lost and
// nothing comes twice. A hidden tab gives its connection back (browsers allow six per server) and resumes when shown; one
// hidden tab at most stays awake for notices.

const NAMES = ["run", "runs", "metrics", "log", "sample", "notice", "resync"];
const HIDDEN_GRACE_MS = 10_000;
const AWAKE_LOCK = "notices";
const FASTEST_RETRY_MS = 500;
const SLOWEST_RETRY_MS = 15_000;
const LOST_AFTER_MS = 4_000;

let source = null;
let topics = "";
let cursor = "";
let retryMs = FASTEST_RETRY_MS;
let retryTimer = 0;
let lostTimer = 0;
let hideTimer = 0;
let besides = () => "";
let letGo = () => {};

/** Open the stream behind `after`; calling it again moves the cursor. */
export function connect(wanted, after) {
  topics = wanted;
  cursor = after;
  open();
}

/**
 * Let every stream follow `topic()` too, whatever its page follows; empty for nothing. While there is something, one hidden
 * tab keeps its stream.
 */
export function alsoFollow(topic) {
  besides = topic;
}

/** Whether there is a stream. */
export function isConnected() {
  return source !== null;
}

/** Open the stream anew, or close it: what is to be followed besides has changed. */
export function reconnect() {
  if (!topics) cursor = ""; // it was that of what is followed besides, which says itself where it goes on
  open();
}

/** Break the connection as a bad network would; it comes back by itself. For tests. */
export function drop() {
  close();
  scheduleRetry();
}

function close() {
  clearTimeout(retryTimer);
  source?.close();
  source = null;
}

function wanted() {
  return [topics, besides()].filter(Boolean).join();
}

function open() {
  close();
  if (!wanted()) return;
  const query = new URLSearchParams({ topics: wanted() });
  if (cursor) query.set("after", cursor);
  source = new EventSource(`/events?${query}`);
  source.onopen = onOpen;
  source.onerror = onError;
  for (const name of NAMES) source.addEventListener(name, onEvent);
}

function onOpen() {
  retryMs = FASTEST_RETRY_MS;
  clearTimeout(lostTimer);
  lostTimer = 0;
  showState("open");
}

function onError() {
  if (!lostTimer) lostTimer = setTimeout(() => showState("lost"), LOST_AFTER_MS);
  // While CONNECTING the browser retries by itself, with Last-Event-ID; CLOSED (an error status) it has given up.
  if (source?.readyState === EventSource.CLOSED) scheduleRetry();
}

function scheduleRetry() {
  clearTimeout(retryTimer);
  retryTimer = setTimeout(open, retryMs * (0.7 + 0.6 * Math.random()));
  retryMs = Math.min(retryMs * 2, SLOWEST_RETRY_MS);
}

function onEvent(event) {
  if (event.lastEventId) cursor = event.lastEventId;
  const detail = event.data ? JSON.parse(event.data) : {};
  document.body.dispatchEvent(new CustomEvent(`sb-${event.type}`, { detail }));
}

function showState(state) {
  for (const element of document.querySelectorAll(".conn")) element.dataset.state = state;
}

/** Give the connection back, unless notices are wanted and no other hidden tab stays awake for them. */
function rest() {
  if (!besides()) return close();
  return navigator.locks.request(AWAKE_LOCK, { ifAvailable: true }, (lock) => {
    if (!document.hidden) return undefined;
    return lock ? new Promise((resolve) => (letGo = resolve)) : close();
  });
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(hideTimer);
  letGo();
  if (!wanted()) return;
  if (document.hidden) hideTimer = setTimeout(rest, HIDDEN_GRACE_MS);
  else if (!source) open();
});

/** Call `action` at once, then at most every `ms`, with a last call after the last request. */
export function coalesce(action, ms) {
  let timer = 0;
  let wanted = false;
  const tick = () => {
    timer = 0;
    if (!wanted) return;
    wanted = false;
    timer = setTimeout(tick, ms);
    action();
  };
  return () => {
    wanted = true;
    if (!timer) tick();
  };
}
