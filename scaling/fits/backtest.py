"""How forecasts of this very table would have done: leave the largest budgets out, predict them, look at the error.

Every number an interval promises can be wrong where the law is; what a sweep's own lower part said of its upper part is
the one check that needs no further run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from scaling.fit import BackTestCut
from scaling.fits.averaged import fit_averaged
from scaling.fits.drift import Predictive
from scaling.fits.identifiability import parametric_refusal
from scaling.laws.law import FloatArray, LossLaw
from scaling.table import Table, budget_levels

__all__ = ["LeftOut", "back_test", "compute_cuts", "left_out"]

_FEWEST_POINTS_BELOW = 10
_MOST_CUTS = 3
_MOST_BUDGETS = 15


def compute_cuts(flops: FloatArray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of masks (n,): the runs below a cut, and those of the band above it that it predicts. Bands never overlap.

    Runs on iso-FLOP lines are cut between lines; a continuum of compute is cut at 70, 80 and 90% of its log range.
    """
    levels = budget_levels(flops)
    count = int(levels.max()) + 1
    if count <= _MOST_BUDGETS:
        tops = range(count - 1, max(0, count - 1 - _MOST_CUTS), -1)
        return [(levels < top, levels == top) for top in tops]
    position = (np.log(flops) - math.log(flops.min())) / math.log(flops.max() / flops.min())
    edges = (0.7, 0.8, 0.9, math.inf)
    return [(position < low, (position >= low) & (position < high)) for low, high in pairwise(edges)]


@dataclass(frozen=True)
class LeftOut:
    """The runs of one band, in the table's order, and what was forecast of each from the runs below it."""

    largest_fitted_flops: float
    fitted: int
    flops_n: FloatArray
    params_n: FloatArray
    ln_loss_n: FloatArray
    """As measured."""
    forecasts: tuple[Predictive, ...]
    ln_loss_plain_n: FloatArray
    """By the first law alone."""

    @property
    def error_n(self) -> FloatArray:
        """Predicted less actual log loss."""
        return np.array([one.mean for one in self.forecasts]) - self.ln_loss_n

    def bounds(self, level: float) -> tuple[FloatArray, FloatArray]:
        """The forecasts' intervals of ln L, (n,) each."""
        tail = (1 - level) / 2
        low_n, high_n = (np.array([one.quantile(p) for one in self.forecasts]) for p in (tail, 1 - tail))
        return low_n, high_n


def left_out(table: Table, laws: Sequence[LossLaw], *, irreducible: tuple[float, float] | None) -> Iterator[LeftOut]:
    """Each band of runs, forecast from those below it.

    Cuts with fewer than ten runs below, or whose runs can't identify the law, are left out.
    """
    params, tokens, flops, loss = table.params, table.tokens, table.flops, table.loss
    trunks = table.trunks
    constants = max(len(law.parameters) for law in laws)
    for below, band in compute_cuts(flops):
        if below.sum() < _FEWEST_POINTS_BELOW or not band.any():
            continue
        if parametric_refusal(params[below], tokens[below], constants=constants) is not None:
            continue
        model = fit_averaged(
            laws,
            params[below],
            tokens[below],
            loss[below],
            irreducible=irreducible,
            trunks=None if trunks is None else trunks[below],
        )
        yield LeftOut(
            largest_fitted_flops=float(flops[below].max()),
            fitted=int(below.sum()),
            flops_n=flops[band],
            params_n=params[band],
            ln_loss_n=np.log(loss[band]),
            forecasts=tuple(model.predictive(n, d) for n, d in zip(params[band], tokens[band], strict=True)),
            ln_loss_plain_n=np.log(laws[0].predict(model.members[0].plain.theta, params[band], tokens[band])),
        )


def back_test(
    table: Table, laws: Sequence[LossLaw], *, irreducible: tuple[float, float] | None, level: float
) -> tuple[BackTestCut, ...]:
    """How forecasts of each band of runs from those below it (``left_out``) did, beside the first law's alone."""
    found = []
    for each in left_out(table, laws, irreducible=irreducible):
        actual, errors = each.ln_loss_n, each.error_n
        low, high = each.bounds(level)
        found.append(
            BackTestCut(
                largest_fitted_flops=each.largest_fitted_flops,
                fitted=each.fitted,
                predicted=len(actual),
                extrapolation_orders=math.log10(float(each.flops_n.max()) / each.largest_fitted_flops),
                rms_error=_rms(errors),
                rms_error_plain_law=_rms(each.ln_loss_plain_n - actual),
                mean_error=float(errors.mean()),
                inside=int(((low <= actual) & (actual <= high)).sum()),
                median_half_width=float(np.median(high - low) / 2),
            )
        )
    return tuple(found)


def _rms(errors: FloatArray) -> float:
    return math.sqrt(float(np.mean(errors * errors)))
