// Keeps a page live: the server renders fragments, this swaps them in by id. Pages work without it.
"use strict";
(() => {
  const root = document.querySelector("[data-live]");
  if (!root || !window.EventSource) return;
  const source = new EventSource(root.dataset.live);
  const atEnd = () => window.innerHeight + window.scrollY >= document.body.offsetHeight - 80;
  source.addEventListener("fragment", (message) => {
    const { id, parent, html } = JSON.parse(message.data);
    const follow = atEnd();
    const old = document.getElementById(id);
    const box = document.createElement("template");
    box.innerHTML = html;
    const fresh = box.content.firstElementChild;
    if (!fresh) return;
    if (old) old.replaceWith(fresh);
    else document.getElementById(parent)?.append(fresh);
    if (follow) window.scrollTo({ top: document.body.scrollHeight });
  });
  source.addEventListener("append", (message) => {
    const { parent, html } = JSON.parse(message.data);
    const place = document.getElementById(parent);
    const follow = place && place.scrollTop + place.clientHeight >= place.scrollHeight - 40;
    place?.insertAdjacentHTML("beforeend", html);
    if (follow) place.scrollTop = place.scrollHeight;
  });
  source.addEventListener("end", () => { source.close(); window.location.reload(); });
})();
