"use strict";
/* Ctrl-K: searches all pages, pools, workers, jobs and actions as you type. */
(() => {
  const dialog = document.getElementById("palette"), input = dialog.querySelector("input");
  const list = dialog.querySelector("[role=listbox]"), status = dialog.querySelector("[role=status]");
  const MOST = 12, JOB = /^[0-9a-f-]{4,36}$/i;
  let entries = [], jobs = [], shown = [], chosen = 0, asked = 0, loading = 0;

  // The page's own actions come first. The buttons of the top bar come last, so that Enter alone changes nothing.
  function pageActions() {
    return [...document.querySelectorAll("main .actions a.button, main [data-order]")].map(link => ({
      title: link.textContent.trim(), kind: "this page", url: link.href,
    }));
  }
  function barActions() {
    return [...document.querySelectorAll(".top [data-action]:not([data-action=palette])")].map(button => ({
      title: button.title.replace(/ \(.\)$/, ""), kind: "this page", press: button,
    }));
  }
  // All words must match. Order: title starts with the query, a word of the title starts with it, any other match.
  function rank(entry, words) {
    const title = entry.title.toLowerCase(), all = title + " " + entry.kind;
    if (!words.every(word => all.includes(word))) return -1;
    const [first] = words;
    if (!first || title.startsWith(words.join(" "))) return 0;
    return title.startsWith(first) ? 1 : title.split(/[\s_-]+/).some(part => part.startsWith(first)) ? 2 : 3;
  }
  // An entry that the keys chose stays chosen when more entries arrive; typing chooses the first one again.
  const same = entry => one => one.title === entry.title && one.url === entry.url && one.kind === entry.kind;
  function find(keep = false) {
    const kept = keep && chosen ? shown[chosen] : null;
    const words = input.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const ranked = [...pageActions(), ...entries, ...barActions()].map((entry, at) => ({entry, at, rank: rank(entry, words)})).filter(one => one.rank >= 0);
    ranked.sort((one, other) => one.rank - other.rank || one.at - other.at);
    const all = [...jobs, ...ranked.map(one => one.entry)];
    shown = all.slice(0, MOST);
    draw(all.length, kept ? shown.findIndex(same(kept)) : 0);
  }
  function draw(count, at) {
    list.replaceChildren(...shown.map((entry, at) => {
      const item = document.createElement("li"), title = document.createElement("span"), kind = document.createElement("span");
      item.id = "palette-" + at;
      item.setAttribute("role", "option");
      item.dataset.kind = entry.kind;
      title.textContent = entry.title;
      kind.textContent = entry.note || entry.kind;
      title.className = "wrap";
      kind.className = "quiet small";
      item.append(title, kind);
      return item;
    }));
    const none = loading ? "Searching" : "No results";
    status.textContent = !count ? none : count > shown.length ? `${shown.length} of ${count}, type more to narrow` : `${count} found`;
    choose(at);
  }
  function choose(at) {
    chosen = Math.max(0, Math.min(shown.length - 1, at));
    [...list.children].forEach((item, index) => item.setAttribute("aria-selected", String(index === chosen)));
    const item = list.children[chosen];
    if (item) { input.setAttribute("aria-activedescendant", item.id); item.scrollIntoView({block: "nearest"}); }
    else input.removeAttribute("aria-activedescendant");
  }
  function go(entry) {
    if (!entry) return;
    dialog.close();
    if (entry.press) entry.press.click(); else location.assign(entry.url);
  }
  async function fetched(query) {
    loading += 1;
    try {
      const answer = await fetch(dialog.dataset.url + query, {signal: AbortSignal.timeout(8000)});
      if (!answer.ok || answer.redirected) throw new Error("the server responded with " + answer.status);
      return (await answer.json()).entries;
    } finally { loading -= 1; }
  }
  async function load() {
    try { entries = await fetched(""); find(true); }
    catch (error) { status.textContent = "The list could not be loaded: " + error.message + "."; }
  }
  async function typed() {
    const text = input.value.trim(), turn = ++asked;
    jobs = [];
    find();
    if (!JOB.test(text)) return;
    try {
      const found = await fetched("?job=" + encodeURIComponent(text));
      if (turn === asked) { jobs = found; find(true); }
    } catch { /* the rest of the list still works */ }
  }
  function toggle() {
    if (dialog.open) { dialog.close(); return; }
    document.querySelector("dialog[open]")?.close();
    input.value = "";
    jobs = [];
    dialog.showModal();
    find();
    load();
  }

  input.addEventListener("input", typed);
  input.addEventListener("keydown", event => {
    const does = {ArrowDown: () => choose(chosen + 1), ArrowUp: () => choose(chosen - 1), Enter: () => go(shown[chosen])}[event.key];
    if (does) { event.preventDefault(); does(); }
  });
  list.addEventListener("click", event => {
    const item = event.target.closest("[role=option]");
    if (item) go(shown[[...list.children].indexOf(item)]);
  });
  dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close(); });
  document.addEventListener("keydown", event => {
    if ((event.ctrlKey || event.metaKey) && !event.shiftKey && !event.altKey && event.key.toLowerCase() === "k") { event.preventDefault(); toggle(); }
  });
  document.addEventListener("click", event => { if (event.target.closest("[data-action=palette]")) toggle(); });
})();
