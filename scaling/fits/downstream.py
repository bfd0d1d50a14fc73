"""A task's accuracy in two steps, as Bhagia et al. (2412.04403) predict it, and whether this task can be predicted.

Step 1: the task's loss (bits per byte of the right answer) as a law of parameters and tokens, through final runs, by
summed Huber on its logarithm. Step 2: accuracy as a sigmoid of that loss, by least squares through every measured
point, intermediate checkpoints too, and through a perfect score at no loss. The two are chained.

What resampling knows is the smaller part of the error. The chain is therefore refitted below several cuts of compute
and judged on the runs above; its drift a decade widens the interval, and a task whose interval becomes too wide, or
whose accuracy has not left the noise, is said not to be predictable from these runs.

Shapes: n points, K draws.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from scaling.compute import flops_6nd
from scaling.errors import UserError
from scaling.fits.bootstrap import residual_scale
from scaling.fits.estimate import LEAST_SQUARES, Estimate, draw, estimate
from scaling.fits.identifiability import parametric_refusal
from scaling.laws.accuracy_sigmoid import ACCURACY_SIGMOID
from scaling.laws.chinchilla import CHINCHILLA
from scaling.laws.law import FloatArray, LossLaw
from scaling.record import Interval, Record

__all__ = ["DownstreamFit", "DownstreamForecast", "TaskRuns", "fit_downstream"]

_NO_LOSS = 1e-9
"""The perfect score's loss: nothing, as far as the sigmoid can tell, and positive."""
_CUTS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""Of the logarithmic range of compute."""
_FEWEST_BELOW_A_CUT = 8
_LEAST_SIGNAL = 5.0
"""Range of accuracy over the scatter around the sigmoid: below it the runs are still guessing, and a flat line that
back-tests well says nothing of when they will stop."""
_WIDEST_PREDICTABLE = 0.12
"""Half-width of an accuracy's interval up to which its task is called predictable: on the OLMo ladder, at 200 times the
largest run's compute, three of eight tasks lie at 0.04 to 0.10 and the others at 0.13 to 0.20."""


@dataclass(frozen=True, eq=False)
class TaskRuns:
    """One task's measurements, (n,) each: ``task_loss`` in bits per byte, ``accuracy`` from 0 to 1.

    ``run`` labels the checkpoints of one run, whose end is the row of most tokens; without it every row is a run of its
    own. :class:`UserError` names the row that is wrong.
    """

    task: str
    params: FloatArray
    tokens: FloatArray
    task_loss: FloatArray
    accuracy: FloatArray
    run: NDArray[np.object_] | None = None

    def __post_init__(self) -> None:
        rows = len(np.atleast_1d(self.params))
        for name in ("params", "tokens", "task_loss", "accuracy"):
            column = np.asarray(getattr(self, name), dtype=np.float64)
            if column.shape != (rows,):
                raise UserError(f"task {self.task}: {name} must be one number for each of {rows} rows")
            wrong = ~np.isfinite(column) | (column <= 0 if name != "accuracy" else (column < 0) | (column > 1))
            if wrong.any():
                row, allowed = int(np.argmax(wrong)), "a share from 0 to 1" if name == "accuracy" else "positive"
                raise UserError(f"task {self.task}, row {row + 1}: {name} {column[row]:g} must be {allowed}")
            object.__setattr__(self, name, column)
        label = np.arange(rows) if self.run is None else np.unique(np.asarray(self.run), return_inverse=True)[1]
        object.__setattr__(self, "run", label)

    @property
    def flops(self) -> FloatArray:
        """6ND (n,)."""
        return np.asarray(flops_6nd(self.params, self.tokens))

    @property
    def ends(self) -> NDArray[np.int64]:
        """The row of each run's end, in the order of the labels."""
        run = np.asarray(self.run)
        order = np.lexsort((self.tokens, run))
        last = np.append(np.diff(run[order]) != 0, True)
        return np.asarray(order[last])

    def rows(self, chosen: NDArray[np.generic]) -> TaskRuns:
        """Some of the rows, by mask or number."""
        columns = (self.params, self.tokens, self.task_loss, self.accuracy, np.asarray(self.run))
        return TaskRuns(self.task, *(column[chosen] for column in columns))


