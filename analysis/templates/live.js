"use strict";
// Asks how the study stands every two seconds and shows it; figures are fetched only when they have changed.
(() => {
  const EVERY = 2000, WHEN_ENDED = 10000;
  const byId = (id) => document.getElementById(id);
  let drawn = "", looked = null;

  const element = (name, text, kind) => {
    const made = document.createElement(name);
    made.textContent = text;
    if (kind) made.className = kind;
    return made;
  };

  function tiles(list, facts) {
    list.replaceChildren(...facts.map((fact) => {
      const item = document.createElement("li");
      item.append(element("span", fact.label, "label"), element("span", fact.value, "value"));
      item.append(element("span", fact.note ?? "", "range"));
      return item;
    }));
    list.hidden = !facts.length;
  }

  function table(id, rows, columns) {
    byId(id).tBodies[0].replaceChildren(...(rows.length ? rows : [{ label: "none" }]).map((row) => {
      const line = document.createElement("tr");
      line.append(...columns.map(([name, kind]) => element("td", row[name] ?? "", kind)));
      return line;
    }));
  }

  function troubles(found) {
    byId("troubles-section").hidden = !found.length;
    byId("troubles").replaceChildren(...found.map((one) => {
      const item = document.createElement("li");
      item.append(element("span", one.state, "severity refusal"), `${one.run}: ${one.reason}`);
      if (one.log) item.append(document.createElement("br"), element("code", one.log));
      return item;
    }));
  }

  function fitWords(fit) {
    if (!fit) return "Nothing has been trained yet.";
    const again = fit.working ? " It is being fitted again." : "";
    if (fit.refusal) return `No fit of ${fit.runs} finished runs yet: ${fit.refusal}.${again}`;
    if (!fit.runs) return "The first fit is being made.";
    return fit.own ? `The study's own fit of ${fit.runs} runs.` : `Interim fit of ${fit.runs} finished runs; it will move.${again}`;
  }

  function links(pages) {
    const place = byId("pages");
    place.hidden = !pages.length;
    place.replaceChildren("Read ");
    pages.forEach((page, at) => {
      const link = element("a", page.title);
      link.href = page.href;
      place.append(...(at ? [", ", link] : [link]));
    });
    place.append(".");
  }

  function show(state) {
    byId("words").textContent = state.words;
    document.documentElement.dataset.phase = state.phase;
    const share = byId("share");
    share.hidden = state.share === null;
    share.value = state.share ?? 0;
    document.title = (state.share === null ? "" : `${Math.round(100 * state.share)}% `) + `${state.study}: live`;
    tiles(byId("facts"), state.facts);
    tiles(byId("fit"), state.fit ? state.fit.lines : []);
    byId("fit-words").textContent = fitWords(state.fit);
    table("running", state.running, [["label"], ["share", "number"], ["loss", "number"], ["speed", "number"], ["stage"], ["key"]]);
    table("lately", state.lately, [["label"], ["loss", "number"], ["state"], ["stage"], ["key"]]);
    troubles(state.troubles);
    links(state.pages);
  }

  async function get(path) {
    const answer = await fetch(path, { cache: "no-store" });
    if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
    return answer.json();
  }

  async function look() {
    let wait = EVERY;
    try {
      const state = await get("state.json");
      show(state);
      if (state.phase === "ended") wait = WHEN_ENDED;
      if (state.figures !== drawn) {
        document.dispatchEvent(new CustomEvent("plots", { detail: await get("figures.json") }));
        drawn = state.figures;
      }
      looked = new Date().toLocaleTimeString();
      byId("looked").textContent = looked;
      byId("away").hidden = true;
    } catch {
      byId("away").textContent = `scaling watch does not answer: it has ended, or is busy. What stands here is of ${looked ?? "no look yet"}.`;
      byId("away").hidden = false;
    }
    setTimeout(look, wait);
  }

  look();
})();
