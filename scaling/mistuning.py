"""What mistuned learning rates did to N*: Porian et al.'s correction (2406.19146) where only some sizes were probed.

One learning rate for all sizes suits one of them. Near its bottom the valley of loss over ln lr is a parabola, so a run
at rate lr of a size whose best is lr* has lost

    L/L* − 1 = q·(ln lr − ln lr*)²

with q, the curvature over the loss, and lr*(N) from the sizes that were probed (``scaling.hyperparameters``). Dividing
it out and fitting again shows what the mistuning did to the exponent and to N*.

The parabola holds within a factor of four of the best rate. On Step Law's 16 valleys (2503.04715; batch tuned at each
rate) q is 0.0095 with an SD of 0.58 in its logarithm; at a factor of two the mean excess is 0.4% below and 0.7% above
the best rate where the parabola says 0.5%, at four 0.9% and 3.0% where it says 1.8%, and at eight 1.2% and 40%.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scaling.allocation import allocate
from scaling.errors import UserError
from scaling.fit import Fit, RejectedRow
from scaling.fits.together import fit_table
from scaling.hyperparameters import LearningRateLaw, Valley, law_from_probe
from scaling.laws.law import FloatArray
from scaling.observation import FlopsConvention, ParamsConvention
from scaling.quantity import format_count, format_interval
from scaling.record import Interval, Record

__all__ = ["CURVATURE", "MistuningEffect", "NStarShift", "correct_mistuning", "tuned_losses"]

REACH = math.log(4.0)
"""Farther from the best rate than this a run's loss is not corrected but left out."""
CURVATURE = 0.0095
"""q on Step Law's valleys."""
CURVATURE_SD = 0.58
"""SD of ln q between sizes and lengths, on Step Law's grid: one valley tells the others' curvature to this."""
_ONE_SIDED = NormalDist().inv_cdf(0.95)
"""The rate laws' intervals are of 90%."""

_NAMES = {
    "params": ("params", "params_total", "n_params", "N"),
    "loss": ("loss", "loss_nats", "val_loss", "L"),
    "learning_rate": ("learning_rate", "lr"),
}


class NStarShift(Record):
    """N* ~ C^a by one approach, as trained and as tuned; ``shift`` is after less before, its interval from what the
    valleys leave unknown, for the runs' noise is the same in both."""

    estimator: Literal["parametric", "isoflop"]
    exponent_before: Interval
    exponent_after: Interval
    shift: Interval
    params_before: Interval | None
    params_after: Interval | None
    """N* at the target compute, if one was given."""


class MistuningEffect(Record):
    """What the learning rates of a table of runs did to its optimum."""

    rate_law: LearningRateLaw
    curvature: Interval
    """q: share of loss that a unit of ln lr off the best rate costs, at first."""
    used: int
    left_out: tuple[RejectedRow, ...]
    mean_excess: float
    largest_excess: float
    """Shares of loss taken off the runs used."""
    flops: float | None
    shifts: tuple[NStarShift, ...]
    before: Fit
    after: Fit

    def summary(self) -> str:
        """How far off the rates were, then the exponents and N* as trained and as tuned."""
        lines = [
            f"{self.used} runs, {len(self.left_out)} left out; learning rates cost {self.mean_excess:.2%} of loss on "
            f"average, {self.largest_excess:.2%} at most (q {self.curvature.estimate:.3g})"
        ]
        for one in self.shifts:
            approach = "law     " if one.estimator == "parametric" else "iso-FLOP"
            said = (
                f"  {approach}  N* ~ C^{one.exponent_before.estimate:.3f} as trained, "
                f"C^{one.exponent_after.estimate:.3f} as tuned: shift {one.shift.estimate:+.3f} "
                f"[{one.shift.low:+.3f}, {one.shift.high:+.3f}]"
            )
            if one.params_before is not None and one.params_after is not None:
                said += f"; N* {format_count(one.params_before.estimate)} to {format_interval(one.params_after)}"
            lines.append(said)
        return "\n".join(lines)


