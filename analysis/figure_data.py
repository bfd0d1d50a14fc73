"""What each figure shows, once: Matplotlib, Plotly and the report all draw from these values.

N parameters, D training tokens, C training FLOPs, L held-out loss in nats a token. Arrays are float64; a bound that
does not exist is NaN. Intervals are at the fit's level.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.study_view import StudyView
from scaling.allocation import allocate, preferred_estimator
from scaling.fit import Fit, IsoflopOptimum, ParametricFit
from scaling.laws import get_loss_law
from scaling.prediction import predict
from scaling.published import published_optima
from scaling.record import Interval

__all__ = ["Allocation", "AllocationLine", "Band", "HoldOut", "Isoflop", "IsoflopLine", "LossAgainstCompute",
           "LossCurve", "PredictedActual", "allocation", "isoflop", "loss_against_compute",
           "loss_curves", "predicted_actual"]  # fmt: skip

Floats = NDArray[np.float64]

SHORT_NAMES = {
    "hoffmann": "Hoffmann",
    "besiroglu": "Besiroglu",
    "kaplan": "Kaplan",
    "porian": "Porian",
    "twenty": "D = 20 N",
}
"""Published laws by the names that fit beside a line."""

_LINE_POINTS = 60
_PATH_POINTS = 20
"""A forecast each, along a line that is nearly straight."""
_CURVE_POINTS = 12_000
"""Points that all training curves share, so that a study of 300 runs still fits in a page."""
_MANY_LINES = 12
_SAME_BUDGET = 0.15
"""Runs within this share of an optimum's FLOPs lie on its line."""


@dataclass(frozen=True)
class Band:
    """A line and its interval over ``x``."""

    x: Floats
    estimate: Floats
    low: Floats
    high: Floats

    @classmethod
    def of(cls, x: Floats, intervals: Sequence[Interval]) -> Band:
        """``intervals`` at each of ``x``."""
        columns = ([getattr(each, side) for each in intervals] for side in ("estimate", "low", "high"))
        return cls(x, *(np.array(column, dtype=np.float64) for column in columns))


@dataclass(frozen=True)
class LossCurve:
    run_key: str
    params: float
    flops: Floats
    loss: Floats
    held_out: bool
    """The run was forecast, not fitted."""


@dataclass(frozen=True)
class HoldOut:
    """The forecast point: what was measured, and what was predicted before (None without a registered forecast)."""

    flops: float
    params: float
    losses: Floats
    forecast: Interval | None

    @property
    def loss(self) -> float:
        return float(self.losses.mean())


@dataclass(frozen=True)
class LossAgainstCompute:
    curves: tuple[LossCurve, ...]
    sizes: Floats
    """The distinct N of the runs, rising."""
    params: Floats
    flops: Floats
    loss: Floats
    fitted_flops: tuple[float, float]
    frontier: Band | None
    """The least loss that the fit expects at each C; None where the parametric fit was refused."""
    hold_out: HoldOut | None


@dataclass(frozen=True)
class IsoflopLine:
    optimum: IsoflopOptimum
    params: Floats
    loss: Floats
    curve_params: Floats
    curve_loss: Floats
    """The fitted parabola, over the runs' range of N; empty where there is none."""


@dataclass(frozen=True)
class Isoflop:
    lines: tuple[IsoflopLine, ...]
    path: Band | None
    """L(C) over N*(C) by the parametric law; ``x`` is N*."""


@dataclass(frozen=True)
class AllocationLine:
    """N* and D* against C by one estimator of this study, or by a published law (bands of NaN)."""

    kind: str
    """``parametric``, ``isoflop`` or ``published``."""
    name: str
    params: Band
    tokens: Band


@dataclass(frozen=True)
class Allocation:
    lines: tuple[AllocationLine, ...]
    optima: tuple[IsoflopOptimum, ...]
    """Those of status ok."""
    fitted_flops: tuple[float, float]
    target_flops: float | None
    target_params: Interval | None
    target_tokens: Interval | None


