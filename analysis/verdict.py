"""A study in sentences: what it recommends, and how good its forecast was."""

from __future__ import annotations

from typing import Literal

from analysis.study_view import StudyView
from scaling.fit import Fit
from scaling.quantity import format_count, format_flops, format_interval
from scaling.record import Interval

__all__ = ["forecast_sentence", "loss_interval", "percent", "range_text", "status", "verdict"]


def loss_interval(interval: Interval, digits: int = 2) -> str:
    """``4.34 [4.27, 4.41]``."""
    if interval.low is None or interval.high is None:
        return f"{interval.estimate:.{digits}f}"
    return f"{interval.estimate:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def range_text(low: float | None, high: float | None) -> str:
    """``2.1B to 29B``; empty where a bound is missing."""
    return "" if low is None or high is None else f"{format_count(low)} to {format_count(high)}"


def percent(share: float, digits: int = 2) -> str:
    """``+0.17%`` with a true minus sign."""
    return f"{share:+.{digits}%}".replace("-", "−")


def verdict(view: StudyView) -> str:
    """The answer with its interval in one sentence; without a recommendation, the exponent that was measured."""
    if view.verdict is not None:
        return view.verdict
    made = view.recommendation
    if made is None:
        return _exponent_sentence(view.fit)
    loss = f", for a loss of {loss_interval(made.loss)} nats per token" if made.loss is not None else ""
    return (
        f"With {format_flops(made.flops)}, train {format_interval(made.params)} parameters on "
        f"{format_interval(made.tokens)} tokens{loss}."
    )


def status(view: StudyView) -> Literal["advice", "illustration", "exponents", "refused"]:
    """How much the verdict is worth, in a word."""
    if view.recommendation is not None:
        return "illustration" if view.recommendation.illustration else "advice"
    found = any(part.status == "ok" for part in (view.fit.parametric, view.fit.isoflop))
    return "exponents" if found else "refused"


def _exponent_sentence(fit: Fit) -> str:
    for estimator, words in ((fit.parametric, "the parametric law"), (fit.isoflop, "the iso-FLOP lines")):
        if estimator.status == "ok" and estimator.n_exponent is not None:
            return f"By {words}, the optimal number of parameters grows as C^{loss_interval(estimator.n_exponent)}."
    return "These runs can't say where compute should go: both estimators were refused."


def forecast_sentence(view: StudyView) -> str | None:
    """The forecast beside its outcome in a sentence; None without a forecast."""
    forecast, outcome = view.forecast, view.outcome
    if forecast is None:
        return None
    beyond = forecast.flops / view.fit.fitted_range.flops[1]
    said = f"A forecast registered before its run, at {beyond:.2g} times the largest fitted compute, said {{}} nats"
    if outcome is None:
        return said.format(loss_interval(forecast.loss, 3)) + "; its run has not finished."
    where = "inside" if outcome.inside else "outside"
    return (
        said.format(loss_interval(forecast.loss, 3)) + f"; the run measured {outcome.loss:.3f}, "
        f"{where} the {forecast.level:.0%} interval (predicted/actual − 1 = {percent(outcome.relative_error)})."
    )
