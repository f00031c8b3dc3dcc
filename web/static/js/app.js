// What every page has: theme switch, relative times, copy buttons, focus on errors.

import "./dialogs.js";
import "./keyboard.js";
import "./notify.js";

const THEMES = ["auto", "light", "dark"];
const THEME_KEPT_S = 365 * 86_400;

function currentTheme() {
  return document.documentElement.dataset.theme ?? "auto";
}

function showTheme() {
  const button = document.getElementById("theme");
  if (!button) return;
  const theme = currentTheme();
  button.setAttribute("aria-label", `Theme: ${theme}. Switch`);
  button.title = `Theme: ${theme}`;
  for (const icon of button.querySelectorAll("[data-icon]")) icon.toggleAttribute("hidden", icon.dataset.icon !== theme);
}

function nextTheme() {
  const theme = THEMES[(THEMES.indexOf(currentTheme()) + 1) % THEMES.length];
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  // The server writes it into its pages: a script would have to come before the first paint.
  document.cookie = `theme=${theme}; path=/; samesite=lax; max-age=${theme === "auto" ? 0 : THEME_KEPT_S}`;
  showTheme();
}

async function copy(button) {
  const source = document.getElementById(button.dataset.copy);
  try {
    await navigator.clipboard.writeText((source.value ?? source.textContent).trim());
  } catch {
    getSelection().selectAllChildren(source);
    return;
  }
  const label = button.textContent;
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = label), 1500);
}

document.addEventListener("click", (event) => {
  const target = event.target.closest("[data-copy], #theme");
  if (!target) return;
  if (target.id === "theme") nextTheme();
  else copy(target);
});

document.addEventListener("change", (event) => {
  if (event.target.matches("[data-submit]")) event.target.form.requestSubmit();
});

const UNITS = [[86_400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

/** `just now`, `3 min ago`: in the units of `duration`. */
function ago(seconds) {
  if (seconds < 5) return "just now";
  const [size, unit] = UNITS.find(([size]) => seconds >= size);
  return `${Math.round(seconds / size)} ${unit} ago`;
}

function showTimes() {
  const now = Date.now() / 1000;
  for (const element of document.querySelectorAll("time[data-ago]")) {
    const text = ago(now - Number(element.dataset.ago));
    if (element.textContent !== text) element.textContent = text;
    if (!element.title) element.title = new Date(Number(element.dataset.ago) * 1000).toLocaleString();
  }
}

/** `24 s`, `3 min 5 s`: as the server writes it. */
function duration(seconds) {
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor((seconds % 3600) / 60)];
  const parts = hours ? [[hours, "h"], [minutes, "min"]] : [[minutes, "min"], [seconds % 60, "s"]];
  return parts.filter(([count]) => count).map(([count, unit]) => `${count} ${unit}`).join(" ");
}

function countDown() {
  for (const element of document.querySelectorAll("time[data-until]")) {
    const left = Math.ceil(Number(element.dataset.until) - Date.now() / 1000);
    const text = left > 0 ? `in ${duration(left)}` : "now";
    if (element.textContent !== text) element.textContent = text;
  }
}

const TOAST_MS = 8000;
let toastTimer = 0;

/** Answers that belong to no region (errors) are shown for a while. */
function endToasts() {
  const toasts = document.getElementById("toasts");
  if (!toasts.childElementCount || toastTimer) return;
  toastTimer = setTimeout(() => {
    toasts.replaceChildren();
    toastTimer = 0;
  }, TOAST_MS);
}

showTheme();
showTimes();
setInterval(showTimes, 5000);
setInterval(countDown, 1000);
document.addEventListener("htmx:after:swap", endToasts);
document.addEventListener("htmx:after:swap", showTimes);
document.getElementById("errors")?.focus();
