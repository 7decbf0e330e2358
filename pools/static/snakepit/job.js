// A job's output from its first entry on, live. After a break the browser reconnects and sends the last id.
"use strict";
(() => {
  const list = document.querySelector("[data-events]");
  if (!list) return;
  const state = document.querySelector("[data-output-state]"), placeholder = document.querySelector("[data-no-output]");
  const MOST = 1000;             // lines on the page; older ones are removed
  const source = new EventSource(list.dataset.events);
  let lines = 0, bytes = 0;
  function add(kind, text, size) {
    const item = document.createElement("li"), name = document.createElement("span"), words = document.createElement("span");
    const follow = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
    item.className = name.textContent = kind;
    name.className = "kind"; words.className = "text";
    words.textContent = text;
    item.append(name, words);
    list.append(item);
    if (list.children.length > MOST) list.firstChild.remove();
    if (follow) list.scrollTop = list.scrollHeight;
    lines += 1; bytes += size;
    placeholder.hidden = true;
    state.textContent = lines + (lines === 1 ? " line, " : " lines, ") + (bytes < 10240 ? bytes + " bytes" : Math.round(bytes / 1024) + " KiB");
  }
  const on = (kind, text) => source.addEventListener(kind, event => { add(kind, text(JSON.parse(event.data)), event.data.length); });
  on("chunk", data => typeof data === "string" ? data : JSON.stringify(data));
  on("log", data => data.message);
  on("progress", data => Math.round(100 * data.fraction) + " % " + (data.message || ""));
  on("truncated", () => "later output was not stored");
  source.addEventListener("end", () => {
    source.close();
    state.textContent = (lines ? state.textContent + " · " : "") + "complete";
    document.dispatchEvent(new Event("snakepit:refresh"));
  });
  source.addEventListener("error", () => { if (source.readyState === EventSource.CONNECTING) state.textContent = "reconnecting"; });
})();
