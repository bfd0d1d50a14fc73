"""What the figure of the back-test shows, once: the sweep's own largest runs, each forecast from those below it.

The fit keeps how each cut did (``BackTestCut``), not each run: a record that grew by a field would give every fit
another key, and forecasts name the key of theirs. So the same forecasts are made again here, from the same rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.study_view import StudyView
from scaling.fits.backtest import left_out
from scaling.fits.drift import Predictive
from scaling.laws import get_loss_law
from scaling.table import Table, read_table

__all__ = ["Coverage", "coverage"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Coverage:
    """One entry a run left out; errors are predicted/actual − 1, their bounds those of the interval at ``level``."""

    level: float
    params: Floats
    beyond: Floats
    """The run's FLOPs over the largest that its forecast had seen."""
    error: Floats
    low: Floats
    high: Floats
    cut: NDArray[np.int64]
    """Which of the cuts it was left out by, from 0, the one with most runs below first."""
    nominal: Floats
    """Levels from 0 to 1, (Q,)."""
    share: Floats
    """Of the runs, those inside their intervals at each of these levels, (Q,)."""
    chance: tuple[Floats, Floats]
    """Between which the share lies in nine of ten tables, were the intervals right and the runs independent, (Q,)."""
    registered: tuple[float, float, float, float] | None
    """The hold-out's registered forecast as (beyond, error, low, high), where it has been scored."""

    @property
    def inside(self) -> NDArray[np.bool_]:
        return np.asarray((self.low <= 0) & (self.high >= 0))


def coverage(view: StudyView) -> Coverage | None:
    """None where the fit could not be back-tested."""
    fit = view.fit
    if fit.parametric.status != "ok" or fit.drift.status != "ok" or not fit.drift.back_test:
        return None
    laws = [get_loss_law(name) for name in fit.drift.laws]
    bands = list(left_out(_table(view), laws, irreducible=fit.drift.irreducible))
    if not bands:
        return None
    ln_actual = np.concatenate([band.ln_loss_n for band in bands])
    bounds = [band.bounds(fit.level) for band in bands]
    below = np.array(
        [one.probability_below(ln) for band in bands for one, ln in _pairs(band.forecasts, band.ln_loss_n)]
    )
    nominal = np.linspace(0, 1, 201)
    return Coverage(
        level=fit.level,
        params=np.concatenate([band.params_n for band in bands]),
        beyond=np.concatenate([band.flops_n / band.largest_fitted_flops for band in bands]),
        error=np.expm1(np.concatenate([band.error_n for band in bands])),
        low=np.expm1(np.concatenate([low for low, _ in bounds]) - ln_actual),
        high=np.expm1(np.concatenate([high for _, high in bounds]) - ln_actual),
        cut=np.repeat(np.arange(len(bands)), [len(band.flops_n) for band in bands]),
        nominal=nominal,
        share=(np.abs(2 * below - 1) <= nominal[:, None]).mean(axis=1),
        chance=_chance(nominal, len(below)),
        registered=_registered(view),
    )


def _pairs(forecasts: tuple[Predictive, ...], actual: Floats) -> zip[tuple[Predictive, float]]:
    return zip(forecasts, actual, strict=True)


def _table(view: StudyView) -> Table:
    """The rows that were fitted, as the fit read them."""
    return read_table(
        view.fitted, params_convention=view.fit.params_convention, flops_convention=view.fit.flops_convention
    )


def _chance(nominal: Floats, runs: int) -> tuple[Floats, Floats]:
    from scipy.stats import binom

    low, high = (binom.ppf(tail, runs, nominal) / runs for tail in (0.05, 0.95))
    return np.asarray(low), np.asarray(high)


def _registered(view: StudyView) -> tuple[float, float, float, float] | None:
    if view.forecast is None or view.outcome is None:
        return None
    told, actual = view.forecast.loss, view.outcome.loss
    low, high = (np.nan if bound is None else bound / actual - 1 for bound in (told.low, told.high))
    return view.forecast.flops / view.fit.fitted_range.flops[1], told.estimate / actual - 1, low, high
