// The tab's one event stream. Named events of the server become DOM events on <body>: `metrics` -> `sb-metrics`.
//
// Ids are cursors of the database: after any break the stream goes on behind the last one seen, so nothing is lost and
// nothing comes twice. A hidden tab gives its connection back (browsers allow six per server) and resumes when shown.

const NAMES = ["run", "runs", "metrics", "log", "sample", "resync"];
const HIDDEN_GRACE_MS = 10_000;
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
let staysAwake = () => false;

/** Open the stream behind `after`; calling it again moves the cursor. */
export function connect(wanted, after) {
  topics = wanted;
  cursor = after;
  open();
}

/** Whether this page follows anything. */
export function isConnected() {
  return topics !== "";
}

/** Keep the stream of a hidden tab: its notices are wanted then. */
export function stayAwake(wanted) {
  staysAwake = wanted;
}

/** Break the connection as a bad network would; it comes back by itself. For tests. */
export function drop() {
  source?.close();
  source = null;
  scheduleRetry();
}

function open() {
  clearTimeout(retryTimer);
  source?.close();
  const query = new URLSearchParams({ topics });
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

document.addEventListener("visibilitychange", () => {
  clearTimeout(hideTimer);
  if (!topics) return;
  if (document.hidden && !staysAwake()) {
    hideTimer = setTimeout(() => {
      source?.close();
      source = null;
      clearTimeout(retryTimer);
    }, HIDDEN_GRACE_MS);
  } else if (!document.hidden && !source) open();
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
