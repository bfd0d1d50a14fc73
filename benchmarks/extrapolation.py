"""How well do forecasts hold on sweeps that nobody here made? The largest budgets left out and predicted.

    python benchmarks/extrapolation.py [--search] [--fresh] [--out benchmarks/results/extrapolation.json]

Reference: the plain law of approach 3 (least Huber sum, E free), refitted below the same cut. ``--search`` learns the
forecast's prior leaving one table out: each table is judged under the prior that does best on all tables but it, which
is, of those that hold 90% of the runs, pooled and averaged over tables, the one with the lowest mean log interval
score.
``--fresh`` judges the frozen default on tables that were not looked at before.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from published_tables import Table, fresh_tables, splits, tuning_tables

from scaling.fits.drift import DriftPrior, fit_drift
from scaling.laws.chinchilla import CHINCHILLA

LEVEL = 0.9


def candidates() -> list[DriftPrior]:
    grid = itertools.product((0.15, 0.25, 0.4), (0.02, 0.04), (0.03, 0.06))
    return [
        DriftPrior(excess_share=share, ln_tau_c=(math.log(c), 1.0), ln_tau_r=(math.log(r), 0.8)) for share, c, r in grid
    ]


def judge(table: Table, prior: DriftPrior) -> list[dict[str, float]]:
    """One row a cut: errors of log loss of the plain law and of the forecast, what lay inside, and how wide it was."""
    rows = []
    params, tokens, loss = table
    for share, below in splits(table):
        model = fit_drift(CHINCHILLA, params[below], tokens[below], loss[below], prior=prior)
        above = ~below
        actual = np.log(loss[above])
        plain = np.log(CHINCHILLA.predict(model.plain.theta, params[above], tokens[above])) - actual
        forecasts = [model.predictive(n, d) for n, d in zip(params[above], tokens[above], strict=True)]
        low, high = (np.array([one.quantile(p) for one in forecasts]) for p in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
        error = np.array([one.mean for one in forecasts]) - actual
        missed = np.maximum(low - actual, 0) + np.maximum(actual - high, 0)
        flops = params * tokens
        rows.append(
            {
                "share": share,
                "fitted": int(below.sum()),
                "predicted": int(above.sum()),
                "decades": float(np.log10(flops[above].max() / flops[below].max())),
                "rms_plain": float(np.sqrt(np.mean(plain**2))),
                "rms": float(np.sqrt(np.mean(error**2))),
                "bias": float(error.mean()),
                "inside": float(np.mean(missed == 0)),
                "half_width": float(np.median(high - low) / 2),
                "interval_score": float(np.mean(high - low + 2 / (1 - LEVEL) * missed)),
            }
        )
    return rows


def pooled(judged: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    rows = [row for table in judged.values() for row in table]
    count = np.array([row["predicted"] for row in rows])
    per_table = {
        name: (
            math.sqrt(np.mean([row["rms_plain"] ** 2 for row in table])),
            math.sqrt(np.mean([row["rms"] ** 2 for row in table])),
            float(np.mean([row["inside"] for row in table])),
        )
        for name, table in judged.items()
    }
    ratios = [ours / plain for plain, ours, _ in per_table.values()]
    rms = math.sqrt(float(count @ np.array([row["rms"] ** 2 for row in rows]) / count.sum()))
    widths = np.repeat([row["half_width"] for row in rows], count)
    return {
        "tables": len(judged),
        "tables_at_or_below_plain": int(np.sum(np.array(ratios) <= 1)),
        "error_ratio_geometric_mean": float(np.exp(np.mean(np.log(ratios)))),
        "inside_pooled": float(count @ np.array([row["inside"] for row in rows]) / count.sum()),
        "inside_mean_over_tables": float(np.mean([inside for *_, inside in per_table.values()])),
        "median_half_width_over_rms": float(np.median(widths)) / rms,
        "per_table": {
            name: {"rms_plain": plain, "rms": ours, "inside": inside}
            for name, (plain, ours, inside) in per_table.items()
        },
    }


def search(tables: dict[str, Table]) -> tuple[dict[str, list[dict[str, float]]], dict[str, str], DriftPrior]:
    """Each table judged under the prior chosen without it; which prior that was; and the choice of all together."""
    priors = candidates()
    judged: list[dict[str, list[dict[str, float]]]] = []
    started = time.monotonic()
    for done, prior in enumerate(priors, 1):
        judged.append({name: judge(table, prior) for name, table in tables.items()})
        left = (time.monotonic() - started) / done * (len(priors) - done)
        print(f"{done}/{len(priors)} priors, {left:.0f} s left", file=sys.stderr)
    score = np.array(
        [[np.mean([math.log(row["interval_score"]) for row in one[name]]) for name in tables] for one in judged]
    )
    held_out, chosen = {}, {}
    for column, name in enumerate(tables):
        others = [{other: rows for other, rows in one.items() if other != name} for one in judged]
        best = _best(np.delete(score, column, axis=1), others)
        held_out[name], chosen[name] = judged[best][name], said(priors[best])
    return held_out, chosen, priors[_best(score, judged)]


def _best(score: np.ndarray, judged: list[dict[str, list[dict[str, float]]]]) -> int:
    """An interval must first hold its level, of runs and of tables alike: the lowest score (priors, tables) among the
    priors that do, else the one that comes nearest."""
    summaries = [pooled(one) for one in judged]
    held = np.array([min(one["inside_pooled"], one["inside_mean_over_tables"]) for one in summaries])
    holds = held >= LEVEL
    return int(np.argmin(np.where(holds, score.mean(axis=1), np.inf))) if holds.any() else int(held.argmax())


def said(prior: DriftPrior) -> str:
    return (
        f"excess_share {prior.excess_share:g}, tau_c {math.exp(prior.ln_tau_c[0]):.3g}, "
        f"tau_r {math.exp(prior.ln_tau_r[0]):.3g}"
    )


def show(title: str, summary: dict[str, Any]) -> None:
    print(f"\n{title}")
    print(f"{'table':48s} {'plain law':>9s} {'forecast':>9s} {'inside 90%':>10s}")
    for name, row in summary["per_table"].items():
        print(f"{name:48s} {row['rms_plain']:9.2%} {row['rms']:9.2%} {row['inside']:10.0%}")
    print(
        f"at or below the plain law on {summary['tables_at_or_below_plain']} of {summary['tables']} tables · errors "
        f"{summary['error_ratio_geometric_mean']:.2f} times the plain law's · inside {summary['inside_pooled']:.0%} of "
        f"points, {summary['inside_mean_over_tables']:.0%} over tables · median half-width "
        f"{summary['median_half_width_over_rms']:.2f} times the rms error"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--search", action="store_true")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    kept = arguments.out.read_text(encoding="utf-8") if arguments.out and arguments.out.is_file() else "{}"
    result: dict[str, Any] = json.loads(kept)
    tables = tuning_tables()
    if arguments.search:
        held_out, chosen, best = search(tables)
        result["leave_one_table_out"] = pooled(held_out) | {"chosen": chosen, "chosen_on_all": said(best)}
        show("each table under the prior learned from the others", result["leave_one_table_out"])
        print("chosen on all:", said(best))
    result["default_prior"] = pooled({name: judge(table, DriftPrior()) for name, table in tables.items()})
    show(f"the default prior ({said(DriftPrior())})", result["default_prior"])
    if arguments.fresh:
        result["fresh"] = pooled({name: judge(table, DriftPrior()) for name, table in fresh_tables().items()})
        show("tables first looked at with the default frozen", result["fresh"])
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
