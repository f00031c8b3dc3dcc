// Dialogs open and close by attributes: data-dialog="id" opens, data-close closes the one around it.

export function openDialog(id) {
  const dialog = document.getElementById(id);
  if (dialog && !dialog.open) dialog.showModal();
}

document.addEventListener("click", ({ target }) => {
  const opener = target.closest("[data-dialog]");
  if (opener) openDialog(opener.dataset.dialog);
  else if (target.closest("[data-close]")) target.closest("dialog")?.close();
});