@dataclass(frozen=True)
class _Tuning:
    """What the valleys say, and how well: SDs of ln lr* at the probed centre, of its exponent, and of ln q."""

    law: LearningRateLaw
    curvature: float
    sd_ln_rate: float
    sd_exponent: float
    sd_ln_curvature: float

    def offsets(self, params: FloatArray, learning_rates: FloatArray, steps: tuple[float, float]) -> FloatArray:
        """ln lr − ln lr*(N), (n,); ``steps`` move the rate and its exponent by so many SDs."""
        distance = np.log(params / self.law.params_at)
        ln_rate = math.log(self.law.rate_at.estimate) + steps[0] * self.sd_ln_rate
        exponent = self.law.exponent.estimate + steps[1] * self.sd_exponent
        return np.asarray(np.log(learning_rates) - ln_rate + exponent * distance)

    def excess(
        self, params: FloatArray, learning_rates: FloatArray, steps: tuple[float, float, float] = (0.0, 0.0, 0.0)
    ) -> FloatArray:
        """L/L* − 1 of each run, (n,)."""
        q = self.curvature * math.exp(steps[2] * self.sd_ln_curvature)
        return np.asarray(q * self.offsets(params, learning_rates, steps[:2]) ** 2)


def tuned_losses(
    runs: pd.DataFrame,
    valleys: Sequence[tuple[float, Valley]],
    *,
    rate_law: LearningRateLaw | None = None,
    columns: Mapping[str, str] | None = None,
) -> tuple[pd.DataFrame, tuple[RejectedRow, ...]]:
    """``runs`` with their losses as the best rate would have had them, and what that took off in ``tuning_excess``.

    Runs without a rate, or farther than a factor of four from the best, are left out, by number. ``valleys`` are
    (parameters, valley) of the probed sizes, counted as the runs are; ``rate_law`` by default the one through them.
    Raises :class:`UserError` where no valley has a bottom or a column is missing.
    """
    tuning, used = _tuning(valleys, rate_law), _columns(runs, columns)
    kept, left_out = _within_reach(runs, tuning, used)
    tuned = runs.loc[kept].copy()
    excess = tuning.excess(_floats(tuned, used["params"]), _floats(tuned, used["learning_rate"]))
    tuned["tuning_excess"] = excess
    tuned[used["loss"]] = _floats(tuned, used["loss"]) / (1 + excess)
    return tuned, left_out


def correct_mistuning(
    runs: pd.DataFrame,
    valleys: Sequence[tuple[float, Valley]],
    *,
    flops: float | None = None,
    rate_law: LearningRateLaw | None = None,
    columns: Mapping[str, str] | None = None,
    params_convention: ParamsConvention = "total",
    flops_convention: FlopsConvention | None = None,
    bootstrap: int = 1000,
    level: float = 0.9,
) -> MistuningEffect:
    """Fit ``runs`` as trained and as tuned (see ``tuned_losses``), on the same rows, and compare exponents and N*.

    ``flops`` is the compute at which N* is compared; ``columns`` may name learning_rate beside those of ``fit_table``,
    which the other arguments go to. Shifts carry the uncertainty of the best rate, of its exponent and
    of the curvature, to first order. Raises :class:`UserError` as ``tuned_losses`` and ``fit_table`` do.
    """
    tuning, used = _tuning(valleys, rate_law), _columns(runs, columns)
    kept, left_out = _within_reach(runs, tuning, used)
    trained = runs.loc[kept]
    params, rates = _floats(trained, used["params"]), _floats(trained, used["learning_rate"])

    def fitted(excess: FloatArray | float, resamples: int) -> Fit:
        return fit_table(
            trained.assign(**{used["loss"]: _floats(trained, used["loss"]) / (1 + excess)}),
            columns={name: column for name, column in ({**(columns or {}), **used}).items() if name != "learning_rate"},
            params_convention=params_convention,
            flops_convention=flops_convention,
            bootstrap=resamples,
            level=level,
        )

    excess = tuning.excess(params, rates)
    before, after = fitted(0.0, bootstrap), fitted(excess, bootstrap)
    moved = [
        fitted(tuning.excess(params, rates, steps), 0) for steps in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    ]
    quantile = NormalDist().inv_cdf((1 + after.level) / 2)
    spread = math.exp(quantile * tuning.sd_ln_curvature)
    return MistuningEffect(
        rate_law=tuning.law,
        curvature=Interval(estimate=tuning.curvature, low=tuning.curvature / spread, high=tuning.curvature * spread),
        used=len(trained),
        left_out=left_out,
        mean_excess=float(excess.mean()),
        largest_excess=float(excess.max()),
        flops=flops,
        shifts=tuple(
            shift
            for shift in (
                _shift("parametric", before, after, moved, flops, quantile),
                _shift("isoflop", before, after, moved, flops, quantile),
            )
            if shift is not None
        ),
        before=before,
        after=after,
    )


