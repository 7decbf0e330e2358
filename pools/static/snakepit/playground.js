// The playground: arguments from the form fields, one call as a stream of events, and its timing.
"use strict";
(() => {
  for (const choice of document.querySelectorAll("[data-reload]")) choice.addEventListener("change", () => {
    if (choice.name === "pool") choice.form.querySelector("[name=command]").disabled = true;  // the commands of another pool
    choice.form.submit();
  });
  const place = document.querySelector("[data-playground]");
  if (!place) return;
  const {pool, command, call, streams} = place.dataset;
  const form = place.querySelector("form"), one = name => place.querySelector("[data-" + name + "]");
  const MOST = 2000;             // lines of a stream on the page
  let running = null;

  class Wrong extends Error { constructor(name, message) { super(message); this.field = name; } }
  function value(field) {
    const text = field.value;
    if (field.dataset.kind === "text") return text;
    if (field.dataset.kind === "number") {
      if (!Number.isFinite(Number(text))) throw new Wrong(field.name, "is not a number");
      // JavaScript numbers are not exact above 2^53: larger integers are sent as they were typed.
      return /^-?\d+$/.test(text) && !Number.isSafeInteger(Number(text)) ? {exact: text} : Number(text);
    }
    try { JSON.parse(text); } catch (error) { throw new Wrong(field.name, "is not JSON: " + error.message); }
    return {exact: text};
  }
  const written = one => one !== null && typeof one === "object" && "exact" in one ? one.exact : JSON.stringify(one);
  function given(strict) {       // the arguments as the text of a JSON object; empty fields are left out
    const parts = [];
    for (const field of form.querySelectorAll("[data-kind]")) {
      const wrong = form.querySelector(`[data-wrong="${CSS.escape(field.name)}"]`);
      wrong.textContent = "";
      if (field.value === "" && !(field.required && field.dataset.kind === "text")) {
        if (field.required && strict) throw new Wrong(field.name, "is required");
        continue;
      }
      try { parts.push(JSON.stringify(field.name) + ": " + written(value(field))); }
      catch (error) { if (strict || field.dataset.kind !== "json") wrong.textContent = error.message; if (strict) throw error; }
    }
    return "{" + parts.join(", ") + "}";
  }
  function body(strict) {
    const timeout = form.querySelector("#timeout").value, tags = form.querySelector("#tags").value.trim();
    const more = (timeout ? `, "timeout": ${Number(timeout)}` : "") + (tags ? `, "tags": ${JSON.stringify(tags.split(/\s+/))}` : "");
    return `{"pool": ${JSON.stringify(pool)}, "command": ${JSON.stringify(command)}, "arguments": ${given(strict)}${more}}`;
  }
  const quoted = text => "'" + text.replaceAll("'", `'"'"'`) + "'";
  function showSnippets() {
    const text = given(false), stream = streams === "yes";
    const python = text.replace(/("(?:[^"\\]|\\.)*")|\b(true|false|null)\b/g, (all, string, word) => string ?? {true: "True", false: "False", null: "None"}[word]);
    const lines = {
      curl: `curl${stream ? " -N" : ""} -H "Authorization: Bearer $SNAKEPIT_KEY"${stream ? " -H 'Accept: text/event-stream'" : ""} -H 'Content-Type: application/json' ${call || "https://HOST/api/pools/" + pool + "/commands/" + command} -d ${quoted(text)}`,
      shell: `snakepit call ${pool} ${command} ${quoted(text)}${stream ? " --stream" : ""}`,
      python: stream ? `from snakepit import connect\n\nfor chunk in connect().stream("${pool}", "${command}", ${python}):\n    print(chunk)`
        : `from snakepit import connect\n\nprint(connect().call("${pool}", "${command}", ${python}))`,
    };
    for (const [name, line] of Object.entries(lines)) place.querySelector(`[data-as=${name}]`).textContent = line;
  }

  const time = ms => ms < 10 ? ms.toFixed(2) + " ms" : ms < 1000 ? ms.toFixed(0) + " ms" : (ms / 1000).toFixed(2) + " s";
  function addLine(kind, text) {
    const list = one("stream"), item = document.createElement("li"), name = document.createElement("span"), words = document.createElement("span");
    item.className = kind; name.className = "kind"; words.className = "text";
    name.textContent = kind; words.textContent = text;
    item.append(name, words);
    list.hidden = false;
    list.append(item);
    if (list.children.length > MOST) list.firstChild.remove();
    list.scrollTop = list.scrollHeight;
  }
  const plain = data => typeof data === "string" ? data : JSON.stringify(data);
  const OUTCOMES = {not_started: "The call did not start.", failed: "The call ran and failed.", unknown: "The outcome is unknown: the call may have run."};
  function fail(error) {
    one("failure").hidden = false;
    one("code").textContent = error.code;
    one("reason").textContent = error.message;
    one("outcome").textContent = OUTCOMES[error.outcome] || "";
    const trace = one("trace"), text = error.details?.traceback;
    trace.hidden = !text;
    trace.querySelector("pre").textContent = text || "";
    one("status").textContent = "failed";
    const fields = error.details?.fields;
    const named = error.details?.argument ? {[error.details.argument]: error.message} : fields && !Array.isArray(fields) ? fields : {};
    for (const [name, why] of Object.entries(named)) { const wrong = form.querySelector(`[data-wrong="${CSS.escape(name)}"]`); if (wrong) wrong.textContent = why; }
  }
  function showTiming(whole, data, first) {
    const queued = data.call.queued_ms, ran = data.call.run_ms, overhead = Math.max(0, whole - queued - ran);
    one("timing").hidden = false;
    let at = 0;
    for (const [name, part] of [["queued", queued], ["ran", ran], ["overhead", overhead]]) {
      const bar = place.querySelector(`svg.split rect.${name}`), width = 100 * part / Math.max(whole, queued + ran, 0.001);
      bar.setAttribute("x", at.toFixed(2)); bar.setAttribute("width", width.toFixed(2));
      at += width;
      one(name).textContent = time(part);
    }
    one("whole").textContent = time(whole);
    one("worker").textContent = data.call.worker;
    one("first-part").hidden = first === null;
    if (first !== null) one("first").textContent = time(first);
  }
  function reset() {
    for (const name of ["failure", "timing", "stream", "result", "progress"]) one(name).hidden = true;
    one("stream").replaceChildren();
  }
  function handle(kind, data, begun, seen) {
    if (kind === "chunk") { seen.first ??= performance.now() - begun; seen.chunks += 1; addLine("chunk", plain(data)); one("status").textContent = seen.chunks + (seen.chunks === 1 ? " chunk" : " chunks"); }
    else if (kind === "log") addLine("log", data.message);
    else if (kind === "progress") { one("progress").hidden = false; one("percent").textContent = Math.round(100 * data.fraction) + " %"; one("message").textContent = data.message; }
    else if (kind === "result") {
      showTiming(performance.now() - begun, data, seen.first);
      one("status").textContent = "completed" + (seen.chunks ? " · " + seen.chunks + (seen.chunks === 1 ? " chunk" : " chunks") : "");
      if (!(seen.chunks && data.result === null)) { one("result").hidden = false; one("result").textContent = JSON.stringify(data.result, null, 2); }
    } else if (kind === "error") fail(data.error);
  }
  async function readStream(answer, begun) {
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader(), seen = {first: null, chunks: 0};
    let text = "";
    for (;;) {
      const {value: part, done} = await reader.read();
      if (done) return;
      text += part;
      const frames = text.split("\n\n");
      text = frames.pop();
      for (const frame of frames) {
        const kind = /^event: (.*)$/m.exec(frame)?.[1], data = /^data: (.*)$/m.exec(frame)?.[1];
        if (kind && data) handle(kind, JSON.parse(data), begun, seen);
      }
    }
  }
  const post = (url, text, signal) => fetch(url, {method: "POST", body: text, signal,
    headers: {"Content-Type": "application/json", [form.dataset.csrfHeader]: form.querySelector("[name=csrfmiddlewaretoken]").value}});
  const refused = async answer => {
    try { return (await answer.json()).error; }
    catch { return {code: "http " + answer.status, message: "The server rejected the request.", outcome: "", details: {}}; }
  };
  function text() {
    try { return body(true); }
    catch (error) { if (!(error instanceof Wrong)) throw error; form.querySelector(`[data-wrong="${CSS.escape(error.field)}"]`).textContent = error.message; return null; }
  }
  async function go(event) {
    event.preventDefault();
    const asked = text();
    if (running || asked === null) return;
    reset();
    running = new AbortController();
    one("stop").hidden = false; one("go").disabled = true;
    one("status").textContent = "running";
    const begun = performance.now();
    try {
      const answer = await post(form.dataset.run, asked, running.signal);
      if (answer.ok) await readStream(answer, begun); else fail(await refused(answer));
    } catch (error) {
      if (error.name === "AbortError") { one("status").textContent = "cancelled after " + time(performance.now() - begun); }
      else fail({code: "connection", message: "The connection was lost: " + error.message, outcome: "unknown", details: {}});
    } finally {
      running = null;
      one("stop").hidden = true; one("go").disabled = false;
    }
  }
  form.addEventListener("submit", go);
  one("stop").addEventListener("click", () => running?.abort());
  one("job").addEventListener("click", async () => {
    const asked = text();
    if (asked === null) return;
    reset();
    const answer = await post(form.dataset.submit, asked);
    if (answer.ok) location.assign((await answer.json()).url); else fail(await refused(answer));
  });
  form.addEventListener("input", showSnippets);
  showSnippets();
})();
