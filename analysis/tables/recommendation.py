"""The recommended run, the same compute by other laws, and the stages after it."""

from __future__ import annotations

from collections.abc import Callable

from analysis.tables.table import Cell, Table, table
from analysis.verdict import bounds, loss_interval, range_text
from scaling.cost.parallel_plan import layout_line
from scaling.quantity import format_count, format_duration, format_energy, format_flops, format_mass, format_usd
from scaling.recommendation import Recommendation
from scaling.record import Interval

__all__ = ["alternatives", "configuration", "post_training"]


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
        None if loss is None else ["Expected loss, nats per token", f"{loss.estimate:.3f}", bounds(loss, 3)],
        None if bits is None else ["Expected bits per byte", f"{bits.estimate:.3f}", bounds(bits, 3)],
        None if made.flat_region is None else ["Sizes within 0.3% of that loss", range_text(*made.flat_region), ""],
        ["Architecture", f"{shape.architecture}, {shape.layers} layers × {shape.width} wide", ""],
        ["Heads", heads, ""],
        ["Feed-forward width", f"{shape.ffn_width:,}", ""],
        ["Vocabulary", f"{shape.vocabulary:,}{', tied' if shape.tied else ', untied'}", ""],
        ["Context", f"{shape.context:,} tokens", ""],
        ["Peak learning rate", f"{rate.estimate:.2g}", _written(rate, "{:.2g}".format)],
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
            ["Time", _days(cost.days.estimate), _written(cost.days, _days)],
            _row("GPU-hours", cost.gpu_hours),
            ["Cost", format_usd(cost.usd.estimate), _written(cost.usd, format_usd)],
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


def _row(label: str, interval: Interval | None, text: str | None = None) -> list[Cell | str] | None:
    if interval is None:
        return None
    return [label, text or format_count(interval.estimate), range_text(interval.low, interval.high)]


def _days(days: float) -> str:
    return format_duration(days * 86400)


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
