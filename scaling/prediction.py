"""From a fit to a forecast that can be checked, and from a forecast to its score."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from scaling.errors import UserError
from scaling.fit import Fit
from scaling.fits.bootstrap import interval_of
from scaling.fits.frontier import frontier_log_losses, levels_off_too_early
from scaling.forecast import Forecast, Outcome
from scaling.laws.chinchilla import CHINCHILLA
from scaling.laws.law import FloatArray
from scaling.record import Interval

__all__ = ["predict", "predicted_log_losses", "score"]

_NOISE_QUANTILES = stats.norm.ppf((np.arange(32) + 0.5) / 32)
"""A normal distribution as 32 equally likely values: convolving draws with it needs no random numbers."""
_SIZES_SEARCHED = 2001


def _theta(fit: Fit) -> tuple[FloatArray, FloatArray]:
    """The estimate (5,) and its draws (K, 5). Raises ``UserError`` if the fit has no law to predict a loss with."""
    if fit.parametric.status != "ok":
        iso = " (its iso-FLOP lines give N* and D*, but no loss beyond them)" if fit.isoflop.status == "ok" else ""
        raise UserError(f"this fit can't predict a loss{iso}: {fit.parametric.reason}")
    estimate = np.array([fit.parametric.parameters[name].estimate for name in CHINCHILLA.NAMES])
    return estimate, np.array(fit.parametric.draws, dtype=np.float64).reshape(-1, len(CHINCHILLA.NAMES))


def _check(name: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 1):
        raise UserError(f"{name} is {value:g}: it must be a finite number of at least 1, for example 1e9")


def _optimum(
    theta: FloatArray, flops: float, flops_per_param_token: float, flops_per_token: Callable[[float], float] | None
) -> tuple[FloatArray, FloatArray]:
    """N* and D* at ``flops`` for theta (..., 5): the law's own, or by search where FLOPs a token are a function of
    N."""
    params, tokens = CHINCHILLA.optimum(theta, flops, flops_per_param_token)
    if flops_per_token is None:
        return params, tokens
    # The loss is convex in ln N near its minimum; the search spans three factors of ten beyond every draw's 6ND
    # optimum.
    low, high = math.log(float(np.min(params)) / 1e3), math.log(float(np.max(params)) * 1e3)
    sizes_S = np.exp(np.linspace(max(low, 0.0), max(high, 1.0), _SIZES_SEARCHED))
    tokens_S = flops / np.array([flops_per_token(float(size)) for size in sizes_S])
    best = np.argmin(CHINCHILLA.predict(theta, sizes_S, tokens_S), axis=-1)
    return sizes_S[best], tokens_S[best]


def predicted_log_losses(fit: Fit, draws: FloatArray, params: float, tokens: float, orders: float) -> FloatArray:
    """The predictive distribution of ln loss of one run, as equally likely values (32 K,).

    Each draw (K, 5) of the law is spread by a normal whose variance is that of a run around the law plus
    (model_sd_per_decade · decades of extrapolation)².
    """
    centre_K = np.log(CHINCHILLA.predict(draws, params, tokens))
    spread = math.hypot(fit.parametric.residual_sd or 0.0, (fit.parametric.model_sd_per_decade or 0.0) * orders)
    return np.asarray((centre_K[:, None] + spread * _NOISE_QUANTILES).ravel())


def predict(
    fit: Fit,
    *,
    params: float | None = None,
    tokens: float | None = None,
    flops: float | None = None,
    flops_per_token: Callable[[float], float] | None = None,
) -> Forecast:
    """The loss of a run of ``params`` and ``tokens``, or of the compute-optimal run at ``flops``.

    Given FLOPs, N* and D* are the law's optimum and carry intervals; the loss is that of a run at the estimated N*
    and D*. FLOPs are c·N·D with the fit's own c (6 under 6nd; under exact, the median of the fitted runs), unless
    ``flops_per_token``, training FLOPs a token as a function of N, is given. Loss intervals hold what one new run
    will measure: uncertainty of the law, scatter of runs, and the back-tested drift of the law with each decade.

    A run's own FLOPs may be given beside its params and tokens; they then say how far outside the fitted runs it lies.

    Raises ``UserError`` unless both of params and tokens, or flops, are given, or if the fit has no law.
    """
    if (params is None) != (tokens is None) or (flops is None and params is None):
        raise UserError("predict needs params and tokens together, or flops alone")
    theta, draws = _theta(fit)
    factor = fit.flops_per_param_token
    if params is not None and tokens is not None:
        _check("params", params)
        _check("tokens", tokens)
        if flops is None:
            flops = tokens * (flops_per_token(params) if flops_per_token else factor * params)
        _check("flops", flops)
        size, horizon = Interval(estimate=params, low=None, high=None), Interval(estimate=tokens, low=None, high=None)
    else:
        assert flops is not None
        _check("flops", flops)
        best_params, best_tokens = (float(value) for value in _optimum(theta, flops, factor, flops_per_token))
        params_K, tokens_K = _optimum(draws, flops, factor, flops_per_token) if len(draws) else (draws, draws)
        size = interval_of(best_params, params_K, fit.level)
        horizon = interval_of(best_tokens, tokens_K, fit.level)
    orders = max(0.0, math.log10(flops / fit.fitted_range.flops[1]))
    loss = float(CHINCHILLA.predict(theta, size.estimate, horizon.estimate))
    spread = np.empty(0)
    if orders > 0 and levels_off_too_early(fit.parametric, fit.frontier) and len(draws):
        best = _optimum(theta, flops, factor, flops_per_token)
        off_optimum = max(0.0, math.log(loss / float(CHINCHILLA.predict(theta, *best))))
        level_K = frontier_log_losses(fit.frontier, flops) + off_optimum
        loss = math.exp(float(np.median(level_K)))
        drift = math.hypot(fit.parametric.residual_sd or 0.0, (fit.frontier.model_sd_per_decade or 0.0) * orders)
        spread = np.exp((level_K[:, None] + drift * _NOISE_QUANTILES).ravel())
    elif len(draws):
        spread = np.exp(predicted_log_losses(fit, draws, size.estimate, horizon.estimate, orders))
    return Forecast(
        fit_key=fit.key,
        flops=flops,
        params=size,
        tokens=horizon,
        loss=interval_of(loss, spread, fit.level),
        level=fit.level,
        extrapolation_orders=orders,
        params_convention=fit.params_convention,
        flops_convention=fit.flops_convention,
        assumptions=_assumptions(fit, orders, flops_per_token is not None),
    )


def _assumptions(fit: Fit, orders: float, flops_per_token_given: bool) -> tuple[str, ...]:
    """What the forecast rests on, in words."""
    parametric, frontier = fit.parametric, fit.frontier
    flops = "6ND" if fit.flops_convention == "6nd" else f"exact, about {fit.flops_per_param_token:.3g} N D"
    given = "; FLOPs a token as given for the target's shape" if flops_per_token_given else ""
    law = "law: L = E + A N^-alpha + B D^-beta with E free, the same law beyond the fitted runs as within them"
    by_frontier = orders > 0 and levels_off_too_early(parametric, frontier)
    if by_frontier and frontier.irreducible is not None:
        low, high = frontier.irreducible
        law = (
            f"law: L* = E + k C^-gamma through the iso-FLOP minima, E anywhere from {low:.2f} to {high:.2f} nats; what "
            "being off the optimum costs by L = E + A N^-alpha + B D^-beta, whose own E is implausibly high"
        )
    lines = [
        law,
        f"estimator: sum of Huber terms on log loss, delta {parametric.huber_delta:g}, {fit.observations.used} runs",
        f"conventions: N {fit.params_convention}; FLOPs {flops}{given}",
        "recipe: data, tokenizer, schedule and tuning of hyperparameters as in the fitted runs",
    ]
    if parametric.draws:
        drift = frontier.model_sd_per_decade if by_frontier else parametric.model_sd_per_decade
        lines.append(
            f"interval: {len(parametric.draws)} bootstrap draws, runs' scatter of {parametric.residual_sd or 0:.2%} "
            f"and {drift or 0:.2%} a decade over {orders:.2f} decades of extrapolation"
        )
    return tuple(lines)


def score(forecast: Forecast, losses: Sequence[float], run_keys: Sequence[str]) -> Outcome:
    """The forecast beside the measured ``losses`` of one or more replicates (nats a token), by their mean.

    ``relative_error`` is predicted / actual − 1. Raises ``UserError`` without a finite loss above zero for each run.
    """
    if not losses or len(losses) != len(run_keys):
        raise UserError(f"score has {len(losses)} losses for {len(run_keys)} runs: give one loss a run, at least one")
    for loss, run_key in zip(losses, run_keys, strict=True):
        if not (math.isfinite(loss) and loss > 0):
            raise UserError(f"the loss of run {run_key} is {loss}: a forecast is scored against finished runs only")
    mean = float(np.mean(losses))
    low, high = forecast.loss.low, forecast.loss.high
    return Outcome(
        forecast_key=forecast.key,
        run_keys=tuple(run_keys),
        loss=mean,
        loss_spread=float(np.std(losses, ddof=1)) if len(losses) > 1 else None,
        relative_error=forecast.loss.estimate / mean - 1,
        inside=low is not None and high is not None and low <= mean <= high,
    )
