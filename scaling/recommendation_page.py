"""A recommendation as a page of text: the answer first, then what it rests on."""

from __future__ import annotations

import re
import textwrap

from scaling.architectures import total_params
from scaling.cost.mfu import narrowest_measured
from scaling.cost.parallel_plan import layout_line
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
from scaling.recommendation import Recommendation
from scaling.record import Interval
from scaling.risk import Risk
from scaling.shape_by_dollars import PricedShape

__all__ = ["page"]

WIDTH = 100
_LEAST_LOST = 0.0005
"""Share of the time from which failures are worth a line."""


def page(made: Recommendation) -> str:
    """The readable page, 100 columns wide; every number with its unit, every interval in brackets."""
    parts = [
        _heading(made),
        _answer(made),
        _configuration(made),
        _shape_by_dollars(made),
        _cost(made),
        _takes(made),
        _literature(made),
        _rungs(made),
        _sweep(made),
        _stages(made),
    ]
    warnings = [textwrap.fill(f"! {said}", WIDTH, subsequent_indent="  ") for said in made.warnings]
    return "\n\n".join(part for part in [*parts, "\n".join(warnings)] if part)


def _heading(made: Recommendation) -> str:
    name = f"{made.study}: " if made.study else ""
    if made.extrapolation_orders > 0:
        where = f"largest fitted run {format_flops(made.flops / 10**made.extrapolation_orders)}"
    else:
        where = "inside the fitted runs' compute"
    target = made.target
    asked = "" if target is None or target.asked == format_flops(made.flops) else f"{target.asked}: "
    line = textwrap.fill(f"{name}{asked}where to put {format_flops(made.flops)}  ({where})", WIDTH)
    if target is not None and target.interval is not None:
        low, high = (
            ("?" if bound is None else format_flops(bound)) for bound in (target.interval.low, target.interval.high)
        )
        line += f"\n  (between {low} and {high})"
    for held in () if target is None else target.held:
        line += "\n" + textwrap.fill(held, WIDTH, initial_indent="  ", subsequent_indent="  ")
    if made.illustration:
        orders = f"{made.extrapolation_orders:.1f} orders of magnitude beyond the fitted runs"
        return f"ILLUSTRATION, NOT ADVICE: {orders}\n{line}"
    return line


def _answer(made: Recommendation) -> str:
    lines = [
        f"Train {format_interval(made.params)} parameters on {format_interval(made.tokens)} tokens "
        f"({format_interval(made.tokens_per_param)} tokens a parameter)."
    ]
    if made.loss is not None:
        bits = "" if made.bits_per_byte is None else f", {_fixed(made.bits_per_byte, 3)} bits per byte"
        lines.append(f"Expected loss {_fixed(made.loss, 3)} nats a token{bits}.")
    if made.flat_region is not None:
        low, high = made.flat_region
        lines.append(f"Any size from {format_count(low)} to {format_count(high)} costs less than 0.3% of loss.")
    lines += made.reasons
    if made.serving is not None and not made.reasons:
        lines.append(_served(made))
    method = "the parametric law" if made.estimator == "parametric" else "the iso-FLOP lines"
    fitted_to = "" if made.fitted_to is None else f", fitted to {made.fitted_to}"
    lines.append(f"({made.level:.0%} intervals; by {method}{fitted_to})")
    return "\n".join(textwrap.fill(line, WIDTH, subsequent_indent="  ") for line in lines)


def _served(made: Recommendation) -> str:
    served = made.serving
    assert served is not None
    return (
        f"If it will serve {format_count(served.serve_tokens)} tokens: {format_count(served.params.estimate)} "
        f"parameters on {format_count(served.tokens.estimate)} tokens reach the same loss; "
        f"{served.training_flops.estimate / made.flops - 1:+.0%} compute to train, "
        f"{served.saved_share.estimate:.0%} less over its life (--pick serving)."
    )


def _configuration(made: Recommendation) -> str:
    shape, batch = made.shape, made.global_batch_tokens
    grouped = f" ({shape.kv_heads} key-value)" if shape.kv_heads != shape.heads else ""
    tied = "tied head" if shape.tied else "untied head"
    tokens = made.run.tokens if made.run is not None else made.tokens.estimate
    lines = [
        f"{shape.layers} layers x {shape.width}, {shape.heads} heads{grouped}, SwiGLU {shape.ffn_width}, vocabulary "
        f"{shape.vocabulary}, context {shape.context}, {tied}: {format_count(total_params(shape))} parameters",
        f"peak learning rate {_significant(made.learning_rate)} · batch {format_count(batch)} tokens · warm-up "
        f"{made.warmup_tokens // batch:,} steps · cooldown {made.cooldown_tokens / tokens:.0%}",
        *re.split(r"; (?=batch: |warm-up: )", made.hyperparameter_basis),
        *made.decisions,
    ]
    return textwrap.indent("\n".join(textwrap.fill(line, WIDTH - 2, subsequent_indent="    ") for line in lines), "  ")


