"""Any law through any columns: a loss in compute, a top-1 error in loss, a loss under repetition.

``fit_table`` fits a table of training runs by several estimators and knows what a run is. Here a law and the columns it
is a function of are all there is, with the same objective, starts and resampling:

    minimise over the law's constants   Σ_i Huber_δ(response(y_i) − response(law(x_i))),  response ln y or y

Shapes: n points, V inputs, P constants, K draws, S the shape asked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import ndtri

from scaling import laws
from scaling.errors import UserError
from scaling.fit import Diagnostic, LawFit
from scaling.fits.bootstrap import Resampling, check_intervals, interval_of, residual_scale, stored_draws
from scaling.fits.estimate import LEAST_SQUARES, Estimate, draw, estimate
from scaling.laws.law import FloatArray, Law
from scaling.laws.residual_scale import on_value
from scaling.laws.schedule import ScheduleLaw
from scaling.record import Interval

__all__ = ["Band", "fit_law", "predict_law"]

_WEAK = 10.0
"""A positive constant whose interval spans more than this factor is called weakly identified."""
_NOISE_QUANTILES = ndtri((np.arange(32) + 0.5) / 32)
"""A normal distribution as 32 equally likely values: convolving draws with it needs no random numbers."""


class Band(NamedTuple):
    """A curve and its interval, each of the shape of the inputs; bounds are NaN for a fit without resamples."""

    estimate: FloatArray
    low: FloatArray
    high: FloatArray


def fit_law(
    law: str | Law,
    data: pd.DataFrame | Mapping[str, ArrayLike],
    *,
    value: str,
    columns: Mapping[str, str] | None = None,
    fixed: Mapping[str, float] | None = None,
    residuals: Literal["log", "value"] | None = None,
    huber_delta: float = 1e-3,
    bootstrap: int = 1000,
    resample: Resampling = "residuals",
    clusters: ArrayLike | None = None,
    level: float = 0.9,
    seed: int = 0,
) -> LawFit:
    """Fit ``law`` (or the law of that name) to the column ``value`` of ``data`` and the columns of the law's inputs.

    ``columns`` says which column each input is (``{"x": "flops"}``); by default they have the same name. ``fixed``
    holds constants at a value. Residuals are of the logarithm of the value or of the value itself, by default as the
    law has them; ``huber_delta`` is where they count linearly, in their units; ``math.inf`` means least squares (the
    objective is then half the sum of squares). Intervals at ``level`` come from ``bootstrap`` refits with residuals
    resampled, or with ``resample="points"`` of rows drawn anew; rows of one of the ``clusters`` (n,) share noise, or
    are drawn together. With few clusters, as the seeds of an experiment, ``resample="jackknife"`` draws from Student's
    t by how much each cluster moves the fit.

    The same rows give the same fit in whatever order they stand. Raises :class:`UserError` for an unknown law, column
    or constant, values that are not finite (and above zero where a logarithm is taken), or no more rows than constants.
    """
    law = laws.get(law) if isinstance(law, str) else law
    if isinstance(law, ScheduleLaw):
        raise UserError(f"law {law.name!r} is of a whole learning-rate schedule: fit it with fit_loss_curves")
    if residuals == "log" and law.response != "log":
        raise UserError(f"residuals of {law.name} can't be of logarithms: it is not positive everywhere; use 'value'")
    fitted = on_value(law) if residuals == "value" else law
    held = _checked(law, fixed or {}, huber_delta, bootstrap, level)
    inputs, values = _arrays(fitted, data, value, columns or {})
    unknowns = len(law.parameters) - len(held)
    if len(values) <= unknowns:
        raise UserError(
            f"{len(values)} rows can't carry the {unknowns} constants of {law.name}: give more, or hold some with fixed"
        )
    order = np.lexsort((values, *reversed(inputs)))
    inputs, values = tuple(column[order] for column in inputs), values[order]
    groups = None if clusters is None else np.asarray(clusters)[order]
    delta = huber_delta
    if math.isinf(delta):
        delta = LEAST_SQUARES * max(1.0, float(np.abs(fitted.to_response(values)).max()))
    found = estimate(fitted, inputs, values, delta, fixed=held)
    draws_KP = np.empty((0, len(law.parameters)))
    if bootstrap:
        rng = np.random.default_rng([seed, 5])
        draws_KP = draw(found, inputs, values, delta, draws=bootstrap, rng=rng, method=resample, clusters=groups)
    parameters = {name: interval_of(float(found.theta[i]), draws_KP[:, i], level) for i, name in enumerate(law.NAMES)}
    return LawFit(
        law=law.name,
        value=value,
        residuals="log" if fitted.response == "log" else "value",
        parameters=parameters,
        fixed=tuple(held),
        objective=found.objective,
        huber_delta=None if math.isinf(huber_delta) else huber_delta,
        residual_sd=residual_scale(found.residuals, found.unknowns),
        rows=len(values),
        fitted_range={
            name: (float(column.min()), float(column.max())) for name, column in zip(law.inputs, inputs, strict=True)
        },
        draws=stored_draws(draws_KP),
        level=level,
        bootstrap=bootstrap,
        diagnostics=_diagnostics(law, found, parameters),
    )


def predict_law(fit: LawFit, *inputs: ArrayLike, law: Law | None = None, scatter: bool = True) -> Band:
    """See :meth:`scaling.fit.LawFit.predict`."""
    law = law or laws.get(fit.law)
    if len(inputs) != len(law.inputs):
        raise UserError(f"predict was given {len(inputs)} inputs: {law.name} is of {', '.join(law.inputs)}")
    arrays = tuple(np.asarray(column, dtype=np.float64) for column in inputs)
    for name, column in zip(law.inputs, arrays, strict=True):
        if not (np.isfinite(column).all() and (column > 0).all()):
            raise UserError(f"predict was given {name} {column}: every input of a law is a number above zero")
    estimate_S = law.predict([fit.parameters[name].estimate for name in law.NAMES], *arrays)
    if not fit.draws:
        nothing = np.full_like(estimate_S, np.nan)
        return Band(estimate_S, nothing, nothing)
    value_KS = law.predict(np.array(fit.draws), *arrays)
    in_logs = fit.residuals == "log"
    response_KS = np.log(value_KS) if in_logs else value_KS
    if scatter:
        response_KS = np.concatenate([response_KS + fit.residual_sd * quantile for quantile in _NOISE_QUANTILES])
    low_S, high_S = np.quantile(response_KS, [(1 - fit.level) / 2, (1 + fit.level) / 2], axis=0)
    if in_logs:
        low_S, high_S = np.exp(low_S), np.exp(high_S)
    return Band(estimate_S, np.minimum(low_S, estimate_S), np.maximum(high_S, estimate_S))


def _checked(
    law: Law, fixed: Mapping[str, float], huber_delta: float, bootstrap: int, level: float
) -> dict[str, float]:
    """``fixed`` in the order of the law's constants, with every option in range."""
    for name, held in fixed.items():
        if name not in law.NAMES:
            raise UserError(f"fixed has {name!r}: the constants of {law.name} are {', '.join(law.NAMES)}")
        positive = next(parameter.log for parameter in law.parameters if parameter.name == name)
        if not math.isfinite(held) or (positive and held < 0):
            raise UserError(f"fixed has {name} {held}: it is a finite number{', not below zero' if positive else ''}")
    if len(fixed) == len(law.parameters):
        raise UserError(f"fixed holds every constant of {law.name}: leave at least one to be fitted")
    if not huber_delta > 0:
        raise UserError(f"huber_delta is {huber_delta}: it is above zero, usually 0.001, or infinite for least squares")
    check_intervals(bootstrap, level)
    return {name: float(fixed[name]) for name in law.NAMES if name in fixed}