class DownstreamForecast(Record):
    """A task's loss and accuracy at one size and length; without a back-test the intervals have no ends."""

    task: str
    params: float
    tokens: float
    task_loss: Interval
    accuracy: Interval
    extrapolation_orders: float
    predictable: bool
    reason: str | None = None
    """Why not."""


@dataclass(frozen=True)
class _Chain:
    """Both steps through the same runs."""

    loss: Estimate
    accuracy: Estimate

    def predict(self, params: ArrayLike, tokens: ArrayLike) -> tuple[FloatArray, FloatArray]:
        loss = self.loss.law.predict(self.loss.theta, params, tokens)
        return loss, ACCURACY_SIGMOID.predict(self.accuracy.theta, loss)


@dataclass(frozen=True, eq=False)
class DownstreamFit:
    """Two laws in a row, with their draws and what the back-test said of them."""

    task: str
    law: LossLaw
    loss_theta: FloatArray
    """Constants of step 1, in the order of ``law.NAMES``."""
    accuracy_theta: FloatArray
    """a, x0, k, b of step 2."""
    loss_draws: FloatArray
    accuracy_draws: FloatArray
    loss_sd: float
    """Scatter of the log task loss around step 1."""
    accuracy_sd: float
    """Scatter of accuracy around step 2."""
    drift: tuple[float, float] | None
    """Errors a decade of compute beyond the runs, of log task loss and of accuracy: root mean squares over cuts."""
    cuts: int
    signal: float
    """Range of the fitted accuracies over ``accuracy_sd``."""
    largest_flops: float
    level: float

    def predict(self, params: float, tokens: float) -> DownstreamForecast:
        """The chained forecast of a run with ``params`` parameters on ``tokens`` tokens."""
        loss = float(self.law.predict(self.loss_theta, params, tokens))
        accuracy = float(ACCURACY_SIGMOID.predict(self.accuracy_theta, loss))
        orders = math.log10(float(flops_6nd(params, tokens)) / self.largest_flops)
        if self.drift is None:
            return DownstreamForecast(
                task=self.task, params=params, tokens=tokens, extrapolation_orders=orders, predictable=False,
                task_loss=Interval(estimate=loss, low=None, high=None),
                accuracy=Interval(estimate=accuracy, low=None, high=None),
                reason=f"no cut of compute has {_FEWEST_BELOW_A_CUT} runs below it that carry the law: add small runs",
            )  # fmt: skip
        loss_K = self.law.predict(self.loss_draws, params, tokens)
        accuracy_K = np.array(
            [float(ACCURACY_SIGMOID.predict(row, x)) for row, x in zip(self.accuracy_draws, loss_K, strict=True)]
        )
        beyond = max(0.0, orders)
        quantile = float(stdtrit(self.cuts, 0.5 + self.level / 2))
        # The errors that the back-test saw have the constants' own uncertainty in them: the larger stands for both.
        loss_half = quantile * math.hypot(max(self.drift[0] * beyond, _spread(np.log(loss_K))), self.loss_sd)
        half = quantile * math.hypot(max(self.drift[1] * beyond, _spread(accuracy_K)), self.accuracy_sd)
        reason = self._doubt(half)
        return DownstreamForecast(
            task=self.task, params=params, tokens=tokens, extrapolation_orders=orders,
            task_loss=Interval(estimate=loss, low=loss * math.exp(-loss_half), high=loss * math.exp(loss_half)),
            accuracy=Interval(estimate=accuracy, low=max(0.0, accuracy - half), high=min(1.0, accuracy + half)),
            predictable=reason is None, reason=reason,
        )  # fmt: skip

    def _doubt(self, half: float) -> str | None:
        """Why the accuracy is not to be relied on, if so."""
        if self.signal < _LEAST_SIGNAL:
            return (
                f"the runs' accuracies span {self.signal:.1f} times their scatter around a sigmoid: they are still "
                "guessing, or follow none; fit larger runs, or an easier form of the task"
            )
        if half > _WIDEST_PREDICTABLE:
            drift = 0.0 if self.drift is None else self.drift[1]
            return (
                f"predicting the larger of these runs from the smaller was off by {100 * drift:.1f} points a decade, "
                f"which leaves ±{100 * half:.0f} points here; runs closer to the target would narrow it"
            )
        return None


