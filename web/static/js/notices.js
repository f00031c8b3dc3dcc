// The switch for notifications of this browser, and of what they tell.
import { choose, chosen } from "./notify.js";

const form = document.getElementById("notify");
const button = document.getElementById("notify-toggle");
const state = document.getElementById("notify-state");
const boxes = [...form.querySelectorAll("[name=kinds]")];
const OFF = state.textContent;

const checked = () => boxes.filter((box) => box.checked).map((box) => box.value);

function show() {
  const isBlocked = !("Notification" in window) || Notification.permission === "denied";
  const isOn = chosen().length > 0;
  button.disabled = isBlocked || (!isOn && !checked().length);
  button.setAttribute("aria-pressed", String(isOn));
  button.textContent = isOn ? "Stop notifying me" : "Notify me";
  if (isBlocked) state.textContent = "This browser does not let Sparseboard show notifications: allow them in its settings for this site.";
  else state.textContent = isOn ? "This browser tells you, as long as a page of Sparseboard is open in a tab." : OFF;
}

button.addEventListener("click", async () => {
  await choose(chosen().length ? [] : checked());
  show();
});
form.addEventListener("change", async () => {
  if (chosen().length) await choose(checked());
  show();
});

if (chosen().length) for (const box of boxes) box.checked = chosen().includes(box.value);
show();
