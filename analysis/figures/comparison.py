"""Recipes side by side: runs and frontiers on one axis of compute, and below what compute each is worth."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.comparison_data import ArmComparison, ComparedArm, Multiplier
from analysis.style import (
    MUTED,
    Role,
    arm_look,
    label_line_ends,
    log_axis,
    loss_label,
    new_figure,
    power_label,
)

__all__ = ["CAPTION", "TITLE", "compute_limits", "draw", "loss_limits", "multiplier_limits", "times_label"]

TITLE = "What each recipe is worth"
CAPTION = (
    "First, the runs of each study (hollow: held out) and the loss it expects of its own compute-optimal runs, solid "
    "where it has runs and dashed beyond. Second, how many times the compute the first study needs for the loss of "
    "another: above 1 the other is better, and where the band spans 1 the runs don't decide. Bands are {level} "
    "intervals; shaded, the compute that all have runs of."
)
_BEYOND = (0, (4, 2))
_FARTHEST = 1000.0
"""Multipliers are not looked for beyond it."""


def times_label(value: float) -> str:
    """0.5x, 2x, 10x, with a true multiplication sign."""
    return f"{value:g}×"


def compute_limits(data: ArmComparison) -> tuple[float, float]:
    flops = np.concatenate([*(arm.runs.flops for arm in data.arms), data.arms[0].frontier.x])
    return float(flops.min()) / 1.4, float(flops.max()) * 1.4


def loss_limits(data: ArmComparison) -> tuple[float, float]:
    """All runs, and the frontiers as far down as their intervals go within reason."""
    runs = np.concatenate([arm.runs.loss for arm in data.arms])
    lines = np.concatenate([arm.frontier.estimate for arm in data.arms])
    lows = np.concatenate([arm.frontier.low[np.isfinite(arm.frontier.low)] for arm in data.arms])
    low = max(float(lows.min(initial=np.inf)), float(min(runs.min(), lines.min())) ** 2 / float(runs.max()))
    low = min(low, float(min(runs.min(), lines.min())))
    high = float(max(runs.max(), lines.max()))
    margin = (high / low) ** 0.05
    return low / margin, high * margin


def multiplier_limits(data: ArmComparison) -> tuple[float, float]:
    """Every estimate and the target's interval, the bands as far as twice that from 1, at least 0.5 to 2."""
    middle = np.concatenate([each.band.estimate for each in data.multipliers])
    ends = [middle[np.isfinite(middle) & (middle > 0)]]
    for each in data.multipliers:
        # Bands have no end where the runs do not decide; what is seen of them is bounded.
        bounds = np.concatenate([each.band.low, each.band.high])
        ends.append(bounds[(bounds > 1 / 30) & (bounds < 30)])
    values = np.concatenate(ends)
    low, high = min(float(values.min(initial=1.0)), 0.5), max(float(values.max(initial=1.0)), 2.0)
    return max(low / 1.15, 1 / _FARTHEST), min(high * 1.15, _FARTHEST)


def draw(data: ArmComparison, width_inches: float) -> Figure:
    """Two panels over one axis of compute."""
    narrow = width_inches < 5
    figure = new_figure(width_inches, width_inches * (1.45 if narrow else 0.85))
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1.35, 1))
    limits = compute_limits(data)
    for axes in (above, below):
        log_axis(axes.xaxis, *limits, power_label)
        axes.axvspan(*data.fitted_flops, color=MUTED, alpha=0.08, linewidth=0, zorder=0)
        if data.target_flops is not None:
            axes.axvline(data.target_flops, color=MUTED, linestyle=":", linewidth=0.8, zorder=1)
    log_axis(above.yaxis, *loss_limits(data), loss_label)
    lowest, highest = multiplier_limits(data)
    log_axis(below.yaxis, lowest, highest, times_label, most=5)
    for index, arm in enumerate(data.arms):
        _arm(above, arm, arm_look(index))
    for index, each in enumerate(data.multipliers):
        _multiplier(below, data, each, arm_look(index + 1), (lowest, highest))
    below.axhline(1, color=MUTED, linewidth=0.8, zorder=1)
    above.set_ylabel(f"held-out loss ({data.unit})")
    below.set_ylabel("compute multiplier")
    below.set_xlabel("training compute C (FLOPs)")
    entries = [_entry(arm, arm_look(index)) for index, arm in enumerate(data.arms)]
    figure.legend(handles=entries, loc="outside upper left", labelcolor=MUTED, ncols=2, borderaxespad=0.1)
    _target_labels(below, data, (lowest, highest))
    return figure