def fit_downstream(
    runs: TaskRuns,
    *,
    law: LossLaw = CHINCHILLA,
    huber_delta: float = 1e-3,
    bootstrap: int = 400,
    level: float = 0.9,
    seed: int = 0,
) -> DownstreamFit:
    """Both steps through ``runs``, with ``bootstrap`` draws of resampled residuals each, and the back-test.

    Raises :class:`UserError` where the final runs can't carry the law of step 1, with the cure.
    """
    ends = runs.rows(runs.ends)
    refusal = parametric_refusal(ends.params, ends.tokens)
    if refusal is not None:
        raise UserError(f"task {runs.task}: {refusal.reason}")
    chain = _chain(runs, law, huber_delta)
    rng = np.random.default_rng([seed, 5])
    loss_draws = draw(chain.loss, (ends.params, ends.tokens), ends.task_loss, huber_delta, draws=bootstrap, rng=rng)
    points, value = _with_perfect_score(runs)
    run = np.append(np.asarray(runs.run), -1)
    accuracy_draws = draw(
        chain.accuracy, (points,), value, LEAST_SQUARES, draws=bootstrap, rng=rng,
        clusters=run if len(set(run)) < len(run) else None,
    )  # fmt: skip
    accuracy_sd = residual_scale(chain.accuracy.residuals, chain.accuracy.unknowns)
    drifts_J2 = _drifts(runs, law, huber_delta)
    return DownstreamFit(
        task=runs.task,
        law=law,
        loss_theta=chain.loss.theta,
        accuracy_theta=chain.accuracy.theta,
        loss_draws=loss_draws,
        accuracy_draws=accuracy_draws,
        loss_sd=residual_scale(chain.loss.residuals, chain.loss.unknowns),
        accuracy_sd=accuracy_sd,
        drift=tuple(np.sqrt((drifts_J2**2).mean(axis=0)).tolist()) if len(drifts_J2) else None,
        cuts=len(drifts_J2),
        signal=float(np.ptp(ends.accuracy) / max(accuracy_sd, 1e-12)),
        largest_flops=float(runs.flops.max()),
        level=level,
    )


def _spread(draws_K: FloatArray) -> float:
    """Their SD, from the middle two thirds: a few draws land in another basin of the sigmoid."""
    low, high = np.quantile(draws_K, (0.16, 0.84))
    return float(high - low) / 2


def _with_perfect_score(runs: TaskRuns) -> tuple[FloatArray, FloatArray]:
    """Losses and accuracies of all points, and accuracy 1 at no loss."""
    return np.append(runs.task_loss, _NO_LOSS), np.append(runs.accuracy, 1.0)


def _chain(runs: TaskRuns, law: LossLaw, huber_delta: float) -> _Chain:
    ends = runs.rows(runs.ends)
    points, value = _with_perfect_score(runs)
    return _Chain(
        loss=estimate(law, (ends.params, ends.tokens), ends.task_loss, huber_delta),
        accuracy=estimate(ACCURACY_SIGMOID, (points,), value, LEAST_SQUARES),
    )


def _drifts(runs: TaskRuns, law: LossLaw, huber_delta: float) -> FloatArray:
    """For each cut that leaves a law below it, the slopes of the errors above it in decades beyond: (J, 2), of log task
    loss and of accuracy."""
    ends = runs.rows(runs.ends)
    log_flops = np.log10(ends.flops)
    drifts = []
    for share in _CUTS:
        cut = log_flops.min() + share * np.ptp(log_flops)
        below = log_flops < cut
        if below.sum() < _FEWEST_BELOW_A_CUT or parametric_refusal(ends.params[below], ends.tokens[below]) is not None:
            continue
        known = np.isin(np.asarray(runs.run), np.asarray(ends.run)[below])
        chain = _chain(runs.rows(known), law, huber_delta)
        above = ends.rows(~below)
        loss, accuracy = chain.predict(above.params, above.tokens)
        decades = log_flops[~below] - log_flops[below].max()
        errors = np.stack((np.log(loss / above.task_loss), accuracy - above.accuracy))
        drifts.append(errors @ decades / (decades @ decades))
    return np.array(drifts).reshape(-1, 2)
