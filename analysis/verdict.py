"""A study in sentences: what it recommends, and how good its forecast was."""

from __future__ import annotations

from typing import Literal

from analysis.study_view import StudyView
from scaling.fit import Fit
from scaling.quantity import format_count, format_flops, format_interval
from scaling.record import Interval

__all__ = [
    "bounds",
    "forecast_sentence",
    "larger_runs_sentence",
    "loss_interval",
    "percent",
    "range_text",
    "status",
    "verdict",
]


def loss_interval(interval: Interval, digits: int = 2) -> str:
    """``4.34 [4.27, 4.41]``."""
    if interval.low is None or interval.high is None:
        return f"{interval.estimate:.{digits}f}"
    return f"{interval.estimate:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def bounds(interval: Interval, digits: int = 2) -> str:
    """``4.27 to 4.41``; empty where a bound is missing."""
    if interval.low is None or interval.high is None:
        return ""
    return f"{interval.low:.{digits}f} to {interval.high:.{digits}f}"


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


def larger_runs_sentence(view: StudyView) -> str | None:
    """What was forecast of the largest registered run and what it measured, and how many of the rungs below it held;
    None where no larger run was forecast in a way that can be believed."""
    # Of a run that was forecast twice, the newer.
    runs = list({run.run_key: run for run in view.larger if not run.problems}.values())
    if not runs:
        return None
    largest = runs[-1]
    forecast, outcome = largest.forecast, largest.outcome
    named = "The large run" if largest.stage == "final" else "The largest rung"
    said = f"{named}, at {10**forecast.extrapolation_orders:.2g} times what its forecast rests on, was forecast "
    said += f"{loss_interval(forecast.loss, 3)} nats before it started"
    if outcome is None:
        said += f"; it has {largest.without_outcome}."
    else:
        where = "inside" if outcome.inside else "outside"
        said += f" and measured {outcome.loss:.3f}, {where} the {forecast.level:.0%} interval "
        said += f"(predicted/actual − 1 = {percent(outcome.relative_error)})."
    scored = [run.outcome for run in runs[:-1] if run.outcome is not None]
    if len(scored) == 1:
        said += f" The run below it ended {'inside' if scored[0].inside else 'outside'}."
    elif scored:
        held = sum(each.inside for each in scored)
        said += f" Of the {len(scored)} runs below it {held or 'none'} ended inside."
    return said
