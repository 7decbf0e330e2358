"use strict";
/* The dashboard's script: live regions, charts, ages, keys, copying. Without it pages work, but do not update. */
(() => {
  const body = document.body;
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const announce = text => { document.getElementById("announcement").textContent = text; };
  const setCookie = (name, value) => { document.cookie = `snakepit_${name}=${value}; path=/; max-age=31536000; samesite=lax`; };

  // Ages. The browser's clock may be wrong: ages are computed from the server's clock.
  let skew = 0, seenAt = 0, paused = false, trouble = "", silent = false;
  const now = () => Date.now() / 1000 + skew;
  function span(seconds) {
    if (seconds < 1.5) return "now";
    if (seconds < 60) return Math.round(seconds) + " s";
    if (seconds < 3600) return Math.round(seconds / 60) + " min";
    if (seconds < 172800) return Math.round(seconds / 3600) + " h";
    return Math.round(seconds / 86400) + " d";
  }
  function updateAges(root = document) {
    for (const time of all("[data-ago]", root)) {
      const age = span(Math.max(0, now() - time.dataset.ago));
      time.textContent = age === "now" ? "just now" : age + " ago";
    }
    for (const time of all("[data-until]", root)) {
      const left = span(Math.max(0, time.dataset.until - now()));
      time.textContent = left === "now" ? "now" : "in " + left;
    }
  }
  function updatePulse() {
    const pulse = document.getElementById("pulse"), age = seenAt ? now() - seenAt : 0;
    if (paused) { pulse.textContent = "paused" + (seenAt ? ", as of " + span(age) + " ago" : ""); return; }
    if (seenAt && age > 8 && body.dataset.state === "live") body.dataset.state = "lost";
    const state = body.dataset.state;
    if (state === "live") pulse.textContent = "live";
    else if (state === "stale") pulse.textContent = (silent ? "broker does not respond" : "broker unreachable") + (seenAt ? ", last seen " + span(age) + " ago" : "");
    else if (state === "lost") pulse.textContent = (trouble || "disconnected") + (seenAt ? ", last seen " + span(age) + " ago" : "");
    else pulse.textContent = "connecting";
  }
  setInterval(() => { updateAges(); updatePulse(); }, 1000);
  // In the same task as the new text, so that no time of day appears for a moment.
  document.addEventListener("snakepit:fresh", event => { if (event.detail instanceof Element) updateAges(event.detail); });

  // Live regions.
  const topics = [...new Set(all("[data-live]").map(element => element.dataset.live))];
  const pointsOf = ({dataset}) => (dataset.pool || "*") + (dataset.node ? "@" + dataset.node : "");
  const points = [...new Set(all("[data-chart]").map(pointsOf))];
  let source = null, since = "", poller = 0, failures = 0;

  function withTopics(url) {
    const query = new URLSearchParams();
    for (const topic of topics) query.append("topic", topic);
    for (const pool of points) query.append("points", pool);
    if (since) query.append("since", since);
    return url + "?" + query;
  }
  function fill(region) {
    for (const element of all("[data-live]")) {
      if (element.dataset.live !== region.topic) continue;
      const open = all("details[open][id]", element).map(one => one.id);
      Idiomorph.morph(element, region.html, {morphStyle: "innerHTML", ignoreActiveValue: true});
      for (const id of open) document.getElementById(id)?.setAttribute("open", "");
      updateAges(element);
      htmx.process(element);
    }
  }
  function beat(data) {
    skew = data.now - Date.now() / 1000;
    seenAt = data.at;
    silent = data.trouble === "silent";
    failures = 0;
    if (body.dataset.state !== data.state && body.dataset.state !== "loading")
      announce(data.state === "live" ? "Live updates resumed." : "The broker does not answer: the data is old.");
    body.dataset.state = data.state;
    updatePulse();
  }
  function lost(why) {
    trouble = why;
    failures += 1;
    if (failures > 1 || !seenAt) body.dataset.state = "lost";
    updatePulse();
  }
  function open() {
    if (source || poller || paused || document.hidden) return;
    source = new EventSource(withTopics(body.dataset.stream));
    source.addEventListener("region", event => fill(JSON.parse(event.data)));
    source.addEventListener("points", event => { since = event.lastEventId || since; addPoints(JSON.parse(event.data)); });
    source.addEventListener("beat", event => { since = event.lastEventId || since; beat(JSON.parse(event.data)); });
    source.addEventListener("error", () => {
      lost("disconnected");
      // CONNECTING: the browser retries by itself. CLOSED: the server does not stream, so poll instead.
      if (source && source.readyState === EventSource.CLOSED) { source = null; poll(); }
    });
  }
  async function poll() {
    poller = setTimeout(() => { poller = 0; source || poll(); }, 2000);
    if (paused || document.hidden) return;
    try {
      const answer = await fetch(withTopics(body.dataset.fragments), {signal: AbortSignal.timeout(8000)});
      if (!answer.ok) throw new Error(answer.status === 403 ? "signed out" : "the server responded with " + answer.status);
      const data = await answer.json();
      data.regions.forEach(fill);
      since = data.id;
      if (data.points) addPoints(data.points);
      beat(data.beat);
    } catch (error) {
      lost(error.name === "TypeError" ? "web server unreachable" : error.message);
    }
  }
  function shut() {
    if (source) source.close();
    source = null;
  }
  let hiding = 0;
  document.addEventListener("visibilitychange", () => {
    clearTimeout(hiding);
    if (document.hidden) hiding = setTimeout(shut, 20000); else open();
  });
  addEventListener("pagehide", shut);
  addEventListener("pageshow", event => { if (event.persisted) open(); });

  // Charts. Attributes of a figure: data-chart (kind), data-pool (none: all pools), data-node (none: all nodes), data-span (seconds).
  const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const digits = step => step ? Math.max(1, Math.ceil(-Math.log10(step))) : 1; // that tell two ticks of an axis apart
  const number = (value, step) => value == null ? "–" : value === 0 ? "0" : value >= 100 ? Math.round(value).toLocaleString("en") : value.toFixed(value < 10 ? digits(step) : 0);
  const seconds = value => value == null ? "–" : value === 0 ? "0" : value < .001 ? Math.round(value * 1e6) + " µs" : value < 1 ? (value * 1000).toFixed(value < .01 ? 1 : 0) + " ms" : value < 60 ? value.toFixed(1) + " s" : (value / 60).toFixed(1) + " min";
  // In UTC, as all other times of the pages.
  const clock = (at, length) => {
    const date = new Date(at * 1000), two = value => String(value).padStart(2, "0");
    const time = two(date.getUTCHours()) + ":" + two(date.getUTCMinutes());
    return length > 172800 ? two(date.getUTCDate()) + "." + two(date.getUTCMonth() + 1) + "." : time;
  };
  const KINDS = {
    throughput: {lines: [["ok_rate", "ok", 1], ["failed_rate", "failed", 2]], show: (value, step) => value ? number(value, step) + "/s" : value === 0 ? "0" : "–", fill: true},
    latency: {lines: [["p50", "p50", 3], ["p95", "p95", 4], ["p99", "p99", 2]], show: seconds},
    wait: {lines: [["oldest_wait", "oldest", 4], ["wait_p95", "p95", 3]], show: seconds, fill: true},
    workers: {lines: [["ready", "ready", 1], ["busy", "busy", 3], ["starting", "starting", 4], ["draining", "draining", 5]], show: value => value == null ? "–" : String(Math.round(value)), step: true, whole: true},
    memory: {lines: [["memory_mb", "memory", 5]], show: value => value == null ? "–" : value === 0 ? "0" : number(value) + " MiB", fill: true},
  };
  const charts = [], GAP = 8;    // seconds without a point after which a line breaks

  class Chart {
    constructor(figure) {
      this.figure = figure;
      this.kind = KINDS[figure.dataset.chart];
      this.pool = figure.dataset.pool || "";
      this.node = figure.dataset.node || "";
      this.span = Number(figure.dataset.span || 300);
      this.data = {};           // column name: values; "at" ascending
      this.marks = [];
      this.plot = figure.querySelector(".plot");
      this.legend = figure.querySelector(".legend");
      this.uplot = null;
    }
    put(series) {
      this.data = series.columns;
      this.marks = series.marks || [];
      this.draw();
    }
    add(rows) {                  // rows: {name: value}, newer than the present ones
      const columns = this.data;
      if (!columns.at) columns.at = [];
      for (const row of rows) {
        const before = columns.at.length ? columns.at[columns.at.length - 1] : null;
        if (before !== null && row.at <= before) continue;
        if (before !== null && row.at - before > GAP)   // a line across it would be invented
          for (const name of Object.keys(columns)) columns[name].push(name === "at" ? before + 1 : null);
        for (const name of new Set([...Object.keys(columns), ...Object.keys(row)])) {
          columns[name] = columns[name] || new Array(columns.at.length).fill(null);
          if (name !== "at") columns[name].push(row[name] ?? null);
        }
        columns.at.push(row.at);
      }
      const least = now() - this.span - 5;
      let cut = 0;
      while (cut < columns.at.length && columns.at[cut] < least) cut += 1;
      if (cut) for (const name of Object.keys(columns)) columns[name].splice(0, cut);
      this.draw();
    }
    table() {
      const at = this.data.at || [];
      return [at, ...this.kind.lines.map(([name]) => this.data[name] || new Array(at.length).fill(null))];
    }
    draw() {
      const data = this.table(), none = this.plot.querySelector(".none");
      if (none) none.hidden = data[0].length > 1;
      if (data[0].length < 2) { if (none) none.textContent = "No data in this time range."; return; }
      const end = Math.max(now(), data[0][data[0].length - 1]);
      const range = {min: end - this.span, max: end};
      if (!this.uplot) this.make(data); else this.uplot.setData(data, false);
      this.uplot.setScale("x", range);
      this.showLegend(null);
    }
    make(data) {
      const {kind} = this, line = css("--grid"), ink = css("--quiet"), font = "11px system-ui, sans-serif";
      const axis = {stroke: ink, font, grid: {stroke: line, width: 1}, ticks: {show: false}};
      this.uplot = new uPlot({
        width: this.plot.clientWidth, height: this.plot.clientHeight, legend: {show: false}, pxAlign: 1,
        tzDate: at => uPlot.tzDate(new Date(at * 1000), "UTC"),
        cursor: {y: false, points: {size: 6}, drag: {x: false, y: false}},
        scales: {x: {time: true}, y: {range: (_, low, high) => [0, high > 0 ? high * 1.12 : 1]}},
        axes: [{...axis, space: 52, size: 26, incrs: [1, 5, 10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800], values: (_, splits) => splits.map((at, index) => clock(at, this.span) + (index ? "" : " UTC"))}, {...axis, size: 54, space: 34, ...(kind.whole ? {incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]} : {}), values: (_, splits, _axis, _space, step) => splits.map(value => kind.show(value, step))}],
        series: [{}, ...kind.lines.map(([, label, colour]) => ({
          label, stroke: css("--chart-" + colour), width: 1.6, points: {show: false}, spanGaps: false,
          fill: kind.fill ? css("--chart-" + colour) + "1f" : undefined,
          paths: kind.step ? uPlot.paths.stepped({align: 1}) : undefined,
        }))],
        hooks: {setCursor: [plot => this.showLegend(plot.cursor.idx)], drawAxes: [plot => this.mark(plot)]},
      }, data, this.plot);
    }
    mark(plot) {                 // recycles, deaths and changed definitions as vertical lines
      const {ctx, bbox} = plot;
      ctx.save();
      ctx.lineWidth = 1;
      for (const mark of this.marks) {
        const x = Math.round(plot.valToPos(mark.at, "x", true)) + .5;
        if (x < bbox.left || x > bbox.left + bbox.width) continue;
        ctx.strokeStyle = css(mark.kind === "change" ? "--chart-3" : mark.kind === "death" ? "--chart-2" : "--chart-4");
        ctx.globalAlpha = .75;
        ctx.setLineDash([2, 3]);
        ctx.beginPath(); ctx.moveTo(x, bbox.top); ctx.lineTo(x, bbox.top + bbox.height); ctx.stroke();
      }
      ctx.restore();
    }
    showLegend(index) {          // the values under the cursor, otherwise the newest
      const data = this.table(), at = index ?? data[0].length - 1;
      const words = this.kind.lines.map(([, label, colour], line) => {
        const part = document.createElement("span"), dot = document.createElement("i"), value = document.createElement("b");
        dot.className = "c" + colour;
        value.textContent = this.kind.show(data[line + 1][at]);
        part.append(dot, label + " ", value);
        return part;
      });
      const mark = index == null ? null : this.marks.find(one => Math.abs(one.at - data[0][index]) < this.span / 120);
      if (mark) { const part = document.createElement("span"); part.textContent = mark.text; words.push(part); }
      this.legend.replaceChildren(...words);
    }
    resize() { if (this.uplot) this.uplot.setSize({width: this.plot.clientWidth, height: this.plot.clientHeight}); }
    restyle() { if (this.uplot) { this.uplot.destroy(); this.uplot = null; this.draw(); } }
  }

  const LIVE_SPAN = 300;         // charts of this span grow with the stream; longer ones are reloaded
  let columns = [];

  function addPoints(found) {
    for (const chart of charts) {
      if (chart.span !== LIVE_SPAN || !columns.length) continue;
      const rows = found[pointsOf(chart.figure)];
      if (rows) chart.add(rows.map(named));
    }
  }
  const named = row => Object.fromEntries(columns.map((name, index) => [name, row[index]]));
  async function load() {
    const groups = new Map();
    for (const chart of charts) {
      const key = chart.pool + " " + chart.span + " " + chart.node;
      groups.set(key, [...(groups.get(key) || []), chart]);
    }
    for (const group of groups.values()) {
      const {pool, node, span: length} = group[0];
      try {
        const answer = await fetch(body.dataset.series + "?" + new URLSearchParams({pool, node, span: length}), {signal: AbortSignal.timeout(8000)});
        if (!answer.ok) throw new Error("the server responded with " + answer.status);
        const data = await answer.json();
        columns = data.live;
        for (const chart of group) chart.put({columns: structuredClone(data.columns), marks: data.marks});
      } catch (error) {
        for (const chart of group) if (!chart.uplot) { const none = chart.plot.querySelector(".none"); if (none) none.textContent = "The data could not be loaded: " + error.message + "."; }
      }
    }
  }
  function startCharts() {
    for (const figure of all("[data-chart]")) charts.push(new Chart(figure));
    if (!charts.length) return;
    load();
    setInterval(() => { if (!document.hidden && !paused) load(); }, 30000);
    new ResizeObserver(() => charts.forEach(chart => chart.resize())).observe(document.getElementById("main"));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach(chart => chart.restyle()));
  }

  // Buttons.
  const actions = {
    theme() {
      const names = ["auto", "light", "dark"], root = document.documentElement;
      const next = names[(names.indexOf(root.dataset.theme) + 1) % 3];
      root.dataset.theme = next;
      setCookie("theme", next);
      all("[data-theme-name]").forEach(element => { element.textContent = next; });
      charts.forEach(chart => chart.restyle());
    },
    pause() {
      paused = !paused;
      const button = document.querySelector("[data-action=pause]");
      button.setAttribute("aria-pressed", String(paused));
      button.textContent = paused ? "Resume updates" : "Pause updates";
      if (paused) shut(); else { open(); if (charts.length) load(); }
      updatePulse();
    },
    help() { document.getElementById("help").showModal(); },
  };
  async function copy(button) {
    const line = button.closest(".line, .card")?.querySelector("pre, code");
    if (!line) return;
    try {
      // The clipboard API exists only on https and localhost; elsewhere the text is selected for Ctrl-C.
      await navigator.clipboard.writeText(line.textContent);
      button.textContent = "Copied";
      announce("Copied.");
    } catch { getSelection().selectAllChildren(line); button.textContent = "Selected"; }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  }
  document.addEventListener("click", event => {
    const button = event.target.closest("[data-action], [data-copy]");
    if (!button) return;
    if (button.dataset.action) actions[button.dataset.action]?.(); else copy(button);
  });

  // Keys.
  let before = "", chosen = "";  // the URL of the chosen row: its place changes with updates
  function choose(focus) {
    const rows = all("main tbody tr").filter(row => row.querySelector("a"));
    for (const row of rows) row.toggleAttribute("data-chosen", row.querySelector("a").href === chosen);
    const row = rows.find(one => one.hasAttribute("data-chosen"));
    if (row && focus) row.querySelector("a").focus({preventScroll: true});
    return row;
  }
  // An update may move the row, or replace it: the same row stays chosen, and keeps the focus.
  new MutationObserver(() => {
    if (chosen) choose(document.activeElement === document.body);
  }).observe(document.getElementById("main"), {childList: true, subtree: true});
  addEventListener("pointerdown", () => { chosen = ""; choose(false); });
  function move(step) {
    const rows = all("main tbody tr").filter(row => row.querySelector("a"));
    if (!rows.length) return;
    const at = rows.findIndex(row => row.querySelector("a").href === chosen);
    const next = rows[Math.min(rows.length - 1, Math.max(0, at + step))];
    chosen = next.querySelector("a").href;
    choose(true);
    next.scrollIntoView({block: "nearest"});
  }
  document.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select, [contenteditable], dialog")) return;
    const key = event.key, first = before;
    before = "";
    if (first === "g") {
      const link = document.querySelector(`.side [data-key="${CSS.escape(key)}"]`);
      if (link) { event.preventDefault(); location.assign(link.href); }
      return;
    }
    if (key === "g") { before = "g"; setTimeout(() => { before = ""; }, 1500); return; }
    const does = {"?": actions.help, t: actions.theme, r: actions.pause, j: () => move(1), k: () => move(-1),
      "/": () => document.querySelector("main input[type=search], main input[type=text]")?.focus()}[key];
    if (does) { event.preventDefault(); does(); }
  });

  // On a phone the navigation is a strip: scroll the open page into view. scrollIntoView would scroll the page too.
  const strip = document.querySelector(".side"), here = strip.querySelector("[aria-current]");
  if (here && strip.scrollWidth > strip.clientWidth) strip.scrollLeft = here.offsetLeft - (strip.clientWidth - here.offsetWidth) / 2;

  // On a phone the long tables begin closed; each opens with one tap.
  if (matchMedia("(max-width: 40rem)").matches) for (const table of all("details[data-fold]")) table.open = false;

  updateAges();
  startCharts();
  open();
  updatePulse();
})();
