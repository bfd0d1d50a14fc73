"""The report's tables as text: numbers already formatted, each cell with the value that sorting goes by."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.exponents_data import published_exponents
from analysis.hyperparameter_data import TITLES
from analysis.study_view import StudyView
from analysis.verdict import loss_interval, percent, range_text
from scaling.cost.parallel_plan import layout_line
from scaling.fit import Fit
from scaling.quantity import (
    format_count,
    format_duration,
    format_energy,
    format_flops,
    format_interval,
    format_mass,
    format_usd,
)
from scaling.recommendation import Recommendation
from scaling.record import Interval

__all__ = [
    "OPTIMUM_STATUS",
    "Cell",
    "Table",
    "alternatives",
    "back_test",
    "configuration",
    "exponents",
    "hyperparameters",
    "law_constants",
    "minima",
    "outcome_rows",
    "own_exponents",
    "plan",
    "post_training",
    "rejected",
    "runs",
    "table",
]

OPTIMUM_STATUS = {
    "edge": "lowest run at the edge: the minimum lies outside the sizes tried",
    "curvature": "the line has no minimum",
    "too few": "too few runs",
}


@dataclass(frozen=True)
class Cell:
    text: str
    sort: float | str | None = None


@dataclass(frozen=True)
class Table:
    """Column titles starting with ``#`` hold numbers and are set flush right; ``marked`` rows are highlighted."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    marked: frozenset[int] = frozenset()


def table(columns: Sequence[str], rows: Sequence[Sequence[Cell | str]], marked: frozenset[int] = frozenset()) -> Table:
    cells = tuple(tuple(c if isinstance(c, Cell) else Cell(c) for c in row) for row in rows)
    return Table(tuple(columns), cells, marked)


def own_exponents(fit: Fit) -> list[list[str]]:
    """By each estimator its name, a, b, and where they are from, or why it was refused."""
    rows = []
    for name, estimator in (("Parametric law (approach 3)", fit.parametric), ("Iso-FLOP (approach 2)", fit.isoflop)):
        if estimator.status == "ok" and estimator.n_exponent is not None and estimator.d_exponent is not None:
            cells = [loss_interval(estimator.n_exponent, 3), loss_interval(estimator.d_exponent, 3)]
            rows.append([name, *cells, "this study"])
        else:
            rows.append([name, "refused", "refused", estimator.reason or ""])
    return rows


def exponents(fit: Fit) -> Table:
    """a and b of N* ~ C^a and D* ~ C^b by each estimator, and by the published laws."""
    rows = own_exponents(fit)
    rows += [
        [law.name, f"{law.n_exponent:.3f}", f"{1 - law.n_exponent:.3f}", law.citation] for law in published_exponents()
    ]
    return table(("Law", "#N* exponent", "#D* exponent", "Source"), rows)


def law_constants(fit: Fit) -> Table:
    """The parametric law's constants; A and B mean nothing alone."""
    symbols = {"alpha": "α", "beta": "β"}
    rows = [
        [
            symbols.get(name, name),
            f"{i.estimate:.4g}",
            "" if i.low is None else f"{i.low:.4g}",
            "" if i.high is None else f"{i.high:.4g}",
        ]
        for name, i in fit.parametric.parameters.items()
    ]
    return table(("Constant", "#Estimate", "#Low", "#High"), rows)


def minima(fit: Fit) -> Table:
    """The optimum of each budget's line, or why it has none."""
    rows: list[list[Cell | str]] = []
    for optimum in fit.isoflop.optima:
        found = optimum.status == "ok" and optimum.params is not None and optimum.loss is not None
        rows.append(
            [
                Cell(format_flops(optimum.flops), optimum.flops),
                str(optimum.runs),
                format_interval(optimum.params) if found and optimum.params else "none",
                format_interval(optimum.tokens) if found and optimum.tokens else "",
                loss_interval(optimum.loss, 3) if found and optimum.loss else OPTIMUM_STATUS.get(optimum.status, ""),
            ]
        )
    return table(("Budget", "#Runs", "#N*", "#D*", "#Loss"), rows)


def back_test(fit: Fit) -> Table:
    """The largest budgets left out and predicted from those below, by the forecast and by the law alone."""
    rows: list[list[Cell | str]] = [
        [
            Cell(format_flops(cut.largest_fitted_flops), cut.largest_fitted_flops),
            str(cut.fitted),
            f"{10**cut.extrapolation_orders:.1f} times",
            f"{cut.rms_error:.2%}",
            f"{cut.rms_error_plain_law:.2%}",
            f"{cut.inside} of {cut.predicted}",
        ]
        for cut in fit.drift.back_test or ()
    ]
    columns = ("Fitted below", "#Runs", "#Predicted up to", "#rms error", "#The law alone", f"#Inside {fit.level:.0%}")
    return table(columns, rows)