def _shift(
    estimator: Literal["parametric", "isoflop"],
    before: Fit,
    after: Fit,
    moved: Sequence[Fit],
    flops: float | None,
    quantile: float,
) -> NStarShift | None:
    """None where the approach is refused in any of the fits."""
    exponents = [_exponent(one, estimator) for one in (before, after, *moved)]
    trained, tuned, *others = exponents
    if trained is None or tuned is None or any(other is None for other in others):
        return None
    shift = tuned.estimate - trained.estimate
    half = quantile * math.hypot(*(other.estimate - tuned.estimate for other in others if other is not None))
    sizes = [None if flops is None else allocate(one, flops, estimator).params for one in (before, after)]
    return NStarShift(
        estimator=estimator,
        exponent_before=trained,
        exponent_after=tuned,
        shift=Interval(estimate=shift, low=shift - half, high=shift + half),
        params_before=sizes[0],
        params_after=sizes[1],
    )


def _exponent(fit: Fit, estimator: Literal["parametric", "isoflop"]) -> Interval | None:
    return fit.parametric.n_exponent if estimator == "parametric" else fit.isoflop.n_exponent


def _tuning(valleys: Sequence[tuple[float, Valley]], rate_law: LearningRateLaw | None) -> _Tuning:
    shares = []
    for _, valley in valleys:
        if valley.polynomial is not None:
            p0, p1, p2 = valley.polynomial
            shares.append(math.log(p2 / (p0 - p1 * p1 / (4 * p2))))
    if not shares:
        reasons = "; ".join(f"{format_count(params)}: {valley.reason}" for params, valley in valleys)
        raise UserError(
            f"no probed size has a valley with a bottom ({reasons or 'none was given'}): try learning rates to both "
            "sides of the best at two sizes or more"
        )
    law = law_from_probe(valleys) if rate_law is None else rate_law
    return _Tuning(
        law=law,
        curvature=math.exp(float(np.mean(shares))),
        sd_ln_rate=math.log((law.rate_at.high or law.rate_at.estimate) / law.rate_at.estimate) / _ONE_SIDED,
        sd_exponent=((law.exponent.high or law.exponent.estimate) - law.exponent.estimate) / _ONE_SIDED,
        sd_ln_curvature=max(CURVATURE_SD, float(np.std(shares))) / math.sqrt(len(shares)),
    )


def _columns(runs: pd.DataFrame, columns: Mapping[str, str] | None) -> dict[str, str]:
    found = {}
    for name, usual in _NAMES.items():
        asked = (columns or {}).get(name)
        column = asked or next((candidate for candidate in usual if candidate in runs.columns), None)
        if column is None or column not in runs.columns:
            raise UserError(
                f"columns: {name} is {column or 'missing'}: the table has {', '.join(map(str, runs.columns))}; name "
                f"yours, as {{'{name}': 'COLUMN'}}"
            )
        found[name] = column
    return found


def _floats(runs: pd.DataFrame, column: str) -> FloatArray:
    return np.asarray(pd.to_numeric(runs[column], errors="coerce").to_numpy(dtype=np.float64))


def _within_reach(
    runs: pd.DataFrame, tuning: _Tuning, used: Mapping[str, str]
) -> tuple[NDArray[np.bool_], tuple[RejectedRow, ...]]:
    """Which rows can be corrected, (n,) booleans, and the others with the reason; rows count from 1."""
    params, rates = _floats(runs, used["params"]), _floats(runs, used["learning_rate"])
    with np.errstate(divide="ignore", invalid="ignore"):
        offsets = tuning.offsets(params, rates, (0.0, 0.0))
    kept = np.abs(np.nan_to_num(offsets, nan=np.inf)) <= REACH
    rejected = (RejectedRow(row=int(row) + 1, reason=_why(float(offsets[row]))) for row in np.flatnonzero(~kept))
    return kept, tuple(rejected)


def _why(offset: float) -> str:
    if not math.isfinite(offset):
        return "no learning rate or size"
    side = "above" if offset > 0 else "below"
    return f"learning rate {math.exp(abs(offset)):.2g} times {side} the best: the valley is no parabola beyond 4 times"