@dataclass(frozen=True)
class PredictedActual:
    """One entry a finished run. ``low`` and ``high`` are the registered forecast's, for hold-out runs alone."""

    params: Floats
    flops: Floats
    actual: Floats
    predicted: Floats
    hold_out: NDArray[np.bool_]
    low: Floats
    high: Floats

    @property
    def relative_error(self) -> Floats:
        """predicted / actual - 1."""
        return self.predicted / self.actual - 1


def loss_against_compute(view: StudyView) -> LossAgainstCompute:
    """Every run's curve and last loss against C, the fitted frontier over them and the hold-out."""
    fitted = view.fitted
    hold_out = _hold_out(view)
    lowest, highest = view.fit.fitted_range.flops
    beyond = 4 * (hold_out.flops if hold_out else highest)
    return LossAgainstCompute(
        curves=_curves(view),
        sizes=np.unique(
            np.concatenate([_column(fitted, view.params_column), _column(view.held_out, view.params_column)])
        ),
        params=_column(fitted, view.params_column),
        flops=_column(fitted, view.flops_column),
        loss=_column(fitted, "loss_nats"),
        fitted_flops=(lowest, highest),
        frontier=_frontier(view, np.geomspace(lowest / 1.5, beyond, _LINE_POINTS)),
        hold_out=hold_out,
    )


def isoflop(view: StudyView) -> Isoflop | None:
    """Loss against N for each budget of the iso-FLOP fit; None where it knows no budget."""
    optima = sorted(view.fit.isoflop.optima, key=lambda optimum: optimum.flops)
    if len(optima) > _MANY_LINES:  # a continuum of compute has budgets of a run or two, which are no lines
        optima = [optimum for optimum in optima if optimum.status != "too few"]
    if not optima:
        return None
    fitted = view.fitted
    flops, params, loss = (_column(fitted, name) for name in (view.flops_column, view.params_column, "loss_nats"))
    lines = []
    for optimum in optima:
        on_line = np.abs(np.log(flops / optimum.flops)) < np.log1p(_SAME_BUDGET)
        order = np.argsort(params[on_line])
        here = params[on_line][order]
        curve: Floats = np.zeros(0)
        curve_loss: Floats = np.zeros(0)
        if optimum.polynomial is not None and here.size:
            curve = np.geomspace(float(here[0]) / 1.1, float(here[-1]) * 1.1, _LINE_POINTS, dtype=np.float64)
            curve_loss = np.asarray(np.polynomial.polynomial.polyval(np.log(curve), optimum.polynomial), np.float64)
        lines.append(IsoflopLine(optimum, here, loss[on_line][order], curve, curve_loss))
    budgets = np.geomspace(optima[0].flops, optima[-1].flops, _PATH_POINTS)
    frontier = _frontier(view, budgets)
    path = None
    if frontier is not None:
        law = get_loss_law(view.fit.parametric.law)
        best, _ = law.optimum(theta_of(view.fit.parametric), budgets, view.fit.flops_per_param_token)
        path = Band(best, frontier.estimate, frontier.low, frontier.high)
    return Isoflop(tuple(lines), path)


def allocation(view: StudyView) -> Allocation | None:
    """N* and D* against C by both estimators and the published laws, out to the target; None if both were refused."""
    lowest, highest = view.fit.fitted_range.flops
    flops = np.geomspace(lowest, max(view.target_flops or highest, highest) * 1.5, _LINE_POINTS)
    lines = [line for line in (parametric_line(view, flops), _isoflop_line(view.fit, flops)) if line is not None]
    if not lines:
        return None
    recommendation = view.recommendation
    return Allocation(
        lines=(*lines, *_published_lines(flops)),
        optima=tuple(o for o in view.fit.isoflop.optima if o.status == "ok" and o.params is not None),
        fitted_flops=(lowest, highest),
        target_flops=view.target_flops,
        target_params=recommendation.params if recommendation else None,
        target_tokens=recommendation.tokens if recommendation else None,
    )


