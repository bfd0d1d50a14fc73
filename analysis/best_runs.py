"""The best run at each budget: what a reader of hundreds of runs looks for first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.study_view import StudyView
from scaling.table import budget_levels

__all__ = ["BestRun", "best_at_each_budget"]


@dataclass(frozen=True)
class BestRun:
    run_key: str
    flops: float
    params: float
    tokens: float
    loss: float
    runs: int
    """How many runs share its budget."""


def best_at_each_budget(view: StudyView) -> tuple[BestRun, ...]:
    """Of the fitted runs, by budget, the least first; compute within 10% is one budget, and a run alone is no best."""
    rows = view.fitted
    flops = rows[view.flops_column].to_numpy(dtype=np.float64)
    if not flops.size:
        return ()
    level_R = budget_levels(flops)
    best = []
    for level in range(int(level_R.max()) + 1):
        here = rows[level_R == level]
        if len(here) > 1:
            row = here.loc[here["loss_nats"].idxmin()]
            best.append(
                BestRun(
                    run_key=str(row["run_key"]),
                    flops=float(row[view.flops_column]),
                    params=float(row[view.params_column]),
                    tokens=float(row["tokens"]),
                    loss=float(row["loss_nats"]),
                    runs=len(here),
                )
            )
    return tuple(best)
