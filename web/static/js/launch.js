// The launch form: fields that have no effect are hidden while they keep their default, and Enter does what its field is
// about.
//
// Without this module all fields are shown, and of Enter beside the name of a preset the server asks what was meant.

const form = document.getElementById("launch");

function valueOf(name) {
  const control = form.elements.namedItem(`config.${name}`);
  if (!control) return null;
  // A checkbox stands behind a hidden field of its name, which sends its `false`.
  const last = control instanceof RadioNodeList ? control[control.length - 1] : control;
  return last.type === "checkbox" ? String(last.checked) : last.value.trim();
}

/** `adam|muon`, `!0`, `*.bin`: see `option` in sparsify_core/config/base.py. */
function matches(value, pattern) {
  const isNegated = pattern.startsWith("!");
  const alternatives = pattern.slice(isNegated ? 1 : 0).split("|");
  return alternatives.some((a) => (a.startsWith("*") ? value.endsWith(a.slice(1)) : value === a)) !== isNegated;
}

function isVisible(field) {
  const name = field.dataset.field;
  if (field.querySelector("[aria-invalid]") || field.contains(document.activeElement) || valueOf(name) !== field.dataset.default) return true;
  return Object.entries(JSON.parse(field.dataset.visibleIf)).every(([other, pattern]) => {
    const value = valueOf(other);
    return value === null || matches(value, pattern);
  });
}

function showFields() {
  for (const field of form.querySelectorAll("[data-visible-if]")) field.hidden = !isVisible(field);
}

form.addEventListener("input", showFields);
showFields();

form.elements.namedItem("by").removeAttribute("name");
form.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.isComposing || !event.target.matches("#preset input")) return;
  event.preventDefault();
  form.querySelector("#preset button").click();
});