def predicted_actual(view: StudyView) -> PredictedActual | None:
    """The law's loss beside each run's; hold-out runs beside their registered forecast. None if the law was refused."""
    if view.fit.parametric.status != "ok":
        return None
    rows = pd.concat([view.fitted, view.held_out])
    params, flops, actual = (_column(rows, name) for name in (view.params_column, view.flops_column, "loss_nats"))
    law = get_loss_law(view.fit.parametric.law)
    predicted = law.predict(theta_of(view.fit.parametric), params, _column(rows, "tokens"))
    hold_out = (rows["role"] == "hold-out").to_numpy(dtype=bool)
    low, high = np.full(actual.size, np.nan), np.full(actual.size, np.nan)
    if view.forecast is not None:
        loss = view.forecast.loss
        predicted = np.where(hold_out, loss.estimate, predicted)
        low[hold_out], high[hold_out] = _bound(loss.low), _bound(loss.high)
    return PredictedActual(params, flops, actual, predicted, hold_out, low, high)


def _column(rows: pd.DataFrame, name: str) -> Floats:
    return rows[name].to_numpy(dtype=np.float64)


def _bound(value: float | None) -> float:
    return np.nan if value is None else value


def theta_of(fit: ParametricFit) -> Floats:
    """The estimates of the law's constants, in its order."""
    return np.array([fit.parameters[name].estimate for name in get_loss_law(fit.law).NAMES])


def draws_of(fit: ParametricFit) -> Floats:
    """(draws, P) in the law's order; (0, P) where the fit was not resampled."""
    order = [list(fit.parameters).index(name) for name in get_loss_law(fit.law).NAMES]
    return np.array(fit.draws, dtype=np.float64).reshape(-1, len(fit.parameters))[:, order]


def _bounds(draws: Floats, level: float) -> tuple[Floats, Floats]:
    """Quantiles of draws (R, n) over R; NaN without draws."""
    if not len(draws):
        missing = np.full(draws.shape[1], np.nan)
        return missing, missing
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def _frontier(view: StudyView, flops: Floats) -> Band | None:
    """The forecast of the compute-optimal run at each compute, as ``allocate`` would place it."""
    if view.fit.parametric.status != "ok" or view.fit.drift.status != "ok":
        return None
    per_token = view.fit.flops_per_param_token
    if preferred_estimator(view.fit) == "isoflop":
        placed = [allocate(view.fit, float(one), flops_per_token=lambda size: per_token * size).loss for one in flops]
    else:  # the same, in closed form
        placed = [predict(view.fit, flops=float(one)).loss for one in flops]
    losses = [loss for loss in placed if loss is not None]
    return Band.of(flops, losses)


def parametric_line(view: StudyView, flops: Floats) -> AllocationLine | None:
    """N* and D* by the law at each of ``flops``; None where it was refused."""
    parametric = view.fit.parametric
    if parametric.status != "ok":
        return None
    per_token = view.fit.flops_per_param_token
    law = get_loss_law(parametric.law)
    params, tokens = law.optimum(theta_of(parametric), flops, per_token)
    params_draws, tokens_draws = law.optimum(draws_of(parametric), flops, per_token)
    return AllocationLine(
        "parametric",
        "parametric",
        Band(flops, params, *_bounds(params_draws, view.fit.level)),
        Band(flops, tokens, *_bounds(tokens_draws, view.fit.level)),
    )


