"""How the counting of parameters and FLOPs moves the exponent of N*, fitted on the same runs.

nanochat's iso-FLOP optima give 0.37, 0.54 or 0.70 by the parameters alone (karpathy/nanochat, dev/LOG.md), and the last
layer's FLOPs alone took Kaplan's exponent from 0.84 to 0.71 in Porian et al. (2406.19146). Embeddings are a large part
of a small model and a small part of a large one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from scaling.errors import UserError
from scaling.fits.together import fit_table
from scaling.observation import FlopsConvention, ParamsConvention
from scaling.record import Interval, Record
from scaling.table_file import load_rows

__all__ = ["ConventionExponent", "exponent_of_optima", "exponents_by_convention", "exponents_page"]

_COLUMNS: dict[ParamsConvention, tuple[str, ...]] = {
    "total": ("params_total",),
    "nonembedding": ("params_nonembedding", "params_no_embed"),
    "with-head": ("params_with_head",),
}


class ConventionExponent(Record):
    """a of N* ~ C^a under one convention by both approaches; None with the reason where one is refused."""

    params_convention: ParamsConvention
    flops_convention: FlopsConvention
    isoflop: Interval | None
    parametric: Interval | None
    reasons: tuple[str, ...]


def exponents_by_convention(
    source: pd.DataFrame | Path | str, *, bootstrap: int = 1000, level: float = 0.9, seed: int = 0
) -> tuple[ConventionExponent, ...]:
    """Fit a table of runs once for each way of counting that its columns allow.

    The columns are the project's own: params_total, params_nonembedding (or params_no_embed), params_with_head, tokens,
    loss_nats (or loss) and, for exact FLOPs beside 6ND, flops_exact (or flops). Raises :class:`UserError` with under
    two ways of counting, and as ``fit_table`` does.
    """
    frame = source if isinstance(source, pd.DataFrame) else load_rows(source)[0]
    counted = {
        convention: next((name for name in names if name in frame.columns), None)
        for convention, names in _COLUMNS.items()
    }
    exact = next((name for name in ("flops_exact", "flops") if name in frame.columns), None)
    ways = [
        (convention, column, flops)
        for convention, column in counted.items()
        if column is not None
        for flops in ("exact", "6nd")
        if flops == "6nd" or exact is not None
    ]
    if len(ways) < 2:
        wanted = ", ".join(names[0] for names in _COLUMNS.values())
        raise UserError(f"the table allows {len(ways)} ways of counting: give it two or more of {wanted}, flops_exact")
    found = []
    for convention, column, flops in ways:
        columns = {"params": column} | ({"flops": exact} if exact is not None and flops == "exact" else {})
        fit = fit_table(
            frame,
            columns=columns,
            params_convention=convention,
            flops_convention="exact" if flops == "exact" else "6nd",
            bootstrap=bootstrap,
            level=level,
            seed=seed,
        )
        found.append(
            ConventionExponent(
                params_convention=convention,
                flops_convention=fit.flops_convention,
                isoflop=fit.isoflop.n_exponent,
                parametric=fit.parametric.n_exponent,
                reasons=tuple(part.reason for part in (fit.isoflop, fit.parametric) if part.reason is not None),
            )
        )
    return tuple(found)


def exponent_of_optima(flops: ArrayLike, params: ArrayLike, level: float = 0.9) -> Interval:
    """a of N* ~ C^a by least squares on logs through optima found elsewhere, with Student's interval; open with two.

    Raises :class:`UserError` with under two budgets or a number that is not above zero.
    """
    flops_M, params_M = np.asarray(flops, np.float64), np.asarray(params, np.float64)
    good = np.isfinite(flops_M) & np.isfinite(params_M) & (flops_M > 0) & (params_M > 0)
    if flops_M.shape != params_M.shape or not good.all() or len(np.unique(flops_M)) < 2:
        raise UserError("optima need flops and params above 0, one for one, at two or more budgets")
    x_M, y_M = np.log(flops_M), np.log(params_M)
    offset_M = x_M - x_M.mean()
    spread = float(offset_M @ offset_M)
    slope = float(offset_M @ y_M) / spread
    spare = len(x_M) - 2
    if not spare:
        return Interval(estimate=slope, low=None, high=None)
    residual_M = y_M - y_M.mean() - slope * offset_M
    half = float(stdtrit(spare, (1 + level) / 2)) * math.sqrt(float(residual_M @ residual_M) / spare / spread)
    return Interval(estimate=slope, low=slope - half, high=slope + half)


def exponents_page(found: Sequence[ConventionExponent]) -> str:
    """A table, one way of counting a row."""
    rows = [f"{'parameters':<14}{'FLOPs':<7}{'iso-FLOP':<24}law"]
    rows += [
        f"{one.params_convention:<14}{one.flops_convention:<7}{_shown(one.isoflop):<24}{_shown(one.parametric)}"
        for one in found
    ]
    return "\n".join(rows)


def _shown(interval: Interval | None) -> str:
    if interval is None:
        return "refused"
    low, high = ("?" if bound is None else f"{bound:.3f}" for bound in (interval.low, interval.high))
    return f"{interval.estimate:.3f} [{low}, {high}]"
