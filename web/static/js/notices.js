// The switch for notifications of this browser.
import { isOn, turn } from "./notify.js";

const button = document.getElementById("notify-toggle");
const state = document.getElementById("notify-state");
const OFF = state.textContent;

function show() {
  const blocked = !("Notification" in window) || Notification.permission === "denied";
  button.disabled = blocked;
  button.setAttribute("aria-pressed", String(isOn()));
  button.textContent = isOn() ? "Stop notifying me" : "Notify me";
  if (blocked) state.textContent = "This browser does not let Sparseboard show notifications: allow them in its settings for this site.";
  else state.textContent = isOn() ? "This browser tells you when a run ends, as long as a page of Sparseboard is open in a tab. The page of a run tells of that run, all others of every run." : OFF;
}

button.addEventListener("click", async () => {
  await turn(!isOn());
  show();
});
show();