def _isoflop_line(fit: Fit, flops: Floats) -> AllocationLine | None:
    """N* = k·C^a from the fit's coefficients, and D* likewise; the band of D* mirrors that of N* where C fixes N·D."""
    line = fit.isoflop
    if line.status != "ok" or line.n_coefficient is None or line.n_exponent is None:
        return None
    if line.d_coefficient is None or line.d_exponent is None:
        return None
    params = line.n_coefficient.estimate * flops**line.n_exponent.estimate
    tokens = line.d_coefficient.estimate * flops**line.d_exponent.estimate
    draws = np.array(line.draws, dtype=np.float64).reshape(-1, 2)
    params_draws = np.exp(draws[:, :1] + draws[:, 1:] * np.log(flops))
    low, high = _bounds(params_draws, fit.level)
    return AllocationLine(
        "isoflop",
        "iso-FLOP",
        Band(flops, params, low, high),
        Band(flops, tokens, tokens * params / high, tokens * params / low),
    )


def _published_lines(flops: Floats) -> list[AllocationLine]:
    missing = np.full(flops.size, np.nan)
    found = [published_optima(float(each)) for each in flops]
    lines = []
    for law in zip(*found, strict=True):
        params, tokens = np.array([o.params for o in law]), np.array([o.tokens for o in law])
        name = SHORT_NAMES.get(law[0].key, law[0].name)
        bands = Band(flops, params, missing, missing), Band(flops, tokens, missing, missing)
        lines.append(AllocationLine("published", name, *bands))
    return lines


def _hold_out(view: StudyView) -> HoldOut | None:
    rows = view.held_out
    if rows.empty:
        return None
    # A study may hold out several points; the one of most compute is the forecast's.
    largest = rows[rows[view.flops_column] >= 0.9 * rows[view.flops_column].max()]
    return HoldOut(
        flops=float(largest[view.flops_column].mean()),
        params=float(largest[view.params_column].mean()),
        losses=_column(largest, "loss_nats"),
        forecast=view.forecast.loss if view.forecast else None,
    )


def _curves(view: StudyView) -> tuple[LossCurve, ...]:
    """The curves of the finished runs."""
    rows = view.observations[view.observations["status"] == "finished"].drop_duplicates("run_key")
    params = dict(zip(rows["run_key"].astype(str), _column(rows, view.params_column), strict=True))
    unseen = set(rows.loc[rows["role"] == "hold-out", "run_key"].astype(str))
    return loss_curves(view.curves, params, unseen)


def loss_curves(logged: pd.DataFrame, params: Mapping[str, float], unseen: Collection[str]) -> tuple[LossCurve, ...]:
    """The held-out loss along each run of ``params`` (N by key), or the training loss of runs that have logged none."""
    known = logged[logged["run_key"].isin(list(params)) & (logged["flops"] > 0)]
    known = known.sort_values(["run_key", "flops"], kind="stable")
    flops, held_out, train = (_column(known, name) for name in ("flops", "held_out_loss", "train_loss"))
    keys, starts = np.unique(known["run_key"].to_numpy(dtype=str), return_index=True)
    most = max(12, _CURVE_POINTS // max(len(keys), 1))
    curves = []
    # Slices of arrays: three thousand groups of a table take five seconds.
    for key, start, end in zip(keys, starts, np.append(starts, len(known))[1:], strict=True):
        # A branch has few looks at the held-out set, and its training losses are too jagged to stand in for them.
        measured = held_out[start:end]
        loss = measured if np.isfinite(measured).any() else train[start:end]
        points = np.flatnonzero(np.isfinite(loss))
        points = points[_thin(points.size, most)]
        curves.append(
            LossCurve(
                run_key=str(key),
                params=float(params[str(key)]),
                flops=flops[start:end][points],
                loss=loss[points],
                held_out=str(key) in unseen,
            )
        )
    return tuple(sorted(curves, key=lambda curve: (curve.params, curve.run_key)))


def _thin(count: int, most: int) -> NDArray[np.intp]:
    """At most ``most`` of ``count`` positions, evenly spaced, the first and last among them."""
    if not count:
        return np.zeros(0, np.intp)
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.intp))
