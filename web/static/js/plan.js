// A fix of the plan sets its fields in the form, where somebody sees them, instead of sending it. In the other tabs the
// text is what counts: there it is sent, and the server writes the text anew.

const form = document.getElementById("launch");

function set(name, value) {
  const found = form.elements.namedItem(name);
  // A checkbox stands behind a hidden field of its name.
  const control = found instanceof RadioNodeList ? found[found.length - 1] : found;
  if (!control) return null;
  if (control.type === "checkbox") control.checked = value === true || value === "true";
  else control.value = value;
  control.closest("details")?.setAttribute("open", "");
  control.dispatchEvent(new Event("input", { bubbles: true }));
  return control;
}

form.addEventListener("click", (event) => {
  const button = event.target.closest("button[name=fix]");
  if (!button || form.elements.namedItem("tab").value !== "form") return;
  event.preventDefault();
  const changed = Object.entries(JSON.parse(button.value)).map(([name, value]) => set(name, value));
  changed.find(Boolean)?.focus();
});
