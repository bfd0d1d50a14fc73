"""How forecasts of this very table would have done: leave the largest budgets out, predict them, look at the error.

Every number an interval promises can be wrong where the law is; what a sweep's own lower part said of its upper part is
the one check that needs no further run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from scaling.fit import BackTestCut
from scaling.fits.averaged import fit_averaged
from scaling.fits.identifiability import parametric_refusal
from scaling.laws.law import FloatArray, LossLaw
from scaling.table import Table, budget_levels

__all__ = ["back_test", "compute_cuts"]

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


def back_test(
    table: Table, laws: Sequence[LossLaw], *, irreducible: tuple[float, float] | None, level: float
) -> tuple[BackTestCut, ...]:
    """A forecast of each band of runs from those below it, beside the first law's alone.

    Cuts with fewer than ten runs below, or whose runs can't identify the law, are left out.
    """
    params, tokens, flops, loss = table.params, table.tokens, table.flops, table.loss
    trunks = table.trunks
    constants = max(len(law.parameters) for law in laws)
    found = []
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
        actual = np.log(loss[band])
        plain = np.log(laws[0].predict(model.members[0].plain.theta, params[band], tokens[band])) - actual
        forecasts = [model.predictive(n, d) for n, d in zip(params[band], tokens[band], strict=True)]
        low, high = (np.array([one.quantile(p) for one in forecasts]) for p in ((1 - level) / 2, (1 + level) / 2))
        errors = np.array([one.mean for one in forecasts]) - actual
        found.append(
            BackTestCut(
                largest_fitted_flops=float(flops[below].max()),
                fitted=int(below.sum()),
                predicted=int(band.sum()),
                extrapolation_orders=math.log10(float(flops[band].max() / flops[below].max())),
                rms_error=_rms(errors),
                rms_error_plain_law=_rms(plain),
                mean_error=float(errors.mean()),
                inside=int(((low <= actual) & (actual <= high)).sum()),
                median_half_width=float(np.median(high - low) / 2),
            )
        )
    return tuple(found)


def _rms(errors: FloatArray) -> float:
    return math.sqrt(float(np.mean(errors * errors)))
