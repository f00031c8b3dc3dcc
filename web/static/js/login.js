// Takes the one-time code out of the address (`/login#code=...`; the fragment never reaches a server) and submits it.

const match = /^#code=([A-Za-z0-9_-]+)$/.exec(location.hash);
if (match) {
  history.replaceState(null, "", location.pathname + location.search);
  document.getElementById("code").value = match[1];
  document.getElementById("login").requestSubmit();
}
