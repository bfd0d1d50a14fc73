"""What the figures of diagnosis show, once: residuals, each run's pull, and profiles, of the fitted runs of a view.

N parameters, D training tokens, C training FLOPs. Errors are predicted/actual − 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.study_view import StudyView
from scaling.fits.estimate import estimate
from scaling.fits.influence import AFFORDABLE, Influence, influence
from scaling.fits.profile import Profile, profiles
from scaling.laws import get_loss_law
from scaling.record import Interval
from scaling.table import budget_levels

__all__ = ["FAR", "MOVES", "Diagnosis", "diagnosis", "trend"]

Floats = NDArray[np.float64]

FAR = 5.0
"""Robust standard deviations from the law beyond which a run is marked."""
MOVES = 1.0
"""Standard errors of the answer beyond which a run that moves it is marked."""
_MOST_GROUPS = 12
_FEWEST_IN_GROUP = 5


@dataclass(frozen=True)
class Diagnosis:
    """One entry a fitted run; the law refitted to them as the fit was."""

    rows: NDArray[np.int64]
    """Row numbers, as the fit's diagnostics tell them."""
    params: Floats
    tokens: Floats
    flops: Floats
    relative_error: Floats
    """predicted / actual − 1."""
    pull: Influence
    profiles: tuple[Profile, ...]
    intervals: Mapping[str, Interval]
    """The intervals that the fit itself states, by the profiles' names, where it does."""

    @property
    def far(self) -> NDArray[np.bool_]:
        """Runs that are not of the law's noise."""
        return np.asarray(np.abs(self.pull.scaled_residuals) > FAR)

    @property
    def moving(self) -> NDArray[np.bool_]:
        """Runs without which the answer is another by more than its standard error."""
        return np.asarray(self.pull.largest_shift > MOVES)


def diagnosis(view: StudyView) -> Diagnosis | None:
    """The law through the view's fitted runs, and what each of them and each constant rests on; None where the law was
    refused. Takes about a second for some hundred runs: ``StudyView.diagnosis`` keeps it."""
    parametric = view.fit.parametric
    if parametric.status != "ok":
        return None
    law, delta = get_loss_law(parametric.law), parametric.huber_delta
    fitted = view.fitted
    params, tokens, flops, loss = (
        fitted[name].to_numpy(dtype=np.float64)
        for name in (view.params_column, "tokens", view.flops_column, "loss_nats")
    )
    found = estimate(law, (params, tokens), loss, delta)
    order = [list(parametric.parameters).index(name) for name in law.NAMES]
    draws = np.array(parametric.draws, dtype=np.float64).reshape(-1, len(parametric.parameters))[:, order]
    pull = influence(
        found, (params, tokens), loss, flops, delta, flops_per_param_token=view.fit.flops_per_param_token, draws=draws,
        most=AFFORDABLE // len(loss),
    )  # fmt: skip
    intervals = dict(parametric.parameters)
    if parametric.n_exponent is not None:
        intervals["n_exponent"] = parametric.n_exponent
    return Diagnosis(
        rows=view.fitted_rows,
        params=params,
        tokens=tokens,
        flops=flops,
        relative_error=np.expm1(-found.residuals),
        pull=pull,
        profiles=profiles(found, (params, tokens), loss, delta, target=pull.target, level=view.fit.level),
        intervals=intervals,
    )


def trend(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """The median of ``y`` along ``x``: at each level of a design, or in groups of equal number along a continuum.

    Empty with fewer than two groups.
    """
    levels = budget_levels(x)
    if levels.max() + 1 > _MOST_GROUPS:
        count = min(_MOST_GROUPS, len(x) // _FEWEST_IN_GROUP)
        levels = (np.argsort(np.argsort(x, kind="stable"), kind="stable") * max(count, 1)) // len(x)
    groups = [levels == level for level in np.unique(levels)]
    if len(groups) < 2:
        return np.zeros(0), np.zeros(0)
    middle = np.array([np.exp(np.log(x[group]).mean()) for group in groups])
    return middle, np.array([np.median(y[group]) for group in groups])
