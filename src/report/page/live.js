// Keeps the page as it is now. When the daemon says that something happened, the parts marked data-live are taken from a
// fresh copy of this page; nothing else is touched, so a film goes on playing and a search goes on being typed.
"use strict";
const sign = document.getElementById("live");
const parts = (page) => [...page.querySelectorAll("[data-live]")].map((part) => part.id).join();
let wanted = false, busy = false;

async function refresh() {
  wanted = true;
  if (busy || document.hidden) return;
  busy = true;
  wanted = false;
  const begun = performance.now();
  try {
    const answer = await fetch(location.href);
    if (!answer.ok) throw answer.status;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    // Something came or went, such as the first asset of a task: then all of it is new.
    if (parts(fresh) !== parts(document)) document.querySelector("main").replaceWith(fresh.querySelector("main"));
    for (const old of document.querySelectorAll("[data-live]")) {
      const now = fresh.getElementById(old.id);
      if (!now || now.innerHTML === old.innerHTML) continue;
      // Whoever goes through the page by keyboard stays where they are.
      const held = old.contains(document.activeElement) && document.activeElement.getAttribute("href");
      old.replaceWith(now);
      if (held) now.querySelector(`[href="${CSS.escape(held)}"]`)?.focus({ preventScroll: true });
    }
  } catch { /* The stream tells when the daemon is back. */ }
  // A page that takes long to make is asked for less often.
  setTimeout(() => { busy = false; if (wanted) refresh(); }, Math.min(10000, Math.max(1000, 3 * (performance.now() - begun))));
}

const events = new EventSource("/api/v1/events");
events.onopen = () => { sign.textContent = "live"; sign.className = "on"; refresh(); };
events.onerror = () => { sign.textContent = "not connected"; sign.className = "off"; };
events.onmessage = refresh;
events.addEventListener("moved", refresh);
// Times pass by themselves.
setInterval(refresh, 30000);
document.addEventListener("visibilitychange", () => { if (wanted) refresh(); });
document.addEventListener("keydown", (event) => {
  const search = document.getElementById("search");
  if (event.key !== "/" || !search || event.target.matches("input, select, textarea")) return;
  event.preventDefault();
  search.focus();
});
