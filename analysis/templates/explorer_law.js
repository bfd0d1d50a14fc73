"use strict";
// scaling/allocation in the browser: the same questions of the same draws, under the names they have there. Rows are the
// estimate first, then the draws; C = 6 N D. tests/analysis/test_explorer.py holds both to the same numbers.
const allocation = (data) => {
  const SIZES = 2001, HALVINGS = 60;
  const rows = data.theta;

  // Intervals

  const sorted = (draws) => Float64Array.from(draws).sort();
  const tails = [(1 - data.level) / 2, (1 + data.level) / 2];

  function intervalOf(estimate, draws) {  // scaling.fits.bootstrap.interval_of
    if (!draws.length) return { estimate, low: null, high: null };
    const ordered = sorted(draws);
    const [low, high] = tails.map((tail) => {
      const at = tail * (ordered.length - 1), below = Math.floor(at);
      return ordered[below] + (at - below) * (ordered[Math.min(below + 1, ordered.length - 1)] - ordered[below]);
    });
    return { estimate, low: Math.min(low, estimate), high: Math.max(high, estimate) };
  }

  function intervalOfRows(values) {  // scaling.allocation.surface.interval_of_rows
    const estimate = values[0];
    if (values.length < 2) return { estimate, low: null, high: null };
    const ordered = sorted(values.slice(1));
    const [low, high] = tails.map((tail) => {
      const at = tail * (ordered.length - 1), below = Math.floor(at), past = at - below;
      return ordered[past < 0.5 || (past === 0.5 && below % 2 === 0) ? below : below + 1];
    });
    const bound = (value) => (Number.isFinite(value) ? value : null);
    return { estimate, low: bound(Math.min(low, estimate)), high: bound(Math.max(high, estimate)) };
  }

  // The law

  const sizeTerm = ([A, , , alpha], N) => A * N ** -alpha;
  const dataTerm = ([, B, , , beta], D) => B * D ** -beta;
  const loss = (row, N, D) => row[2] + sizeTerm(row, N) + dataTerm(row, D);

  function lnOptimum([A, B, , alpha, beta], lnProduct) {
    return (Math.log(alpha * A) - Math.log(beta * B) + beta * lnProduct) / (alpha + beta);
  }

  function optimum(row, flops) {
    const lnProduct = Math.log(flops / 6), lnN = lnOptimum(row, lnProduct);
    return [Math.exp(lnN), Math.exp(lnProduct - lnN)];
  }

  // allocate: sizes are searched on a grid there, and the best of it is one of the two beside the law's own optimum.
  function searched(these, flops) {
    const around = these.map((row) => lnOptimum(row, Math.log(flops / data.flops_per_param_token)));
    const low = Math.max(Math.min(...around) - Math.log(1e3), 0), high = Math.max(Math.max(...around) + Math.log(1e3), 1);
    const step = (high - low) / (SIZES - 1);
    const size = (index) => Math.exp(low + index * step);
    return these.map((row) => {
      const at = Math.floor((lnOptimum(row, Math.log(flops / 6)) - low) / step);
      const [one, two] = [at, at + 1].map((index) => Math.min(Math.max(index, 0), SIZES - 1)).map(size);
      return loss(row, one, flops / 6 / one) <= loss(row, two, flops / 6 / two) ? one : two;
    });
  }

  function params(flops) {
    if (data.estimator === "parametric") return intervalOf(searched(rows.slice(0, 1), flops)[0], searched(rows.slice(1), flops));
    const sizes = data.isoflop.map(([lnK, a]) => Math.exp(lnK + a * Math.log(flops)));
    return intervalOf(sizes[0], sizes.slice(1));
  }

  function between(values, at, share) {
    return Math.exp(values[at] + share * (values[at + 1] - values[at]));
  }

  function expectedLoss(flops) {
    const table = data.loss;
    if (!table) return null;
    const x = Math.log(flops), last = table.ln_flops.length - 2;
    const step = (table.ln_flops[last + 1] - table.ln_flops[0]) / (last + 1);
    const at = Math.min(Math.max(Math.floor((x - table.ln_flops[0]) / step), 0), last);
    const share = (x - table.ln_flops[at]) / step;
    const [estimate, low, high] = ["estimate", "low", "high"].map((name) => between(table[name], at, share));
    return { estimate, low, high };
  }

  function allocate(flops) {
    const N = params(flops);
    const tokens = (size) => (size === null ? null : flops / 6 / size);
    const ratio = (size) => (size === null ? null : flops / 6 / size / size);
    return {
      params: N,
      tokens: { estimate: tokens(N.estimate), low: tokens(N.high), high: tokens(N.low) },
      tokens_per_param: { estimate: ratio(N.estimate), low: ratio(N.high), high: ratio(N.low) },
      loss: expectedLoss(flops),
    };
  }

  function flatRegion(flops, share = 0.003) {
    if (!rows || data.levels_off) return null;
    const best = optimum(rows[0], flops)[0];
    const sizes = Array.from({ length: 4001 }, (_, index) => best * 10 ** (-4 + (8 * index) / 4000));
    const losses = sizes.map((size) => loss(rows[0], size, flops / 6 / size));
    const most = (1 + share) * losses.reduce((least, one) => Math.min(least, one));
    const inside = sizes.filter((_, index) => losses[index] <= most);
    return [inside[0], inside[inside.length - 1]];
  }

  function bisect(increasing, low, high) {
    for (let halving = 0; halving < HALVINGS; halving += 1) {
      const middle = 0.5 * (low + high);
      if (increasing(middle) < 0) low = middle; else high = middle;
    }
    return 0.5 * (low + high);
  }

  // inference_optimum: the cheapest life at the loss of the compute-optimal run of so many FLOPs, for each row its own.
  function inferenceOptimum(flops, served) {
    const each = rows.map((row) => {
      const [A, B, E, alpha, beta] = row;
      const [plainN, plainD] = optimum(row, flops);
      const aim = loss(row, plainN, plainD), lnReducible = Math.log(aim - E);
      const split = (u) => {  // N and D where ln(size term / data term) = u
        const lnSize = lnReducible - Math.log1p(Math.exp(-u)), lnData = lnReducible - Math.log1p(Math.exp(u));
        return [Math.exp((Math.log(A) - lnSize) / alpha), Math.exp((Math.log(B) - lnData) / beta)];
      };
      const imbalance = (u) => Math.log(alpha / beta) + u - Math.log1p(served / (3 * split(u)[1]));
      const low = Math.log(beta / alpha), high = low + Math.log1p(served / (3 * split(low)[1]));
      const [N, D] = split(bisect(imbalance, low, high));
      const training = 6 * N * D, serving = 2 * served * N;
      const plain = 6 * plainN * plainD + 2 * served * plainN, saved = plain - training - serving;
      return { loss: aim, params: N, tokens: D, training_flops: training, serving_flops: serving,
               compute_optimal_params: plainN, compute_optimal_tokens: plainD, saved_flops: saved, saved_share: saved / plain };
    });
    return Object.fromEntries(Object.keys(each[0]).map((name) => [name, intervalOfRows(each.map((row) => row[name]))]));
  }

  // limited_data_optimum under one pair of repetition constants.
  function saturating(amount, threshold, decay) {
    if (amount <= threshold) return amount;
    const excess = amount / threshold - 1;
    return threshold * (1 - decay * Math.expm1(-excess / decay));
  }

  function limitedDataOptimum(flops, unique, { r_d: rD, r_n: rN }) {
    const product = flops / 6;
    const each = rows.map((row) => {
      const [A, B, , alpha, beta] = row;
      const [freeN, freeD] = optimum(row, flops);
      const calledFor = Math.exp((Math.log(alpha * A) - Math.log(beta * B) + beta * Math.log(unique)) / alpha);
      const imbalance = (lnN) => {
        const N = Math.exp(lnN), D = product * Math.exp(-lnN);
        const seen = saturating(D, unique, rD), size = saturating(N, calledFor, rN);
        const ofData = Math.log(beta * dataTerm(row, seen)) - Math.max(D / unique - 1, 0) / rD + Math.log(D / seen);
        return ofData - (Math.log(alpha * sizeTerm(row, size)) - Math.max(N / calledFor - 1, 0) / rN + Math.log(N / size));
      };
      const repeats = freeD > unique, low = Math.log(calledFor);
      const lnN = repeats ? bisect(imbalance, low, Math.max(low, Math.log(product / unique))) : Math.log(freeN);
      const N = Math.exp(lnN), D = product * Math.exp(-lnN), seen = saturating(D, unique, rD);
      const reached = loss(row, saturating(N, calledFor, rN), seen);
      return { params: N, tokens: D, epochs: D / unique, loss: reached, loss_excess: reached - loss(row, freeN, freeD),
               repeated_worth: repeats ? (seen - unique) / Math.max(D - unique, 0) : 1, repeats: repeats ? 1 : 0 };
    });
    const told = Object.fromEntries(Object.keys(each[0]).map((name) => [name, intervalOfRows(each.map((row) => row[name]))]));
    return { ...told, repeats: each[0].repeats === 1 };
  }

  // cluster_estimate with a given price: the range is that of the utilisation.
  function cost(flops, price) {
    const { peak, mfu } = data.hardware;
    const hours = (reached) => flops / (peak * (reached || mfu.estimate)) / 3600;
    const [estimate, low, high] = [hours(mfu.estimate), hours(mfu.high), hours(mfu.low)];
    return { gpu_hours: { estimate, low, high }, usd: { estimate: estimate * price, low: low * price, high: high * price } };
  }

  const flopsFor = (usd, price) => (usd / price) * 3600 * data.hardware.peak * data.hardware.mfu.estimate;

  return { allocate, flatRegion, inferenceOptimum, limitedDataOptimum, cost, flopsFor, optimum };
};