def _shape_by_dollars(made: Recommendation) -> str:
    """The shape of least dollars and that of least compute, and what their difference is worth."""
    found = made.by_dollars
    if found is None:
        return ""
    ours, other = found.compute_optimal, found.cheapest
    if found.why_same is not None:
        said = f"by dollars it is the same shape: {found.why_same}"
        return textwrap.fill(said, WIDTH, initial_indent="  ", subsequent_indent="    ")
    saved = format_percent(found.saved_share)
    if found.saved_share.low is None:
        below = other.shape.width < narrowest_measured() or ours.shape.width < narrowest_measured()
        saved += (
            f" (under {narrowest_measured():,} wide the MFU is an assumption)" if below else " (measured on A100 alone)"
        )
    more = f"{other.flops / ours.flops - 1:+.1%}".replace("+0.0%", "the same").replace("-0.0%", "the same")
    ratio = " against ".join(f"{one.shape.width / one.shape.layers:.3g}" for one in (other, ours))
    lines = [
        f"by dollars: {_shape_line(other)} on {format_count(other.tokens)} tokens reach the compute-optimal "
        f"{_shape_line(ours)}'s loss for {saved} less, {format_usd(other.usd)} for {format_usd(ours.usd)}: "
        f"{more} FLOPs, {other.mfu:.1%} of the peak for {ours.mfu:.1%}",
        f"width over depth {ratio}: what that does to the loss is known to {found.loss_open:.1%} (2001.08361, figure "
        f"5: within 3% over a factor of 21), and {found.flops_open:.0%} of the compute makes up for so much",
        (
            "settled: the cheapest is what is recommended"
            if found.taken and found.settled
            else "not settled, and taken as asked (--pick dollars)"
            if found.taken
            else "not settled, so the compute-optimal one stands; --pick dollars takes the other"
        ),
    ]
    return textwrap.indent("\n".join(textwrap.fill(line, WIDTH - 2, subsequent_indent="    ") for line in lines), "  ")


def _shape_line(one: PricedShape) -> str:
    return f"{one.shape.layers} layers x {one.shape.width} ({format_count(total_params(one.shape))})"


def _cost(made: Recommendation) -> str:
    cluster = made.cluster
    if cluster is None:
        return ""
    price = cluster.price_usd_per_gpu_hour
    return (
        f"  {cluster.gpus:,} x {cluster.accelerator}: {_days(cluster.days)} at {cluster.mfu.estimate:.0%} of the bf16 "
        f"peak [{cluster.mfu.low:.0%}, {cluster.mfu.high:.0%}]\n"
        f"  {format_interval(cluster.gpu_hours)} GPU-hours · {format_usd(cluster.usd.estimate)} "
        f"[{format_usd(cluster.usd.low or 0)}, {format_usd(cluster.usd.high or 0)}] at ${price.estimate:g} a GPU-hour\n"
        + textwrap.fill(f"  ({cluster.source})", WIDTH, subsequent_indent="   ")
    )


def _takes(made: Recommendation) -> str:
    """What the run takes beside money, and how it is laid out."""
    cluster, lines = made.cluster, []
    if cluster is None:
        return ""
    lost = 0.0 if cluster.goodput is None else 1 - cluster.goodput.estimate
    if cluster.goodput is not None and cluster.failures_usd is not None and lost >= _LEAST_LOST:
        lines.append(
            f"failures and checkpoints take {lost:.1%} of the time: {format_usd(cluster.failures_usd.estimate)} more, "
            f"{format_duration(cluster.days.estimate / cluster.goodput.estimate * 86_400)} by the clock"
        )
    if cluster.energy_kwh is not None and cluster.tco2e is not None:
        power = "" if cluster.site_kw is None else f" · {format_power(cluster.site_kw)} of the site's power"
        lines.append(
            f"{format_energy(cluster.energy_kwh.estimate)} · {format_mass(cluster.tco2e.estimate)} of CO2e by the grid "
            f"of {cluster.region}{power}"
        )
    if cluster.plan is not None:
        plan = cluster.plan
        said = f"{plan.memory.total / 2**30:.3g} of {plan.device_bytes / 2**30:.3g} GiB a GPU"
        lines.append(
            f"layout: {layout_line(plan)}; {said}" + ("" if plan.fits else f"; it does not fit: {plan.why_not}")
        )
    if cluster.thresholds:
        lines.append(f"over the threshold of {'; '.join(cluster.thresholds)}")
    return "\n".join(textwrap.fill(f"  {line}", WIDTH, subsequent_indent="    ") for line in lines)


