// Parts of a page that come from the database: fetched every few seconds while the page is visible.
// <div data-poll="URL" data-every="3">: the response replaces the element. Polling ends when it has no data-poll.
"use strict";
(() => {
  const quiet = () => document.hidden || document.querySelector("[data-action=pause]")?.getAttribute("aria-pressed") === "true";
  async function refresh(element) {
    try {
      const answer = await fetch(element.dataset.poll, {signal: AbortSignal.timeout(30000)});
      if (answer.redirected || answer.status === 403) { location.reload(); return; }
      if (!answer.ok) throw new Error("the server responded with " + answer.status);
      const open = new Set([...element.querySelectorAll("details[open][id]")].map(one => one.id));
      const [fresh] = Idiomorph.morph(element, await answer.text(), {morphStyle: "outerHTML", ignoreActiveValue: true});
      fresh?.querySelectorAll?.("details[id]").forEach(one => { if (open.has(one.id)) one.open = true; });
      if (fresh?.dataset) delete fresh.dataset.stale;
      document.dispatchEvent(new CustomEvent("snakepit:fresh", {detail: fresh}));
    } catch {
      element.dataset.stale = "";
    }
  }
  const due = new Map();
  setInterval(() => {
    if (quiet()) return;
    for (const element of document.querySelectorAll("[data-poll]")) {
      const every = 1000 * Number(element.dataset.every || 3), at = due.get(element.id) ?? (element.hasAttribute("data-now") ? 0 : performance.now() + every);
      if (performance.now() < at) { due.set(element.id, at); continue; }
      due.set(element.id, performance.now() + every);
      refresh(element);
    }
  }, 250);
  document.addEventListener("snakepit:refresh", () => document.querySelectorAll("[data-poll]").forEach(refresh));
})();
