// Three steps for those who come to the list of runs for the first time, above it; again when they are asked for.
const KEY = "tour";
const tour = document.getElementById("tour");
const steps = [...tour.querySelectorAll("section")];
let at = 0;

function remembered() {
  try {
    return localStorage.getItem(KEY) !== null;
  } catch {
    return true; // storage is switched off: it would come back on every page
  }
}

function show(step) {
  at = step;
  for (const [i, section] of steps.entries()) section.hidden = i !== at;
  tour.querySelector("[data-next]").textContent = at === steps.length - 1 ? "Done" : "Next";
  tour.querySelector("[data-place]").textContent = `${at + 1} of ${steps.length}`;
  tour.hidden = false;
}

function end() {
  tour.hidden = true;
  localStorage.setItem(KEY, "seen");
}

tour.addEventListener("click", ({ target }) => {
  if (target.closest("[data-skip]")) end();
  else if (target.closest("[data-next]")) at === steps.length - 1 ? end() : show(at + 1);
});
document.querySelector("[data-tour]").addEventListener("click", () => show(0));
if (!remembered() && location.pathname === "/runs") show(0);
