"use strict";
// The explorer's controls: what is given becomes the answers of allocation(), as words, a table and marks.
(async () => {
  const byId = (id) => document.getElementById(id);
  const bytes = Uint8Array.from(atob(byId("data").textContent), (letter) => letter.charCodeAt(0));
  const data = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
  const law = allocation(data);
  const STEPS = 1200;
  const lastly = data.recommended;

  // Numbers as scaling.quantity writes them

  function general(value, digits) {  // Python's %g
    const [, exponent] = value.toExponential(digits - 1).split("e").map(Number);
    if (exponent < -4 || exponent >= digits) {
      const mantissa = String(Number(value.toExponential(digits - 1).split("e")[0]));
      return `${mantissa}e${exponent < 0 ? "-" : "+"}${String(Math.abs(exponent)).padStart(2, "0")}`;
    }
    return String(Number(value.toPrecision(digits)));
  }

  function count(value, digits = 3) {
    const rounded = Number(value.toPrecision(digits));
    for (const [size, suffix] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]]) {
      if (Math.abs(rounded) < size) continue;
      return Math.abs(rounded) < 1e15 ? general(rounded / size, digits) + suffix : value.toExponential(digits - 1);
    }
    return general(rounded, digits);
  }

  const bound = (value, digits) => (value === null ? "?" : count(value, digits));
  const interval = (i, digits = 3) => `${count(i.estimate, digits)} [${bound(i.low, digits)}, ${bound(i.high, digits)}]`;
  const flopsText = (value) => `${value.toExponential(1).replace("e+", "e")} FLOPs`;
  const usd = (value) => `$${count(value)}`;
  const usdInterval = (i) => `${usd(i.estimate)} [${usd(i.low)}, ${usd(i.high)}]`;
  const percent = (value) => `${(100 * value).toFixed(1)}%`;

  function number(text) {  // 2.3e22, 5T, 300k; NaN where it is none
    const found = /^\s*\$?\s*(\d+(?:\.\d*)?(?:e[+-]?\d+)?|\.\d+)\s*([kMBT]?)\s*$/.exec(text);
    return found ? Number(found[1]) * { "": 1, k: 1e3, M: 1e6, B: 1e9, T: 1e12 }[found[2]] : NaN;
  }

  // What is given. The sliders are logarithmic; null is nothing to serve, or as much text as wanted.

  const given = { unit: "flops", flops: lastly.flops, price: data.hardware.price.estimate, serve: null, unique: null };
  given.usd = law.cost(given.flops, given.price).usd.estimate;
  const [lowest, highest] = data.flops;
  const ranges = {
    budget: () => (given.unit === "flops" ? [lowest, highest] : [lowest, highest].map((flops) => law.cost(flops, data.hardware.price.estimate).usd.estimate)),
    price: () => [data.hardware.price.estimate / 20, data.hardware.price.estimate * 20],
    // Around the tokens that the budget would train on, whatever it is.
    serve: () => [tokens() / 1e3, tokens() * 1e4],
    unique: () => [tokens() / 1e4, tokens() * 10],
  };
  const open = { serve: 0, unique: STEPS };  // the position of a slider that gives nothing
  const words = { serve: "nothing", unique: "unlimited" };
  const field = { budget: () => given.unit, price: () => "price", serve: () => "serve", unique: () => "unique" };

  const tokens = () => law.allocate(flops()).tokens.estimate;
  const flops = () => (given.unit === "flops" ? given.flops : law.flopsFor(given.usd, given.price));

  function place(name) {
    const value = given[field[name]()], [low, high] = ranges[name]();
    const slider = byId(name), box = byId(`${name}-value`);
    const at = value === null ? open[name] : Math.round((STEPS * Math.log(value / low)) / Math.log(high / low));
    slider.value = Math.min(Math.max(at, 0), STEPS);
    const text = value === null ? words[name] : name === "budget" && given.unit === "flops" ? value.toExponential(2).replace("e+", "e") : count(value, 4);
    slider.setAttribute("aria-valuetext", text);
    if (document.activeElement !== box) box.value = text;
    box.removeAttribute("aria-invalid");
  }

  function slid(name) {
    const at = Number(byId(name).value), [low, high] = ranges[name]();
    // Three digits: what stands beside the slider is what is reckoned with.
    given[field[name]()] = at === open[name] ? null : Number((low * (high / low) ** (at / STEPS)).toPrecision(3));
    show();
  }

  function typed(name) {
    const box = byId(`${name}-value`), none = name in open && ["", words[name]].includes(box.value.trim());
    const value = none ? null : number(box.value);
    if (value !== null && !(Number.isFinite(value) && value > 0)) return box.setAttribute("aria-invalid", "true");
    given[field[name]()] = value;
    show();
  }

  // What is answered

  function answers() {
    const compute = flops(), best = law.allocate(compute), cost = law.cost(compute, given.price);
    const found = { flops: compute, price: given.price, best, cost, flat: law.flatRegion(compute), served: null, limited: [] };
    if (data.refusal) return found;
    if (given.serve !== null) found.served = law.inferenceOptimum(compute, given.serve);
    if (given.unique !== null) {
      const both = data.repetition.map((worth) => ({ worth, ...law.limitedDataOptimum(compute, given.unique, worth) }));
      found.limited = both[0].repeats ? both : both.slice(0, 1);
    }
    return found;
  }

  function sentences({ flops: compute, best, cost, served, limited }) {
    const said = [`With ${flopsText(compute)} (${usd(cost.usd.estimate)}), train ${interval(best.params)} parameters on ${interval(best.tokens)} tokens.`];
    if (served) said.push(`To serve ${count(given.serve)} tokens: ${interval(served.params)} on ${interval(served.tokens)}.`);
    if (limited.length && limited[0].repeats) said.push(`With ${count(given.unique)} unique tokens: ${interval(limited[0].params)} for ${interval(limited[0].epochs)} epochs.`);
    return said.join(" ");
  }

  function remarks({ best, cost, flat, served, limited, flops: compute }) {
    const said = [`${interval(best.tokens_per_param)} tokens a parameter.`];
    if (flat) said.push(`Any size from ${count(flat[0])} to ${count(flat[1])} costs less than 0.3% of loss.`);
    if (served) {
      const life = law.cost(served.training_flops.estimate + served.serving_flops.estimate, given.price).usd.estimate;
      const share = served.saved_share, bounds = share.low === null || share.high === null ? "" : ` [${percent(share.low)}, ${percent(share.high)}]`;
      said.push(`Served: as good as the compute-optimal ${count(served.compute_optimal_params.estimate)}. Serving takes ${flopsText(served.serving_flops.estimate)}, the whole life ${usd(life)} at this price; it saves ${flopsText(served.saved_flops.estimate)}, ${percent(share.estimate)}${bounds}.`);
    }
    for (const one of limited) {
      said.push(one.repeats
        ? `${count(given.unique)} unique tokens, repeats worth as ${one.worth.name} (R_D* ${general(one.worth.r_d, 3)}): ${interval(one.params)} parameters for ${interval(one.epochs)} epochs; repeats are worth ${one.repeated_worth.estimate.toFixed(2)} fresh tokens on average, and the loss is ${one.loss_excess.estimate.toFixed(3)} nats above unlimited text.`
        : `With ${count(given.unique)} unique tokens nothing need be repeated.`);
    }
    if (served && limited.length) said.push("Serving and scarce text are each answered by themselves.");
    return said;
  }

  function lines({ flops: compute, best, cost, served, limited }) {
    const price = (c) => law.cost(c, given.price).usd;
    const found = [["compute-optimal", interval(best.params), interval(best.tokens), best.loss ? interval(best.loss, 4) : "", flopsText(compute), usdInterval(cost.usd)]];
    if (served) found.push([`serving ${count(given.serve)} tokens`, interval(served.params), interval(served.tokens), interval(served.loss, 4), flopsText(served.training_flops.estimate), usdInterval(price(served.training_flops.estimate))]);
    limited.filter((one) => one.repeats).forEach((one, at) => found.push([`${count(given.unique)} unique tokens${at ? ", other repeats" : ""}`, interval(one.params), interval(one.tokens), interval(one.loss, 4), flopsText(compute), usdInterval(cost.usd)]));
    return found;
  }

  const arms = (i) => ({ array: [(i.high ?? i.estimate) - i.estimate], arrayminus: [i.estimate - (i.low ?? i.estimate)] });

  function marked(trace, point) {
    if (!point) return { ...trace, x: [], y: [], showlegend: false };
    return { ...trace, x: [point.params.estimate], y: [point.tokens.estimate], showlegend: true,
             error_x: { ...trace.error_x, ...arms(point.params) }, error_y: { ...trace.error_y, ...arms(point.tokens) } };
  }

  function draw({ flops: compute, best, flat, served, limited }) {
    const [path, budget, region, ...marks] = data.plot.data;
    const points = [best, served, limited.find((one) => one.repeats), lastly];
    const spread = Math.log(highest / lowest);
    const along = Array.from({ length: 60 }, (_, at) => lowest * Math.exp((spread * at) / 59)).map((c) => {
      const estimate = law.allocate(c).params.estimate;
      return [estimate, c / 6 / estimate];
    });
    const known = points.filter(Boolean).flatMap((point) => ["params", "tokens"].map((name) => [name, point[name]]));
    const limits = (name) => {
      const values = known.filter(([which]) => which === name).flatMap(([, i]) => [i.estimate, i.low ?? i.estimate, i.high ?? i.estimate]);
      const middle = Math.log10(best[name].estimate), most = Math.max(1, ...values.map((value) => Math.abs(Math.log10(value) - middle)));
      return [middle - 1.15 * most, middle + 1.15 * most];
    };
    const x = limits("params"), sizes = [10 ** (x[0] - 1), 10 ** (x[1] + 1)];
    const onLine = (N) => compute / 6 / N;
    const traces = [
      { ...path, x: along.map(([N]) => N), y: along.map(([, D]) => D) },
      { ...budget, x: sizes, y: sizes.map(onLine) },
      { ...region, x: flat ?? [], y: (flat ?? []).map(onLine), showlegend: Boolean(flat) },
      ...marks.map((trace, at) => marked(trace, points[at])),
    ];
    const layout = { ...data.plot.layout, xaxis: { ...data.plot.layout.xaxis, range: x }, yaxis: { ...data.plot.layout.yaxis, range: limits("tokens") } };
    document.dispatchEvent(new CustomEvent("plots", { detail: { explorer: { data: traces, layout } } }));
  }

  function command({ flops: compute }) {
    const parts = ["scaling allocate fit.json", `--flops ${compute}`];
    if (!data.refusal && given.serve !== null) parts.push(`--serve-tokens ${given.serve}`);
    if (!data.refusal && given.unique !== null) parts.push(`--unique-tokens ${given.unique}`);
    return parts.join(" ");
  }

  function show() {
    const found = answers();
    byId("said").textContent = sentences(found);
    byId("answers").tBodies[0].replaceChildren(...lines(found).map((cells) => {
      const row = document.createElement("tr");
      row.append(...cells.map((text, at) => Object.assign(document.createElement("td"), { textContent: text, className: at ? "number" : "" })));
      return row;
    }));
    byId("remarks").replaceChildren(...remarks(found).map((text) => Object.assign(document.createElement("li"), { textContent: text })));
    byId("command").textContent = command(found);
    const orders = Math.log10(found.flops / data.fitted.flops[1]);
    byId("beyond").hidden = orders <= 3;
    byId("beyond").textContent = `Illustration, not advice: ${orders.toFixed(1)} orders of magnitude beyond the largest fitted run.`;
    byId("budget-unit").textContent = given.unit === "flops" ? "FLOPs" : "dollars";
    Object.keys(field).forEach(place);
    draw(found);
  }

  for (const name of Object.keys(field)) {
    byId(name).addEventListener("input", () => slid(name));
    byId(`${name}-value`).addEventListener("change", () => typed(name));
    byId(`${name}-value`).addEventListener("blur", () => place(name));
    if (data.refusal && name in open) byId(name).disabled = byId(`${name}-value`).disabled = true;
  }
  document.querySelectorAll("input[name=unit]").forEach((radio) => radio.addEventListener("change", () => {
    const compute = flops();
    given.unit = radio.value;
    given.flops = compute;
    given.usd = law.cost(compute, given.price).usd.estimate;
    show();
  }));
  window.explorer = law;  // for whoever wants to ask from the console
  show();
})();
