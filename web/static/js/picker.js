// The launch form's tabs and hookpoint picker: add patterns by a click, open all options, read a file into a text.

const form = document.getElementById("launch");

function add(patterns) {
  const box = form.elements.namedItem("config.hookpoints");
  const lines = box.value.split(/[\s,]+/).filter(Boolean);
  box.value = [...new Set([...lines, ...patterns.split(" ")])].join("\n");
  box.rows = Math.min(8, Math.max(2, box.value.split("\n").length));
  box.dispatchEvent(new Event("input", { bubbles: true }));
}

/** Without a round trip, and remembered in the address. */
function toggleView(button) {
  const isFull = button.value === "full";
  for (const group of form.querySelectorAll("details.more:not(.picker)")) group.open = isFull;
  form.elements.namedItem("view")[0].value = button.value;
  button.value = isFull ? "basic" : "full";
  button.textContent = isFull ? "Basic options" : "All options";
  const address = new URL(location.href);
  if (isFull) address.searchParams.set("view", "full");
  else address.searchParams.delete("view");
  if (address.pathname === "/runs/new") history.replaceState(history.state, "", address);
}

form.addEventListener("click", (event) => {
  const button = event.target.closest("[data-patterns], #view");
  if (!button) return;
  if (button.dataset.patterns) add(button.dataset.patterns);
  else {
    event.preventDefault();
    toggleView(button);
  }
});

document.getElementById("text-file")?.addEventListener("change", async (event) => {
  const [file] = event.target.files;
  if (file) document.getElementById("text").value = await file.text();
});
