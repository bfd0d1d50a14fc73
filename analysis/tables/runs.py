"""The plan, and every run of a study."""

from __future__ import annotations

import math

import numpy as np

from analysis.study_view import StudyView
from analysis.tables.table import Cell, Table, table
from scaling.quantity import format_count, format_duration, format_flops

__all__ = ["plan", "runs"]


def plan(view: StudyView) -> Table:
    def span(low: float, high: float) -> str:
        return format_count(low) if low == high else f"{format_count(low)} to {format_count(high)}"

    rows = [
        [
            p.label,
            str(p.runs),
            span(*p.params),
            span(*p.tokens),
            format_flops(p.flops),
            "" if p.minutes is None else f"{p.minutes:.1f}",
            p.why,
        ]
        for p in view.plan
    ]
    return table(("Line", "#Runs", "#Parameters", "#Tokens", "#Compute", "#Minutes", "Why"), rows)


def runs(view: StudyView) -> Table:
    """Every run of the observations, hold-outs marked; predicted/actual - 1 is not repeated here."""
    rows: list[list[Cell | str]] = []
    marked = set()
    records = view.observations.sort_values([view.flops_column, view.params_column]).to_dict("records")
    for index, run in enumerate(records):
        if run["role"] == "hold-out":
            marked.add(index)
        numbers = {name: _number(run[name]) for name in (view.params_column, "tokens", view.flops_column, "loss_nats")}
        params, tokens, flops, loss = numbers.values()
        bits, rate, seconds = (_number(run[name]) for name in ("bits_per_byte", "learning_rate", "wall_seconds"))
        rows.append(
            [
                Cell(str(run["run_key"])[:8]),
                Cell(str(run["role"])),
                Cell(format_count(params), params),
                Cell(format_count(tokens), tokens),
                Cell(f"{tokens / params:.3g}", tokens / params),
                Cell(format_flops(flops).removesuffix(" FLOPs"), flops),
                Cell(_fixed(loss, 4), loss),
                Cell(_fixed(bits, 4), bits),
                Cell(f"{rate:.2g}" if np.isfinite(rate) else "", rate),
                Cell(format_duration(seconds) if np.isfinite(seconds) else "", seconds),
                Cell(str(run["status"])),
            ]
        )
    columns = (
        "Run",
        "Role",
        "#Params",
        "#Tokens",
        "#Tok/param",
        "#FLOPs",
        "#Loss",
        "#Bits/byte",
        "#Rate",
        "#Time",
        "Status",
    )
    return table(columns, rows, frozenset(marked))


def _number(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan


def _fixed(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else ""