def rejected(fit: Fit) -> Table:
    return table(("#Row", "Reason"), [[str(row.row), row.reason] for row in fit.observations.rejected])


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


_HYPERPARAMETER_COLUMNS = (
    "Hyperparameter", "#Best", "#At", "#Grows with N^", "#With D^", "#Half of it costs", "#Twice", "#Recommended run",
)  # fmt: skip


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


def _row(label: str, interval: Interval | None, text: str | None = None) -> list[Cell | str] | None:
    if interval is None:
        return None
    return [label, text or format_count(interval.estimate), range_text(interval.low, interval.high)]


def configuration(made: Recommendation) -> Table:
    """The recommended run, each quantity with its interval where it has one."""
    shape, rate = made.shape, made.learning_rate
    loss, bits = made.loss, made.bits_per_byte
    heads = f"{shape.heads} ({shape.kv_heads} key-value)" if shape.kv_heads != shape.heads else str(shape.heads)
    rows: list[list[Cell | str] | None] = [
        ["Compute", format_flops(made.flops), ""],
        _row("Parameters", made.params),
        _row("Tokens", made.tokens),
        _row("Tokens per parameter", made.tokens_per_param),
        None if loss is None else ["Expected loss, nats per token", f"{loss.estimate:.3f}", _decimals(loss)],
        None if bits is None else ["Expected bits per byte", f"{bits.estimate:.3f}", _decimals(bits)],
        None if made.flat_region is None else ["Sizes within 0.3% of that loss", range_text(*made.flat_region), ""],
        ["Architecture", f"{shape.architecture}, {shape.layers} layers × {shape.width} wide", ""],
        ["Heads", heads, ""],
        ["Feed-forward width", f"{shape.ffn_width:,}", ""],
        ["Vocabulary", f"{shape.vocabulary:,}{', tied' if shape.tied else ', untied'}", ""],
        ["Context", f"{shape.context:,} tokens", ""],
        ["Peak learning rate", f"{rate.estimate:.2g}", _scientific(rate)],
        ["Batch", f"{format_count(made.global_batch_tokens)} tokens", ""],
        ["Warm-up", f"{format_count(made.warmup_tokens)} tokens", ""],
        ["Cooldown", f"{format_count(made.cooldown_tokens)} tokens", ""],
    ]
    if made.cluster is not None:
        cost = made.cluster
        share = "" if cost.mfu.low is None or cost.mfu.high is None else f"{cost.mfu.low:.0%} to {cost.mfu.high:.0%}"
        rows += [
            ["Cluster", f"{cost.gpus:,} × {cost.accelerator}", ""],
            ["Model FLOPs utilisation", f"{cost.mfu.estimate:.0%}", share],
            ["Time", f"{format_duration(cost.days.estimate * 86400)}", _durations(cost.days)],
            _row("GPU-hours", cost.gpu_hours),
            ["Cost", format_usd(cost.usd.estimate), _dollars(cost.usd)],
        ]
        if cost.energy_kwh is not None and cost.tco2e is not None:
            kwh, tonnes = cost.energy_kwh, cost.tco2e
            rows += [
                ["Energy", format_energy(kwh.estimate), _written(kwh, format_energy)],
                [f"CO2e by the grid of {cost.region}", format_mass(tonnes.estimate), _written(tonnes, format_mass)],
            ]
        if cost.plan is not None:
            rows.append(["Layout", layout_line(cost.plan), ""])
    return table(("Quantity", "Value", f"{made.level:.0%} interval or range"), [row for row in rows if row is not None])


def _decimals(i: Interval) -> str:
    return "" if i.low is None or i.high is None else f"{i.low:.3f} to {i.high:.3f}"


def _scientific(i: Interval) -> str:
    return "" if i.low is None or i.high is None else f"{i.low:.2g} to {i.high:.2g}"


def _durations(days: Interval) -> str:
    if days.low is None or days.high is None:
        return ""
    return f"{format_duration(days.low * 86400)} to {format_duration(days.high * 86400)}"


def _dollars(i: Interval) -> str:
    return _written(i, format_usd)


def _written(i: Interval, as_text: Callable[[float], str]) -> str:
    return "" if i.low is None or i.high is None else f"{as_text(i.low)} to {as_text(i.high)}"


