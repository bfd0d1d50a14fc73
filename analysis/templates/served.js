"use strict";
// What pages have in common that send a decision to whoever serves them: one at a time, and what to say if nobody answers.
const served = (() => {
  const byId = (id) => document.getElementById(id);
  let busy = false;

  function complain(text) {
    byId("away").textContent = text;
    byId("away").hidden = !text;
  }

  // path: where to. sent: what; without it something is asked for. show: is called with the answer.
  async function ask(path, sent, show) {
    if (busy) return;
    busy = true;
    document.body.setAttribute("aria-busy", "true");
    try {
      const how = sent === undefined ? { cache: "no-store" }
        : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(sent) };
      const answer = await fetch(path, how);
      if (answer.ok) {
        const state = await answer.json();
        complain("");
        show(state);
      } else complain((await answer.text()).trim());
    } catch {
      complain("Nobody answers: the command that serves this page has ended. Every earlier decision is saved; start it again to go on.");
    } finally {
      busy = false;
      document.body.removeAttribute("aria-busy");
    }
  }

  // keys: from a key's name to what it does. Not while something is typed, with a modifier, or when a key is held down.
  function onKeys(keys) {
    document.addEventListener("keydown", (event) => {
      const typing = event.target.matches("textarea, input");
      const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
      if (!act || typing || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      act();
    });
  }

  return { byId, ask, complain, onKeys };
})();
