"use strict";
(() => {
  const { byId, ask, complain, onKeys } = served;
  const FIELDS = ["instruction", "input", "output"];
  let task = null;

  function edit(open) {
    byId("editor").hidden = byId("editing").hidden = !open;
    byId("deciding").hidden = open;
    byId("task").hidden = open || !task;
    if (!open) {
      // Left to the browser, the hidden field would take the next key.
      if (document.activeElement) document.activeElement.blur();
      return;
    }
    for (const field of FIELDS) byId(`edit-${field}`).value = task[field];
    byId("edit-instruction").focus();
  }

  function show(state) {
    const decided = state.keep + state.drop + state.edit;
    task = state.task;
    byId("where").textContent = `${decided} of ${state.tasks} looked at: ${state.keep} kept, ${state.edit} edited, ${state.drop} dropped`;
    byId("share").value = decided / state.tasks;
    byId("done").hidden = Boolean(task);
    byId("done").textContent = task ? "" : `All ${state.tasks} tasks have a decision; you may close this page.`;
    for (const field of FIELDS) byId(field).textContent = task ? task[field] : "";
    byId("input-part").hidden = !(task && task.input);
    byId("nearest").textContent = task ? `${task.nearest_to} (ROUGE-L ${task.nearest.toFixed(2)})` : "";
    for (const name of ["keep", "drop", "edit"]) byId(name).disabled = !task;
    byId("undo").disabled = !decided;
    edit(false);
    window.scrollTo(0, 0);
  }

  const decide = (decision) => () => { if (task) ask("decide", { task: task.id, decision }, show); };
  const undo = () => ask("undo", {}, show);
  const begin = () => { if (task) edit(true); };
  const save = () => {
    const edited = Object.fromEntries(FIELDS.map((field) => [field, byId(`edit-${field}`).value.trim()]));
    if (edited.instruction && edited.output) ask("decide", { task: task.id, decision: "edit", edited }, show);
    else complain("An example has an instruction and an output.");
  };
  byId("keep").addEventListener("click", decide("keep"));
  byId("drop").addEventListener("click", decide("drop"));
  byId("edit").addEventListener("click", begin);
  byId("undo").addEventListener("click", undo);
  byId("save").addEventListener("click", save);
  byId("cancel").addEventListener("click", () => edit(false));
  byId("editor").addEventListener("submit", (event) => event.preventDefault());
  byId("editor").addEventListener("keydown", (event) => {
    if (event.key === "Escape") edit(false);
    else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) save();
    else return;
    event.preventDefault();
  });
  onKeys({ k: decide("keep"), d: decide("drop"), e: begin, u: undo, Backspace: undo });
  ask("state.json", undefined, show);
})();
