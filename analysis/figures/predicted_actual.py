"""Predicted against actual loss, and the relative error against compute; the hold-out with its registered interval."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analysis.figure_data import PredictedActual
from analysis.style import (
    MARKERS,
    MUTED,
    log_axis,
    loss_label,
    new_figure,
    ordered_colours,
    percent_axis,
    power_label,
    role,
)

__all__ = ["draw"]

Floats = NDArray[np.float64]


def draw(data: PredictedActual, width_inches: float) -> Figure:
    """Left (above, in a column) predicted against actual; right predicted/actual - 1 in percent against C."""
    narrow = width_inches < 5
    figure = new_figure(width_inches, width_inches * (1.6 if narrow else 0.47))
    left, right = (
        figure.subplots(2, 1, height_ratios=(1.35, 1)) if narrow else figure.subplots(1, 2, width_ratios=(1, 1.2))
    )
    _scatter(left, data)
    _errors(right, data)
    return figure


def _scatter(axes: Axes, data: PredictedActual) -> None:
    values = np.concatenate([data.actual, data.predicted, data.low, data.high])
    values = values[np.isfinite(values)]
    low, high = float(values.min()), float(values.max())
    margin = (high / low) ** 0.06
    limits = (low / margin, high * margin)
    log_axis(axes.xaxis, *limits, loss_label, most=5)
    log_axis(axes.yaxis, *limits, loss_label, most=5)
    axes.set_aspect("equal", adjustable="box")
    axes.plot(limits, limits, color=MUTED, linewidth=0.8, zorder=1)
    # At the upper end: the hold-out has the lowest loss and its intervals stand at the lower one.
    axes.annotate(
        "predicted = actual", (limits[1], limits[1]), xytext=(-3, -20), textcoords="offset points", rotation=45,
        rotation_mode="anchor", fontsize="small", color=MUTED, ha="right", va="center",
    )  # fmt: skip
    _fitted(axes, data.actual, data.predicted, data)
    look = role("hold-out")
    held = data.hold_out
    if held.any():
        axes.vlines(data.actual[held], data.low[held], data.high[held], color=look.colour, linewidth=1.2, zorder=4)
        axes.plot(
            data.actual[held], data.predicted[held], linestyle="", marker=look.marker, color=look.colour, markersize=9,
            markeredgecolor="white", markeredgewidth=0.5, zorder=5,
        )  # fmt: skip
        first = int(np.flatnonzero(held)[0])
        axes.annotate(
            "hold-out", (data.actual[first], data.predicted[first]), xytext=(8, -3), textcoords="offset points",
            color=look.colour, va="top", fontsize="small",
        )  # fmt: skip
    axes.set_xlabel("actual loss (nats per token)")
    axes.set_ylabel("predicted loss (nats per token)")


def _errors(axes: Axes, data: PredictedActual) -> None:
    percent = 100 * data.relative_error
    log_axis(axes.xaxis, float(data.flops.min()) / 1.5, float(data.flops.max()) * 1.8, power_label, most=5)
    axes.axhline(0, color=MUTED, linewidth=0.8, zorder=1)
    _fitted(axes, data.flops, percent, data)
    look, held = role("hold-out"), data.hold_out
    widest = np.abs(percent).max()
    if held.any():
        low, high = 100 * (data.low[held] / data.actual[held] - 1), 100 * (data.high[held] / data.actual[held] - 1)
        axes.vlines(data.flops[held], low, high, color=look.colour, linewidth=1.2, zorder=4)
        axes.plot(
            data.flops[held], percent[held], linestyle="", marker=look.marker, color=look.colour, markersize=9,
            markeredgecolor="white", markeredgewidth=0.5, zorder=5,
        )  # fmt: skip
        widest = np.nanmax([widest, *np.abs(low), *np.abs(high)])
    axes.set_ylim(-1.15 * widest, 1.15 * widest)
    percent_axis(axes.yaxis)
    axes.set_xlabel("training compute C (FLOPs)")
    axes.set_ylabel("predicted / actual − 1")


def _fitted(axes: Axes, x: Floats, y: Floats, data: PredictedActual) -> None:
    """Colours and markers by N, as in the figure of loss against compute."""
    sizes = np.unique(data.params)
    for index, (size, colour) in enumerate(zip(sizes, ordered_colours(sizes), strict=True)):
        here = (data.params == size) & ~data.hold_out
        axes.plot(
            x[here], y[here], linestyle="", marker=MARKERS[index % len(MARKERS)], color=colour, markeredgecolor="white",
            markeredgewidth=0.4, zorder=3,
        )  # fmt: skip