def _arrays(
    law: Law, data: pd.DataFrame | Mapping[str, ArrayLike], value: str, columns: Mapping[str, str]
) -> tuple[tuple[FloatArray, ...], FloatArray]:
    """The law's inputs and the values, (n,) each, checked; rows count from 1."""
    for ours in columns:
        if ours not in law.inputs:
            raise UserError(f"columns has {ours!r}: the inputs of {law.name} are {', '.join(law.inputs)}")
    found: list[FloatArray] = []
    for ours in (*law.inputs, value):
        theirs = columns.get(ours, ours)
        if theirs not in data:
            there = ", ".join(map(str, data)) or "none"
            raise UserError(
                f"data has no column {theirs!r}: {law.name} is of {', '.join(law.inputs)} (the columns are {there}; "
                f"say which is which with columns={{{ours!r}: ...}})"
            )
        try:
            column = np.asarray(data[theirs], dtype=np.float64)
        except (TypeError, ValueError):
            raise UserError(f"column {theirs!r} holds something that is not a number") from None
        if column.ndim != 1 or (found and len(column) != len(found[0])):
            raise UserError(f"column {theirs!r} has shape {column.shape}: columns are of one dimension and one length")
        positive = ours != value or law.response == "log"
        bad = ~np.isfinite(column) | ((column <= 0) if positive else False)
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            wanted = "a number above zero" if positive else "a finite number"
            raise UserError(f"row {row + 1}: {theirs} is {column[row]:g}; it must be {wanted}")
        if len(column) > 1 and np.ptp(column) == 0:
            raise UserError(f"column {theirs!r} is {column[0]:g} in every row: nothing can be fitted to it")
        found.append(column)
    return tuple(found[:-1]), found[-1]


def _diagnostics(law: Law, found: Estimate, parameters: Mapping[str, Interval]) -> tuple[Diagnostic, ...]:
    notes = []
    if found.at_bound:
        message = (
            f"{', '.join(found.at_bound)} at the edge of what is searched: these rows do not show that part of the law"
        )
        notes.append(Diagnostic(severity="warning", code="at-bound", message=message))
    weak = [
        f"{name} is anywhere from {low:.3g} to {high:.3g}"
        for name, low, high in (
            (parameter.name, parameters[parameter.name].low, parameters[parameter.name].high)
            for parameter in law.parameters
            if parameter.log and parameter.name not in law.scales
        )
        if low is not None and high is not None and high > _WEAK * low
    ]
    if weak:
        message = f"weakly identified: {'; '.join(weak)}; trust predictions within the rows, not these constants"
        notes.append(Diagnostic(severity="warning", code="weak-constant", message=message))
    if len(found.alternatives):
        other = found.theta_of(found.alternatives[0])
        constants = ", ".join(f"{name} {constant:.4g}" for name, constant in zip(law.NAMES, other, strict=True))
        message = f"another optimum fits within 1% as well ({constants})"
        notes.append(Diagnostic(severity="warning", code="second-optimum", message=message))
    return tuple(notes)
