"""Best hyperparameters, how they grow, and what a wrong guess costs."""

from __future__ import annotations

from analysis.hyperparameter_data import TITLES
from analysis.study_view import StudyView
from analysis.tables.table import Cell, Table, table
from analysis.verdict import loss_interval, percent
from scaling.quantity import format_count, format_interval
from scaling.record import Interval

__all__ = ["hyperparameters"]

_HYPERPARAMETER_COLUMNS = (
    "Hyperparameter", "#Best", "#At", "#Grows with N^", "#With D^", "#Half of it costs", "#Twice", "#Recommended run",
)  # fmt: skip


def hyperparameters(view: StudyView) -> Table:
    """Each best value, how it grows, and the share of the loss that half and twice the best cost."""
    rates, made = view.learning_rates, view.recommendation
    if rates is None:
        return table((), ())
    at_target = made.learning_rate if made else None
    if rates.tuned is None:
        costs = [valley.costs(factor) for _, valley in rates.valleys[-1:] for factor in (0.5, 2.0)] or [None, None]
        slope = rates.exponent
        grows = Interval(
            estimate=-slope.estimate, low=None if slope.high is None else -slope.high,
            high=None if slope.low is None else -slope.low,
        )  # fmt: skip
        rows: list[list[Cell | str]] = [
            ["Peak learning rate", _value(rates.rate_at), f"{format_count(rates.params_at)}", loss_interval(grows), "",
             *map(_cost, costs), _value(at_target)]
        ]  # fmt: skip
        return table(_HYPERPARAMETER_COLUMNS, rows)
    tuned = rates.tuned
    target = tuned.predict(made.params.estimate, made.tokens.estimate) if made else {}
    where = f"{format_count(tuned.params_at)} on {format_count(tuned.tokens_at)}"
    rows = [
        [
            TITLES.get(one.name, one.name).capitalize(), _value(one.at), where, loss_interval(one.params_exponent),
            loss_interval(one.tokens_exponent), _cost(one.half_costs), _cost(one.double_costs),
            _value(target.get(one.name)),
        ]
        for one in tuned.hyperparameters
    ]  # fmt: skip
    return table(_HYPERPARAMETER_COLUMNS, rows)


def _value(interval: Interval | None) -> str:
    """``0.0032 [0.0021, 0.0049]``, or ``8.2k [4.1k, 16k]`` of tokens."""
    if interval is None:
        return ""
    if interval.estimate >= 1000:
        return format_interval(interval)
    bounds = "" if interval.low is None or interval.high is None else f" [{interval.low:.2g}, {interval.high:.2g}]"
    return f"{interval.estimate:.2g}{bounds}"


def _cost(share: float | None) -> str:
    return "" if share is None else percent(share)