def _entry(arm: ComparedArm, look: Role) -> Line2D:
    name = (arm.name if len(arm.name) < 26 else arm.name[:25] + "…").replace("$", r"\$")
    return Line2D(
        [], [], color=look.colour, marker=look.marker, markeredgecolor="white", markeredgewidth=0.4, label=name
    )


def _arm(axes: Axes, arm: ComparedArm, look: Role) -> None:
    runs, held = arm.runs, arm.runs.held_out
    axes.plot(
        runs.flops[~held], runs.loss[~held], linestyle="", marker=look.marker, color=look.colour, alpha=0.75,
        markeredgecolor="white", markeredgewidth=0.4, zorder=4,
    )  # fmt: skip
    axes.plot(
        runs.flops[held], runs.loss[held], linestyle="", marker=look.marker, color=look.colour, markerfacecolor="none",
        markersize=6, zorder=6,
    )  # fmt: skip
    band = arm.frontier
    axes.fill_between(band.x, band.low, band.high, color=look.colour, alpha=0.16, linewidth=0, zorder=2)
    inside = (band.x >= arm.fitted_flops[0] * 0.999) & (band.x <= arm.fitted_flops[1] * 1.001)
    axes.plot(band.x, band.estimate, color=look.colour, linestyle=_BEYOND, linewidth=0.9, zorder=3)
    axes.plot(band.x[inside], band.estimate[inside], color=look.colour, zorder=5)
    # In grey the marker alone says whose line it is.
    axes.plot(
        band.x[-1:], band.estimate[-1:], linestyle="", marker=look.marker, color=look.colour, markersize=6,
        markeredgecolor="white", markeredgewidth=0.6, zorder=6,
    )  # fmt: skip


def _multiplier(axes: Axes, data: ArmComparison, each: Multiplier, look: Role, limits: tuple[float, float]) -> None:
    band = each.band
    low, high = (np.clip(side, *limits) for side in (band.low, band.high))
    axes.fill_between(band.x, low, high, color=look.colour, alpha=0.16, linewidth=0, zorder=2)
    middle = np.where(np.isfinite(band.estimate), band.estimate, np.nan)
    inside = (band.x >= data.fitted_flops[0] * 0.999) & (band.x <= data.fitted_flops[1] * 1.001)
    axes.plot(band.x, middle, color=look.colour, linestyle=_BEYOND, linewidth=0.9, zorder=3)
    axes.plot(band.x[inside], middle[inside], color=look.colour, zorder=5)
    if each.target is not None:
        told = each.target.compute_multiplier
        ends = np.clip([told.low or 0.0, np.inf if told.high is None else told.high], *limits)
        axes.plot([each.target.flops] * 2, ends, color=look.colour, linewidth=1.2, zorder=6)
        axes.plot(
            [each.target.flops], [told.estimate], linestyle="", marker=look.marker, color=look.colour, markersize=6,
            markeredgecolor="white", markeredgewidth=0.6, zorder=7,
        )  # fmt: skip


def _target_labels(axes: Axes, data: ArmComparison, limits: tuple[float, float]) -> None:
    """The multiplier at the target, or at the last compute, beside its line."""
    ends = []
    for index, each in enumerate(data.multipliers):
        told = each.target.compute_multiplier.estimate if each.target else float(each.band.estimate[-1])
        place = each.target.flops if each.target else float(each.band.x[-1])
        if np.isfinite(told):
            at = float(np.clip(told, *limits))
            ends.append((place, at, f"{told:.2f}×", arm_look(index + 1).colour))
    label_line_ends(axes, ends)
