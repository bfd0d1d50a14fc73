"""What the figure of over-optimisation shows, once: gold and proxy reward of each method along √KL, and their laws.

The table has a row a measurement: ``method``, ``seed``, ``kl_nats`` (0 for the initial policy), ``gold`` and ``proxy``;
``run`` and ``answer_tokens`` may stand beside. Best-of-n is fitted by its own law, any other method by that of
reinforcement learning.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.figure_data import Band
from scaling.errors import UserError
from scaling.fit import LawFit
from scaling.fits.over_optimisation import OverOptimisationFit, fit_over_optimisation, law_of_method

__all__ = ["MethodCurve", "OverOptimisation", "over_optimisation"]

Floats = NDArray[np.float64]

_POINTS = 120
_NEEDED = ("method", "kl_nats", "gold")


@dataclass(frozen=True)
class MethodCurve:
    """One method; (n,) each."""

    method: str
    sqrt_kl: Floats
    gold: Floats
    proxy: Floats | None
    seed: NDArray[np.int64]
    """Which of the method's seeds, from 0."""
    gold_band: Band | None
    """Over √KL, the law and its interval; None where it was refused."""
    proxy_band: Band | None
    fit: OverOptimisationFit


@dataclass(frozen=True)
class OverOptimisation:
    level: float
    curves: tuple[MethodCurve, ...]
    """In the order in which methods first stand in the table."""

    @property
    def farthest(self) -> float:
        """The largest √KL of any method."""
        return max(float(curve.sqrt_kl.max()) for curve in self.curves)

    @property
    def scores(self) -> Floats:
        """Every gold and proxy score."""
        return np.concatenate([part for curve in self.curves for part in (curve.gold, curve.proxy) if part is not None])


def over_optimisation(table: pd.DataFrame, *, level: float = 0.9, bootstrap: int = 1000) -> OverOptimisation:
    """The curves of every method in ``table``; :class:`UserError` where a column is missing or a value is wrong."""
    for needed in _NEEDED:
        if needed not in table:
            raise UserError(
                f"the table of over-optimisation has no column {needed!r} (it has {', '.join(map(str, table))})"
            )
    if table.empty:
        raise UserError("the table of over-optimisation has no rows: give one a measurement")
    return OverOptimisation(
        level,
        tuple(_curve(str(method), rows, level, bootstrap) for method, rows in table.groupby("method", sort=False)),
    )


def _curve(method: str, rows: pd.DataFrame, level: float, bootstrap: int) -> MethodCurve:
    if "proxy" in rows and rows["proxy"].isna().all():
        rows = rows.drop(columns="proxy")
    fit = fit_over_optimisation(rows, law_of_method(method), level=level, bootstrap=bootstrap)
    seeds = rows["seed"].astype(str) if "seed" in rows else pd.Series("", index=rows.index)
    farthest = float(np.sqrt(rows["kl_nats"].max()))
    return MethodCurve(
        method=method,
        sqrt_kl=np.sqrt(rows["kl_nats"].to_numpy(np.float64)),
        gold=rows["gold"].to_numpy(np.float64),
        proxy=rows["proxy"].to_numpy(np.float64) if "proxy" in rows else None,
        seed=np.unique(seeds, return_inverse=True)[1],
        gold_band=_band(fit.gold, farthest),
        proxy_band=_band(fit.proxy, farthest),
        fit=fit,
    )


def _band(fit: LawFit | None, farthest: float) -> Band | None:
    if fit is None:
        return None
    sqrt_kl = np.linspace(farthest / (20 * _POINTS), farthest, _POINTS)
    told = fit.predict(sqrt_kl**2, scatter=False)
    return Band(sqrt_kl, told.estimate, told.low, told.high)
