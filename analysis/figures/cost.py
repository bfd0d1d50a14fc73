"""What a budget buys: the expected loss against FLOPs, GPU-hours and dollars, and the sizes that lose little."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from analysis.cost_data import Cost
from analysis.style import INK, MUTED, count_label, log_axis, log_ticks, loss_label, new_figure, power_label, role
from scaling.quantity import format_usd

__all__ = ["draw", "loss_limits", "params_limits", "step_label"]


def step_label(factor: float, difference: float) -> str:
    """What a factor in the budget buys: 10x: -0.12 nats."""
    return f"{factor:g}×: {difference:+.3f}".replace("-", "−")


def loss_limits(data: Cost) -> tuple[float, float]:
    """The line, and its interval as far as it goes within a third of the line's own losses."""
    middle = data.loss.estimate
    low = max(float(np.nanmin(data.loss.low, initial=np.inf)), 0.6 * float(middle.min()))
    high = min(float(np.nanmax(data.loss.high, initial=0.0)), 1.5 * float(middle.max()))
    low, high = min(low, float(middle.min())), max(high, float(middle.max()))
    margin = (high / low) ** 0.06
    return low / margin, high * margin


def params_limits(data: Cost) -> tuple[float, float]:
    sides = [data.params.estimate, *(side for _, low, high in data.regions[:2] for side in (low, high))]
    if not data.regions:
        sides += [np.clip(side, 0.01 * sides[0], 100 * sides[0]) for side in (data.params.low, data.params.high)]
    values = np.concatenate(sides)
    values = values[np.isfinite(values)]
    return float(values.min()) / 1.3, float(values.max()) * 1.3


def draw(data: Cost, width_inches: float) -> Figure:
    """Two panels over one range of compute; a second axis above tells GPU-hours and dollars."""
    narrow = width_inches < 5
    figure = new_figure(width_inches, width_inches * (1.75 if narrow else 0.56))
    first, second = figure.subplots(2, 1) if narrow else figure.subplots(1, 2)
    span = float(data.loss.x[0]), float(data.loss.x[-1])
    for axes in (first, second):
        log_axis(axes.xaxis, *span, power_label, most=4)
        if data.target_flops is not None:
            axes.axvline(data.target_flops, color=MUTED, linestyle=":", linewidth=0.8, zorder=1)
        axes.set_xlabel("training compute C (FLOPs)")
        _money(axes, data, span)
    _loss(first, data)
    _sizes(second, data)
    return figure


def _money(axes: Axes, data: Cost, span: tuple[float, float]) -> None:
    """Round sums of dollars above the axes, with the GPU-hours that they pay for."""
    hardware = data.hardware
    if hardware is None:
        return
    by_usd = hardware.usd_per_flop > 0
    rate = hardware.usd_per_flop if by_usd else hardware.gpu_hours_per_flop
    above = axes.secondary_xaxis(
        "top", functions=(lambda c: np.asarray(c) * rate, lambda unit: np.asarray(unit) / rate)
    )
    ticks = log_ticks(span[0] * rate, span[1] * rate, most=3)
    hours = [tick / rate * hardware.gpu_hours_per_flop for tick in ticks]
    above.xaxis.set_major_locator(FixedLocator(list(ticks)))
    above.xaxis.set_minor_locator(NullLocator())
    above.set_xticklabels(
        [
            f"{format_usd(tick)}\n{count_label(hour)} h" if by_usd else f"{count_label(hour)} h"
            for tick, hour in zip(ticks, hours, strict=True)
        ],
        linespacing=1.15,
    )
    above.set_xlabel(f"{'dollars and ' if by_usd else ''}GPU-hours, {hardware.accelerator}", fontsize="small")


def _loss(axes: Axes, data: Cost) -> None:
    look, band = role("parametric"), data.loss
    limits = loss_limits(data)
    log_axis(axes.yaxis, *limits, loss_label)
    axes.fill_between(
        band.x, np.clip(band.low, *limits), np.clip(band.high, *limits), color=look.colour, alpha=0.16, linewidth=0,
        zorder=1,
    )  # fmt: skip
    axes.plot(band.x, band.estimate, color=look.colour, zorder=4)
    for step in data.steps:
        right = step.factor < 1
        axes.plot(
            [step.flops], [step.loss], linestyle="", marker="o", color=look.colour, markersize=4,
            markeredgecolor="white", markeredgewidth=0.5, zorder=5,
        )  # fmt: skip
        # Falling lines leave room above them on the right and below them on the left.
        axes.annotate(
            step_label(step.factor, step.difference), (step.flops, step.loss),
            xytext=(-3 if right else 3, -4 if right else 4), textcoords="offset points", color=look.colour,
            fontsize="small", ha="right" if right else "left", va="top" if right else "bottom", zorder=6,
        )  # fmt: skip
    if data.target_flops is not None and data.target_loss is not None:
        _target(axes, data.target_flops, data.target_loss.estimate, data.target_loss.low, data.target_loss.high)
    axes.set_ylabel("expected loss (nats per token)")


def _sizes(axes: Axes, data: Cost) -> None:
    look = role("parametric")
    limits = params_limits(data)
    log_axis(axes.yaxis, *limits, count_label)
    for index, (share, low, high) in reversed(list(enumerate(data.regions))):
        axes.fill_between(
            data.params.x, low, high, color=look.colour, alpha=(0.34, 0.17, 0.09)[index], linewidth=0, zorder=1,
            label=f"within {share:.1%}".replace(".0%", "%") + " of the best loss",
        )  # fmt: skip
    if not data.regions:  # the law levels off too early to say what other sizes lose
        axes.fill_between(
            data.params.x, data.params.low, data.params.high, color=look.colour, alpha=0.16, linewidth=0, zorder=1,
            label=f"its {data.level:.0%} interval",
        )  # fmt: skip
    axes.plot(data.params.x, data.params.estimate, color=look.colour, zorder=4, label="N*")
    if data.target_flops is not None and data.target_params is not None:
        interval = data.target_params
        _target(axes, data.target_flops, interval.estimate, interval.low, interval.high)
    axes.set_ylabel("parameters N")
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(
        handles[::-1], labels[::-1], loc="upper left", labelcolor=MUTED, borderaxespad=0.2, labelspacing=0.3,
        frameon=True, framealpha=0.75, facecolor="white", edgecolor="none",
    )  # fmt: skip


def _target(axes: Axes, flops: float, middle: float, low: float | None, high: float | None) -> None:
    look = role("target")
    if low is not None and high is not None:
        axes.plot([flops, flops], [low, high], color=INK, linewidth=1.1, zorder=6)
    axes.plot(
        [flops], [middle], linestyle="", marker=look.marker, color=look.colour, markersize=5.5, markeredgecolor="white",
        markeredgewidth=0.6, zorder=7,
    )  # fmt: skip
