"""A run's account as a page of text: what it costs and takes, what laws say of it, and how it is laid out."""

from __future__ import annotations

import datetime
import textwrap
from collections.abc import Callable

from scaling.cost.energy import regions
from scaling.cost.parallel_plan import layout_line
from scaling.cost.run import RunCost
from scaling.cost.thresholds import thresholds
from scaling.hardware import accelerators
from scaling.quantity import (
    format_count,
    format_duration,
    format_energy,
    format_flops,
    format_interval,
    format_mass,
    format_percent,
    format_power,
    format_usd,
)
from scaling.record import Interval

__all__ = ["listing", "page"]

WIDTH = 100


def page(made: RunCost) -> str:
    """The account, 100 columns wide; every number with its unit, ranges in brackets."""
    parts = [_heading(made), _money(made), _time(made), _power(made), _rules(made), _layout(made), _sources(made)]
    return "\n\n".join(parts)


def _heading(made: RunCost) -> str:
    return (
        f"{format_count(made.params)} parameters on {format_count(made.tokens)} tokens "
        f"({made.tokens / made.params:.3g} a parameter): {format_flops(made.flops)}\n"
        f"on {made.cluster.gpus:,} x {made.cluster.accelerator} at {format_percent(made.cluster.mfu, 0)} of the dense "
        "bf16 peak"
    )


def _money(made: RunCost) -> str:
    cluster, team = made.cluster, made.team
    assert cluster.failures_usd is not None
    price = cluster.price_usd_per_gpu_hour
    span = "as long as the run" if team.days is None else f"{team.days:g} days"
    people = f"{team.people:,} people at {format_usd(team.salary_usd)} a year, {span}"
    storage = (
        f"{made.storage.checkpoints_kept} checkpoints of {_bytes(made.storage.checkpoint_bytes)}, "
        f"tokens {_bytes(made.storage.data_bytes)}"
    )
    rows = [
        ("compute", cluster.usd, f"{format_interval(cluster.gpu_hours)} GPU-hours at ${price.estimate:g}"),
        ("failures", cluster.failures_usd, "what they and checkpoints take of the time"),
        ("storage", made.storage.usd, storage),
        ("salaries", made.salaries_usd, people if team.people else "none counted (--people)"),
        ("total", made.total_usd, ""),
    ]
    return "\n".join(_row(name, _range(value, _dollars), why) for name, value, why in rows)


def _time(made: RunCost) -> str:
    known = made.failures
    lost = Interval(
        estimate=1 - known.goodput.estimate, low=1 - (known.goodput.high or 1), high=1 - (known.goodput.low or 0)
    )
    every = f"one every {format_duration(known.mean_time_between.estimate)}"
    return "\n".join(
        [
            _row("training", _range(made.cluster.days, _days)),
            _row(
                "by the clock", _range(made.wall_days, _days), f"{format_percent(lost)} lost to interruptions, {every}"
            ),
            _row(
                "checkpoint",
                f"every {format_duration(known.checkpoint_every)}",
                f"{format_duration(known.checkpoint_takes)} to write, {format_duration(known.restart_takes)} a restart",
            ),
        ]
    )


def _power(made: RunCost) -> str:
    cluster = made.cluster
    assert cluster.energy_kwh is not None and cluster.tco2e is not None and cluster.site_kw is not None
    lines = [
        _row("site power", format_power(cluster.site_kw), "rated power of the servers times PUE"),
        _row("energy", _range(cluster.energy_kwh, format_energy), "at the site's meter"),
        _row("carbon", _range(cluster.tco2e, format_mass), f"CO2e by the grid of {cluster.region}"),
    ]
    if made.devices_within_cap is not None and made.power_cap_kw is not None:
        most = made.devices_within_cap
        said = "the run is within it"
        if most < cluster.gpus:
            said = f"the run is over it: {most:,} x {cluster.accelerator} are within"
            if most:
                said += f", {_days(made.wall_days.estimate * cluster.gpus / most)} by the clock"
        lines.insert(1, _row("power cap", format_power(made.power_cap_kw), said))
    return "\n".join(lines)


def _rules(made: RunCost) -> str:
    today = datetime.date.today()
    lines = []
    for row in made.crossed:
        lines.append(_row(f"over {_power_of_ten(row.flops)}", f"{row.name} ({row.standing(today)})"))
        lines.append(textwrap.fill(row.duties, WIDTH, initial_indent=" " * 16, subsequent_indent=" " * 16))
    if made.next_threshold is not None:
        row = made.next_threshold
        away = f"{row.flops / made.flops:.3g} times this run's compute"
        lines.append(_row(f"below {_power_of_ten(row.flops)}", row.name, away))
    return "\n".join(lines)


