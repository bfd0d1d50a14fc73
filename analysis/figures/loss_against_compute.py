"""Loss against training compute: every run's curve, the fitted frontier, the hold-out beside its forecast."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from analysis.figure_data import LossAgainstCompute
from analysis.style import (
    INK,
    MARKERS,
    count_label,
    lay_out,
    log_axis,
    loss_label,
    new_figure,
    ordered_colours,
    power_label,
    role,
)

__all__ = ["draw", "loss_limits"]

_LEGEND_SIZES = 8


def loss_limits(data: LossAgainstCompute) -> tuple[float, float]:
    """The losses worth seeing: from below the frontier to somewhat above the runs' ends, not their beginnings."""
    ends = data.loss if data.hold_out is None else np.append(data.loss, data.hold_out.losses)
    floor = ends if data.frontier is None else np.append(ends, data.frontier.low[np.isfinite(data.frontier.low)])
    if data.hold_out is not None and data.hold_out.forecast is not None:
        floor = np.append(floor, data.hold_out.forecast.low or data.hold_out.forecast.estimate)
    low, high = float(floor.min()), float(ends.max())
    return low / (high / low) ** 0.06, high * (high / low) ** 0.45


def draw(data: LossAgainstCompute, width_inches: float) -> Figure:
    """Both axes logarithmic; colours and markers rise with N."""
    figure = new_figure(width_inches, width_inches * (0.78 if width_inches < 5 else 0.58))
    axes = figure.subplots()
    colours = dict(zip(data.sizes, ordered_colours(data.sizes), strict=True))
    markers = {size: MARKERS[i % len(MARKERS)] for i, size in enumerate(data.sizes)}
    for curve in data.curves:
        axes.plot(curve.flops, curve.loss, color=colours.get(curve.params, INK), alpha=0.55, linewidth=0.8, zorder=2)
    for size in data.sizes:
        here = data.params == size
        axes.plot(
            data.flops[here], data.loss[here], linestyle="", marker=markers[size], color=colours[size],
            markeredgecolor="white", markeredgewidth=0.4, zorder=4,
        )  # fmt: skip
    low, high = loss_limits(data)
    fewest, most = _compute_limits(data)
    log_axis(axes.xaxis, fewest, most, power_label)
    log_axis(axes.yaxis, low, high, loss_label)
    _frontier(axes, data)
    _hold_out(axes, data)
    axes.set_xlabel("training compute C (FLOPs)")
    axes.set_ylabel("held-out loss (nats per token)")
    _size_legend(axes, data.sizes, colours, markers, columns=2)
    return figure


def _compute_limits(data: LossAgainstCompute) -> tuple[float, float]:
    """From where the first curve comes into sight to a little beyond the frontier's end."""
    low, high = loss_limits(data)
    starts = [curve.flops[(curve.loss <= high) & (curve.loss >= low)] for curve in data.curves]
    seen = [float(flops[0]) for flops in starts if flops.size]
    least = min([*seen, data.fitted_flops[0] / 1.5])
    most = data.fitted_flops[1] * 1.5 if data.frontier is None else float(data.frontier.x[-1])
    if data.hold_out is not None:
        most = max(most, data.hold_out.flops * 4)
    return max(least, data.fitted_flops[0] / 6), most


def _frontier(axes: Axes, data: LossAgainstCompute) -> None:
    if data.frontier is None:
        return
    look, band = role("parametric"), data.frontier
    inside = band.x <= data.fitted_flops[1]
    beyond = band.x >= band.x[inside][-1]
    axes.fill_between(band.x, band.low, band.high, color=look.colour, alpha=0.16, linewidth=0, zorder=1)
    axes.plot(band.x[inside], band.estimate[inside], color=look.colour, zorder=5)
    axes.plot(band.x[beyond], band.estimate[beyond], color=look.colour, linestyle=(0, (4, 2)), zorder=5)
    axes.annotate(
        "fitted frontier", (band.x[0], band.estimate[0]), xytext=(5, -5), textcoords="offset points",
        color=look.colour, va="top", ha="left", fontsize="small", rotation=_slope_degrees(axes, band.x, band.estimate),
        rotation_mode="anchor",
    )  # fmt: skip


def _slope_degrees(axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    lay_out(axes.get_figure(root=True))
    (x0, y0), (x1, y1) = axes.transData.transform([(x[0], y[0]), (x[len(x) // 3], y[len(y) // 3])])
    return float(np.degrees(np.arctan2(y1 - y0, x1 - x0)))


def _hold_out(axes: Axes, data: LossAgainstCompute) -> None:
    point = data.hold_out
    if point is None:
        return
    look = role("hold-out")
    if point.forecast is not None and point.forecast.low is not None and point.forecast.high is not None:
        middle = point.forecast.estimate
        arms = [[middle - point.forecast.low], [point.forecast.high - middle]]
        axes.errorbar(
            [point.flops], [middle], yerr=arms, color=INK, marker="_", markersize=7, capsize=2.5, linewidth=1, zorder=6
        )
    axes.plot(
        np.full(point.losses.size, point.flops), point.losses, linestyle="", marker=look.marker, color=look.colour,
        markersize=8, markeredgecolor="white", markeredgewidth=0.5, zorder=7,
    )  # fmt: skip
    top = max(point.loss, (point.forecast.high if point.forecast else None) or point.loss)
    axes.annotate(
        "hold-out" if point.forecast is None else "hold-out,\nits forecast", (point.flops, top), xytext=(7, 0),
        textcoords="offset points", color=look.colour, ha="left", va="bottom", fontsize="small", linespacing=1.1,
    )  # fmt: skip


def _size_legend(
    axes: Axes, sizes: NDArray[np.float64], colours: dict[float, str], markers: dict[float, str], columns: int
) -> None:
    """In the upper right, which falling curves leave empty; of many sizes an even sample."""
    shown = sizes[np.unique(np.linspace(0, sizes.size - 1, min(sizes.size, _LEGEND_SIZES)).round().astype(int))]
    handles = [
        Line2D([], [], color=colours[size], marker=markers[size], linewidth=0.9, label=count_label(size))
        for size in shown
    ]
    axes.legend(
        handles=handles, title="parameters", loc="upper right", ncols=columns, alignment="left", columnspacing=1.0,
        labelspacing=0.3, borderaxespad=0.2, title_fontsize="small",
    )  # fmt: skip
