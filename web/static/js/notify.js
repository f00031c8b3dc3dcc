// Tells of runs that end, by the browser's own notifications, when that was switched on in this browser.
import { connect, isConnected, stayAwake } from "./live.js";

const OVER = { completed: "is complete", failed: "has failed", cancelled: "was cancelled" };
const KEY = "notify";
const seen = new Set(); // runs that were not over when this page last heard of them

/** Whether this browser shall tell: it was asked to, and may. */
export function isOn() {
  try {
    return "Notification" in window && Notification.permission === "granted" && localStorage.getItem(KEY) === "on";
  } catch {
    return false; // storage is switched off
  }
}

/** Ask for permission and remember the choice. Resolves to whether notices are on now. */
export async function turn(on) {
  if (on && Notification.permission !== "granted") await Notification.requestPermission();
  localStorage.setItem(KEY, on ? "on" : "off");
  listen();
  return isOn();
}

function onRun({ detail }) {
  if (!(detail.state in OVER)) {
    seen.add(detail.run_id);
    return;
  }
  if (!seen.delete(detail.run_id) || !isOn()) return;
  // The tag makes notices of several tabs one.
  const notice = new Notification(`${detail.name || "A run"} ${OVER[detail.state]}`, { tag: `${detail.run_id}-${detail.state}`, icon: "/static/img/logo.svg" });
  notice.onclick = () => {
    focus();
    location.assign(`/runs/${detail.run_id}`);
  };
}

/** Pages that follow nothing themselves follow the list of runs. */
function listen() {
  if (isOn() && document.body.dataset.new && !isConnected()) connect("runs", "");
}

document.body.addEventListener("sb-run", onRun);
stayAwake(isOn);
addEventListener("load", listen);
