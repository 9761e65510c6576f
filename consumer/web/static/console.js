// Keeps the parts of a page up to date.  Without it the page reloads itself now and then.
"use strict";
(() => {
  const main = document.querySelector("main[data-live]");
  if (!main || !window.EventSource) return;
  const sign = document.getElementById("live");
  const say = (name) => {
    if (!sign) return;
    sign.hidden = false;
    sign.dataset.state = name;
    if (sign.textContent !== sign.dataset[name]) sign.textContent = sign.dataset[name];
  };
  const source = new EventSource(main.dataset.live);
  source.addEventListener("open", () => say("on"));
  source.addEventListener("error", () => say("off"));
  source.addEventListener("part", (event) => {
    const part = JSON.parse(event.data);
    const place = document.getElementById(part.id);
    if (!place) return;
    const focused = place.contains(document.activeElement);
    const fresh = new DOMParser().parseFromString(part.html, "text/html").body;
    place.replaceChildren(...fresh.childNodes);
    if (focused) (place.querySelector("button, a, input") || main).focus();
  });
})();
