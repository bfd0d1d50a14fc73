"use strict";
(() => {
  const { byId, ask, onKeys } = served;
  const SIDES = ["left", "right", "tie", "skip"];
  let pair = null;

  function show(state) {
    const shown = state.shown;
    pair = shown ? shown.pair : null;
    byId("where").textContent = `${state.voted} of ${state.pairs} done`;
    byId("share").value = state.pairs ? state.voted / state.pairs : 0;
    byId("pair").hidden = !shown;
    byId("done").hidden = Boolean(shown);
    byId("done").textContent = shown ? "" : `All ${state.pairs} pairs have your choice. They are in ${state.out}; you may close this page.`;
    for (const name of ["prompt", "left", "right"]) {
      byId(name).textContent = shown ? shown[name] || "(empty)" : "";
      byId(name).scrollTop = 0;
    }
    for (const side of SIDES) byId(`choose-${side}`).disabled = !shown;
    byId("undo").disabled = !state.voted;
    window.scrollTo(0, 0);
  }

  const choose = (side) => () => { if (pair !== null) ask("choose", { pair, side }, show); };
  const undo = () => ask("undo", {}, show);
  for (const side of SIDES) byId(`choose-${side}`).addEventListener("click", choose(side));
  byId("undo").addEventListener("click", undo);
  onKeys({
    ArrowLeft: choose("left"), a: choose("left"), 1: choose("left"),
    ArrowRight: choose("right"), b: choose("right"), 2: choose("right"),
    t: choose("tie"), s: choose("skip"), u: undo, Backspace: undo,
  });
  ask("state.json", undefined, show);
})();