def _literature(made: Recommendation) -> str:
    if not made.alternatives:
        return ""
    judged = any(other.risk for other in made.alternatives)
    rows = [
        f"  {'the same compute by':<36} {'parameters':>10} {'tokens':>8} {'tokens/param':>12}  "
        f"{'loss by this fit':<20}{'  worse' if judged else ''}".rstrip()
    ]
    rows.append(_row("this fit", made.params.estimate, made.tokens.estimate, made.tokens_per_param.estimate, made.loss))
    rows += [_row(a.name, a.params, a.tokens, a.tokens_per_param, a.expected_loss, a.risk) for a in made.alternatives]
    if judged:
        rows.append("  (worse: the chance that this fit's run ends above that one, if the law holds)")
    return "\n".join(rows)


def _row(name: str, params: float, tokens: float, ratio: float, loss: Interval | None, risk: Risk | None = None) -> str:
    expected = "-" if loss is None else _fixed(loss, 3)
    chance = "" if risk is None else f"  {risk.worse:>5.0%}"
    row = f"  {name:<36} {format_count(params):>10} {format_count(tokens):>8} {ratio:>12.3g}  {expected:<20}{chance}"
    return row.rstrip()


def _rungs(made: Recommendation) -> str:
    """What to train before: each rung is a stop where its loss leaves the interval."""
    if not made.rungs:
        return ""
    total = sum(rung.share for rung in made.rungs)
    rows = [
        f"  first, {len(made.rungs)} rungs ({total:.1%} of its compute); stop where one ends outside its interval",
        f"  {'FLOPs':>8} {'parameters':>10} {'tokens':>8} {'share':>7}   expected loss",
    ]
    for rung in made.rungs:
        expected = "-" if rung.loss is None else _fixed(rung.loss, 3)
        cost, size = format_flops(rung.flops).removesuffix(" FLOPs"), format_count(rung.params)
        rows.append(f"  {cost:>8} {size:>10} {format_count(rung.tokens):>8} {rung.share:>7.2%}   {expected}")
    return "\n".join(rows)


def _sweep(made: Recommendation) -> str:
    """Whether more of the sweep pays, and which runs would tell most."""
    said = []
    if made.sweep is not None:
        whole = made.sweep.sweep_flops + made.sweep.flops
        said.append(
            f"{' '.join(made.sweep.summary().split())} Of sweep and final run together ({format_flops(whole)}) that is "
            f"{made.sweep.stop_at_flops / whole:.2%} for the sweep."
        )
    if made.measure_next:
        said.append("N* is known within a wide interval; these runs would tell most for their compute:")
        said += [f"  {run.summary()}" for run in made.measure_next]
    return "\n".join(textwrap.fill(line, WIDTH, initial_indent="  ", subsequent_indent="    ") for line in said)


def _stages(made: Recommendation) -> str:
    rows = [
        f"  {'then':<14} {'examples':>8} {'tokens':>8} {'lr':>9} {'GPU-hours':>10} {'dollars':>9}   (rules of thumb)"
    ]
    for stage in made.post_training:
        hours = "-" if stage.gpu_hours is None else format_count(stage.gpu_hours)
        dollars = "-" if stage.usd is None else format_usd(stage.usd)
        name = {"sft": "SFT", "reward_model": "reward model", "dpo": "DPO", "ppo": "or PPO"}[stage.stage]
        rows.append(
            f"  {name:<14} {format_count(stage.examples):>8} {format_count(stage.tokens):>8} "
            f"{stage.learning_rate:>9.1e} {hours:>10} {dollars:>9}"
        )
    return "\n".join(rows)


def _fixed(interval: Interval, digits: int) -> str:
    low, high = (("?" if b is None else f"{b:.{digits}f}") for b in (interval.low, interval.high))
    return f"{interval.estimate:.{digits}f} [{low}, {high}]"


def _significant(interval: Interval) -> str:
    low, high = (("?" if b is None else f"{b:.2g}") for b in (interval.low, interval.high))
    return f"{interval.estimate:.2g} [{low}, {high}]"


def _days(days: Interval) -> str:
    low, high = format_duration((days.low or 0) * 86_400), format_duration((days.high or 0) * 86_400)
    return f"{format_duration(days.estimate * 86_400)} [{low}, {high}]"