def _power_of_ten(flops: float) -> str:
    return f"{flops:.0e}".replace("e+", "e")


def _layout(made: RunCost) -> str:
    plan = made.cluster.plan
    if plan is None:
        return textwrap.fill(f"  no layout: {made.no_plan}", WIDTH, subsequent_indent="    ")
    held = plan.memory
    gib = 2.0**30
    batch, asked = plan.global_batch_sequences, round(made.global_batch_tokens / made.context)
    lines = [
        _row("layout", layout_line(plan)),
        _row(
            "batch",
            f"{batch:,} sequences" + ("" if batch == asked else f" ({asked:,} asked)"),
            f"{plan.micro_batches:,} micro-batches of {plan.micro_batch_sequences} a replica and step",
        ),
        _row(
            "memory",
            f"{held.total / gib:.3g} of {plan.device_bytes / gib:.3g} GiB",
            f"weights {held.weights / gib:.3g}, gradients {held.gradients / gib:.3g}, optimiser "
            f"{held.optimizer / gib:.3g}, activations {held.activations / gib:.3g}",
        ),
        _row(
            "step",
            format_duration(plan.step_seconds) if plan.step_seconds >= 10 else f"{plan.step_seconds:.2g} s",
            f"{plan.mfu:.0%} of the peak by this model; waiting {plan.bubble:.0%}, messages {plan.communication:.0%}",
        ),
    ]
    least = made.cluster.mfu.low or 0.0
    if plan.why_not:
        lines.append(textwrap.fill(f"! does not fit: {plan.why_not}", WIDTH, subsequent_indent="  "))
    elif plan.mfu < least:
        lines.append(
            textwrap.fill(
                f"! the layout is expected to reach {plan.mfu:.0%} of the peak, and the account counts on {least:.0%} "
                "or more: take fewer devices, a larger batch, or --mfu",
                WIDTH,
                subsequent_indent="  ",
            )
        )
    return "\n".join(lines)


def _sources(made: RunCost) -> str:
    said = f"({made.cluster.source}; failures: {made.failures.source})"
    return textwrap.fill(said, WIDTH, initial_indent="  ", subsequent_indent="   ")


def listing() -> str:
    """Accelerators, regions and thresholds that ``scaling cost`` knows."""
    today = datetime.date.today()
    rows = ["  accelerator  bf16   fp8    fp4  tf32  fp32   GiB  TB/s  link x devices watts  $ an hour"]
    for one in accelerators():
        peaks = "".join(
            f"{'-' if peak is None else format(peak / 1e12, '.5g'):>{columns}}"
            for columns, peak in (
                (6, one.bf16_flops),
                (6, one.fp8_flops),
                (7, one.fp4_flops),
                (6, one.tf32_flops),
                (6, one.fp32_flops),
            )
        )
        price = one.usd_per_hour
        rows.append(
            f"  {one.name:<11}{peaks}{one.memory_gib:>6.4g}{one.bandwidth_tb_s:>6.3g}"
            f"{one.scale_up_gb_s:>6.4g} x {one.scale_up_domain:<6,}{one.watts:>5.4g}"
            f"  {price.estimate:g} [{price.low:g}, {price.high:g}]"
        )
    rows += ["  (dense TFLOP/s; link: GB/s one way among so many devices; watts of the device alone)", ""]
    rows.append("  grid, g CO2e/kWh")
    names = [f"{one.name} {one.g_per_kwh:g} ({one.year})" for one in regions()]
    rows.append(textwrap.fill(" · ".join(names), WIDTH, initial_indent="  ", subsequent_indent="  "))
    rows += ["", "  training compute that laws name"]
    for row in thresholds():
        rows.append(f"  {_power_of_ten(row.flops)}  {row.name:<32} {row.standing(today)}")
        rows.append(textwrap.fill(row.instrument, WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 8))
    return "\n".join(rows)


def _row(name: str, value: str, why: str = "") -> str:
    first = f"  {name:<14}{value:<32}"
    return textwrap.fill(f"{first}  {why}".rstrip(), WIDTH, subsequent_indent=" " * 50)


def _range(value: Interval, written: Callable[[float], str]) -> str:
    if value.low == value.high:
        return written(value.estimate)
    return f"{written(value.estimate)} [{written(value.low or 0)}, {written(value.high or 0)}]"


def _dollars(usd: float) -> str:
    return "under $0.01" if 0 < usd < 0.01 else format_usd(usd)


def _days(days: float) -> str:
    return format_duration(days * 86_400)


def _bytes(size: float) -> str:
    for unit, name in ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size / 1e3:.3g} kB"
