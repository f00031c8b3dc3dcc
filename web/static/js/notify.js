// Tells of runs by the browser's own notifications, when that was switched on in this browser.
import { alsoFollow, isConnected, reconnect } from "./live.js";

const CHOSEN = "notices"; // kinds of events that this browser tells of
const TOLD = "notices-told"; // ids of the newest events that some tab has heard of
const KEPT = 100;

function stored(name) {
  try {
    return localStorage.getItem(name)?.split(",").filter(Boolean) ?? [];
  } catch {
    return []; // storage is switched off
  }
}

/** Kinds of events that this browser tells of: none where it was not asked to, or may not. */
export function chosen() {
  return "Notification" in window && Notification.permission === "granted" ? stored(CHOSEN) : [];
}

/** Tell of these kinds from now on; asks for permission where there is none. */
export async function choose(kinds) {
  if (kinds.length && Notification.permission !== "granted") await Notification.requestPermission();
  if (!chosen().length) localStorage.removeItem(TOLD);
  localStorage.setItem(CHOSEN, kinds.join());
  reconnect();
}

/** Goes on behind what any tab has heard of. */
function topic() {
  if (!chosen().length) return "";
  const told = stored(TOLD);
  return told.length ? `notices:${Math.max(...told)}` : "notices";
}

/** The first of a stream has an id alone: there it begins. */
function onNotice({ detail: { id, kind, run_id, title, text } }) {
  const told = stored(TOLD);
  if (told.includes(String(id))) return;
  localStorage.setItem(TOLD, [...told, id].slice(-KEPT).join());
  if (!chosen().includes(kind)) return;
  // The tag makes notices of several tabs one.
  const notice = new Notification(title, { body: text, tag: `notice-${id}`, icon: "/static/img/logo.svg" });
  notice.onclick = () => {
    focus();
    location.assign(`/runs/${run_id}`);
  };
}

alsoFollow(topic);
document.body.addEventListener("sb-notice", onNotice);
addEventListener("load", () => {
  if (document.body.dataset.new && !isConnected()) reconnect();
});
