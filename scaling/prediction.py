"""From a fit to a forecast that can be checked, and from a forecast to its score.

The loss is forecast by the law and its drift (``scaling.fits.drift``), inside the fitted runs and beyond them; N* and
D* at a compute are the law's own optimum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from scaling import laws
from scaling.errors import UserError
from scaling.fit import DriftFit, Fit
from scaling.fits.bootstrap import interval_of
from scaling.fits.irreducible import levels_off_too_early
from scaling.forecast import Forecast, Outcome
from scaling.laws.law import FloatArray, LossLaw
from scaling.record import Interval

__all__ = ["fitted_law", "predict", "score"]

_SIZES_SEARCHED = 2001


def fitted_law(fit: Fit) -> tuple[LossLaw, FloatArray, FloatArray]:
    """The law, its estimate (P,) and draws (K, P). Raises ``UserError`` if the fit can't predict a loss."""
    if fit.parametric.status != "ok" or fit.drift.status != "ok":
        iso = " (its iso-FLOP lines give N* and D*, but no loss beyond them)" if fit.isoflop.status == "ok" else ""
        raise UserError(f"this fit can't predict a loss{iso}: {fit.parametric.reason or fit.drift.reason}")
    law = laws.get_loss_law(fit.parametric.law)
    estimate = np.array([fit.parametric.parameters[name].estimate for name in law.NAMES])
    return law, estimate, _as_array(fit.parametric.draws).reshape(-1, len(law.NAMES))


@lru_cache(maxsize=4)
def _as_array(draws: tuple[tuple[float, ...], ...]) -> FloatArray:
    """Kept: whoever draws a line of forecasts asks one fit a hundred times, and reading 4,000 draws takes longer."""
    array = np.array(draws, dtype=np.float64)
    array.flags.writeable = False
    return array


def _check(name: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 1):
        raise UserError(f"{name} is {value:g}: it must be a finite number of at least 1, for example 1e9")


def _optimum(
    law: LossLaw,
    theta: FloatArray,
    flops: float,
    flops_per_param_token: float,
    flops_per_token: Callable[[float], float] | None,
) -> tuple[FloatArray, FloatArray]:
    """N* and D* at ``flops`` for theta (..., P): the law's own, or by search where FLOPs a token depend on N."""
    params, tokens = law.optimum(theta, flops, flops_per_param_token)
    if flops_per_token is None:
        return params, tokens
    # The loss is convex in ln N near its minimum; the search spans three factors of ten beyond every draw's 6ND
    # optimum.
    low, high = math.log(float(np.min(params)) / 1e3), math.log(float(np.max(params)) * 1e3)
    sizes_S = np.exp(np.linspace(max(low, 0.0), max(high, 1.0), _SIZES_SEARCHED))
    tokens_S = flops / np.array([flops_per_token(float(size)) for size in sizes_S])
    best = np.argmin(law.predict(theta, sizes_S, tokens_S), axis=-1)
    return sizes_S[best], tokens_S[best]


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
    ``flops_per_token``, training FLOPs a token as a function of N, is given. The loss interval holds what one new run
    will measure: uncertainty of the law, its drift beyond what it describes, and the noise of a run; what the law alone
    would say stands beside it (``loss_if_law_holds``).

    A run's own FLOPs may be given beside its params and tokens; they then say how far outside the fitted runs it lies.

    Raises ``UserError`` unless both of params and tokens, or flops, are given, or if the fit has no law.
    """
    if (params is None) != (tokens is None) or (flops is None and params is None):
        raise UserError("predict needs params and tokens together, or flops alone")
    law, theta, draws = fitted_law(fit)
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
        best_params, best_tokens = (float(value) for value in _optimum(law, theta, flops, factor, flops_per_token))
        params_K, tokens_K = _optimum(law, draws, flops, factor, flops_per_token) if len(draws) else (draws, draws)
        size = interval_of(best_params, params_K, fit.level)
        horizon = interval_of(best_tokens, tokens_K, fit.level)
    told = fit.drift.model.predictive(size.estimate, horizon.estimate)
    by_law = law.predict(draws, size.estimate, horizon.estimate) if len(draws) else np.empty(0)
    tail = (1 - fit.level) / 2
    return Forecast(
        fit_key=fit.key,
        flops=flops,
        params=size,
        tokens=horizon,
        loss=Interval(
            estimate=math.exp(told.mean), low=math.exp(told.quantile(tail)), high=math.exp(told.quantile(1 - tail))
        ),
        loss_if_law_holds=interval_of(float(law.predict(theta, size.estimate, horizon.estimate)), by_law, fit.level),
        level=fit.level,
        extrapolation_orders=max(0.0, math.log10(flops / fit.fitted_range.flops[1])),
        params_convention=fit.params_convention,
        flops_convention=fit.flops_convention,
        assumptions=_assumptions(fit, law, size.estimate, horizon.estimate, flops_per_token is not None),
    )


def _averaging(drift: DriftFit) -> list[str]:
    """Which laws the forecast averages, where there are several."""
    if len(drift.laws) == 1:
        return []
    shares = ", ".join(f"{name} {weight:.0%}" for name, weight in zip(drift.laws, drift.model.weights, strict=True))
    return [f"average: of laws by their evidence on these runs ({shares})"]


def _assumptions(fit: Fit, law: LossLaw, params: float, tokens: float, flops_per_token_given: bool) -> tuple[str, ...]:
    """What the forecast rests on, in words."""
    drift = fit.drift
    flops = "6ND" if fit.flops_convention == "6nd" else f"exact, about {fit.flops_per_param_token:.3g} N D"
    given = "; FLOPs a token as given for the target's shape" if flops_per_token_given else ""
    if "E" not in law.NAMES:
        irreducible = "no irreducible loss"
    elif drift.irreducible is None:
        irreducible = "E free, loosely tied to the lowest loss by published fits"
    else:
        low, high = drift.irreducible
        irreducible = f"E held to {low:.2f} to {high:.2f} nats, what text admits by its bits per byte"
    tau_c, tau_r = drift.model.tau
    lines = [
        f"law: {law.formula}, {irreducible}; exponents with a loose prior from published fits",
        *_averaging(drift),
        f"drift: its reducible part wanders from the law along compute by {tau_c:.3g} and along tokens a parameter by "
        f"{tau_r:.3g} (log loss a decade^1.5); both were learned from these runs and published sweeps",
        f"conventions: N {fit.params_convention}; FLOPs {flops}{given}",
        "recipe: data, tokenizer, schedule and tuning of hyperparameters as in the fitted runs",
    ]
    if levels_off_too_early(fit.parametric, drift):
        lines.append("the law by itself levels off above what text admits, and is not used beyond the runs")
    low, high = fit.fitted_range.tokens_per_param
    if not low <= tokens / params <= high:
        lines.append(
            f"{tokens / params:.3g} tokens a parameter lie outside the fitted runs' {low:.3g} to {high:.3g}: the law "
            "is not measured there"
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