def alternatives(made: Recommendation) -> Table:
    """What published laws would do with the same compute, under this study's fit."""
    rows = [
        [
            a.name,
            format_count(a.params),
            format_count(a.tokens),
            format_count(a.tokens_per_param),
            loss_interval(a.expected_loss) if a.expected_loss else "",
            a.citation,
        ]
        for a in made.alternatives
    ]
    columns = ("Law", "#Parameters", "#Tokens", "#Tokens per parameter", "#Loss by this fit", "Source")
    return table(columns, rows)


def post_training(made: Recommendation) -> Table:
    names = {"sft": "SFT", "reward_model": "Reward model", "dpo": "DPO", "ppo": "PPO"}
    rows = [
        [
            names.get(s.stage, s.stage),
            format_count(s.examples),
            format_count(s.tokens),
            f"{s.learning_rate:.2g}",
            "" if s.gpu_hours is None else format_count(s.gpu_hours),
            "" if s.usd is None else format_usd(s.usd),
            s.basis,
        ]
        for s in made.post_training
    ]
    columns = ("Stage", "#Examples", "#Tokens", "#Learning rate", "#GPU-hours", "#Cost", "Basis")
    return table(columns, rows)


def plan(view: StudyView) -> Table:
    def span(low: float, high: float) -> str:
        return format_count(low) if low == high else f"{format_count(low)} to {format_count(high)}"

    rows = [
        [
            p.label,
            str(p.runs),
            span(*p.params),
            span(*p.tokens),
            format_flops(p.flops),
            "" if p.minutes is None else f"{p.minutes:.1f}",
            p.why,
        ]
        for p in view.plan
    ]
    return table(("Line", "#Runs", "#Parameters", "#Tokens", "#Compute", "#Minutes", "Why"), rows)


def runs(view: StudyView) -> Table:
    """Every run of the observations, hold-outs marked; predicted/actual - 1 is not repeated here."""
    rows: list[list[Cell | str]] = []
    marked = set()
    records = view.observations.sort_values([view.flops_column, view.params_column]).to_dict("records")
    for index, run in enumerate(records):
        if run["role"] == "hold-out":
            marked.add(index)
        numbers = {name: _number(run[name]) for name in (view.params_column, "tokens", view.flops_column, "loss_nats")}
        params, tokens, flops, loss = numbers.values()
        bits, rate, seconds = (_number(run[name]) for name in ("bits_per_byte", "learning_rate", "wall_seconds"))
        rows.append(
            [
                Cell(str(run["run_key"])[:8]),
                Cell(str(run["role"])),
                Cell(format_count(params), params),
                Cell(format_count(tokens), tokens),
                Cell(f"{tokens / params:.3g}", tokens / params),
                Cell(format_flops(flops).removesuffix(" FLOPs"), flops),
                Cell(_fixed(loss, 4), loss),
                Cell(_fixed(bits, 4), bits),
                Cell(f"{rate:.2g}" if np.isfinite(rate) else "", rate),
                Cell(format_duration(seconds) if np.isfinite(seconds) else "", seconds),
                Cell(str(run["status"])),
            ]
        )
    columns = (
        "Run",
        "Role",
        "#Params",
        "#Tokens",
        "#Tok/param",
        "#FLOPs",
        "#Loss",
        "#Bits/byte",
        "#Rate",
        "#Time",
        "Status",
    )
    return table(columns, rows, frozenset(marked))


def _number(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan


def _fixed(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else ""


def outcome_rows(view: StudyView) -> Table | None:
    """The registered forecast beside what was measured; None without a forecast."""
    forecast, outcome = view.forecast, view.outcome
    if forecast is None:
        return None
    rows: list[list[Cell | str]] = [
        [
            "Compute",
            format_flops(forecast.flops),
            f"{forecast.flops / view.fit.fitted_range.flops[1]:.3g} × the largest fitted run",
        ],
        [
            "Parameters",
            f"{format_count(forecast.params.estimate)} on {format_count(forecast.tokens.estimate)} tokens",
            "",
        ],
        ["Predicted loss", loss_interval(forecast.loss, 4), f"{forecast.level:.0%} interval"],
    ]
    if outcome is not None:
        replicates = len(outcome.run_keys)
        spread = "" if outcome.loss_spread is None else f", SD between them {outcome.loss_spread:.4f}"
        rows += [
            [
                "Measured loss",
                f"{outcome.loss:.4f}",
                f"mean of {replicates} runs{spread}" if replicates > 1 else "one run",
            ],
            ["Predicted/actual − 1", percent(outcome.relative_error), "inside" if outcome.inside else "outside"],
        ]
    return table(("Quantity", "Value", "Remark"), rows)
