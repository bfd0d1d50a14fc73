"""Where compute should go: N* and D* against C by each estimator, out to the target, published laws beside."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figure_data import Allocation, AllocationLine, Band
from analysis.style import INK, MUTED, count_label, label_line_ends, log_axis, new_figure, power_label, role
from scaling.record import Interval

__all__ = ["PUBLISHED_LINESTYLES", "draw"]

PUBLISHED_LINESTYLES = ("-.", ":", (0, (1, 1)), (0, (6, 2, 1, 2, 1, 2)), (0, (8, 3)))
_BEYOND = (0, (4, 2))


def draw(data: Allocation, width_inches: float) -> Figure:
    """Two panels, one above the other in a column and side by side across a page. Dashed where no run was fitted."""
    narrow = width_inches < 5
    figure = new_figure(width_inches, width_inches * (1.55 if narrow else 0.5))
    panels = figure.subplots(2, 1, sharex=True) if narrow else figure.subplots(1, 2)
    for axes, quantity in zip(panels, ("params", "tokens"), strict=True):
        _panel(axes, data, quantity, most_ticks=6 if narrow else 5)
    panels[0].set_ylabel("optimal parameters N*")
    panels[1].set_ylabel("optimal tokens D*")
    if narrow:
        panels[0].tick_params(labelbottom=True)
    for axes in panels if not narrow else panels[1:]:
        axes.set_xlabel("training compute C (FLOPs)")
    return figure


def _bands(data: Allocation, quantity: str) -> list[tuple[AllocationLine, Band]]:
    return [(line, line.params if quantity == "params" else line.tokens) for line in data.lines]


def _panel(axes: Axes, data: Allocation, quantity: str, most_ticks: int) -> None:
    bands = _bands(data, quantity)
    x = bands[0][1].x
    own = [band for line, band in bands if line.kind != "published"]
    everything = np.concatenate([np.concatenate([b.estimate, b.low, b.high]) for b in own])
    everything = np.concatenate([everything, *[b.estimate for _, b in bands]])
    everything = everything[np.isfinite(everything) & (everything > 0)]
    log_axis(axes.xaxis, float(x[0]) / 1.5, float(x[-1]) * 1.2, power_label, most=4)
    log_axis(axes.yaxis, float(everything.min()) / 1.5, float(everything.max()) * 1.5, count_label, most_ticks)
    ends: list[tuple[float, float, str, str]] = []
    published = 0
    for line, band in bands:
        look = role(line.kind)
        if line.kind == "published":
            style = PUBLISHED_LINESTYLES[published % len(PUBLISHED_LINESTYLES)]
            published += 1
            axes.plot(band.x, band.estimate, color=look.colour, linestyle=style, linewidth=0.9, zorder=2)
        else:
            _own_line(axes, band, line.kind, data.fitted_flops[1])
        ends.append((float(band.x[-1]), float(band.estimate[-1]), line.name, look.colour))
    _minima(axes, data, quantity)
    _target(axes, data, data.target_params if quantity == "params" else data.target_tokens)
    axes.axvspan(*data.fitted_flops, color=MUTED, alpha=0.08, linewidth=0, zorder=0)
    axes.annotate(
        "fitted", (float(np.sqrt(data.fitted_flops[0] * data.fitted_flops[1])), 1), xycoords=("data", "axes fraction"),
        xytext=(0, -2), textcoords="offset points", ha="center", va="top", fontsize="small", color=MUTED,
    )  # fmt: skip
    label_line_ends(axes, ends)


def _own_line(axes: Axes, band: Band, kind: str, last_fitted: float) -> None:
    look = role(kind)
    inside, beyond = band.x <= last_fitted, band.x >= band.x[band.x <= last_fitted][-1]
    axes.fill_between(band.x, band.low, band.high, color=look.colour, alpha=0.15, linewidth=0, zorder=1)
    axes.plot(band.x[inside], band.estimate[inside], color=look.colour, zorder=4)
    axes.plot(band.x[beyond], band.estimate[beyond], color=look.colour, linestyle=_BEYOND, zorder=4)


def _minima(axes: Axes, data: Allocation, quantity: str) -> None:
    look = role("isoflop")
    for optimum in data.optima:
        interval = optimum.params if quantity == "params" else optimum.tokens
        if interval is not None:
            _interval_mark(axes, optimum.flops, interval, look.colour, look.marker, 3.5)


def _target(axes: Axes, data: Allocation, interval: Interval | None) -> None:
    if data.target_flops is None or interval is None:
        return
    axes.axvline(data.target_flops, color=MUTED, linestyle=":", linewidth=0.8, zorder=1)
    _interval_mark(axes, data.target_flops, interval, INK, "D", 4.5)
    # Rising lines leave the lower right empty.
    axes.annotate(
        f"target\n{count_label(interval.estimate)}",
        (data.target_flops, 0),
        xycoords=("data", "axes fraction"),
        xytext=(-4, 4),
        textcoords="offset points",
        ha="right",
        va="bottom",
        fontsize="small",
        color=INK,
        linespacing=1.1,
    )


def _interval_mark(axes: Axes, x: float, interval: Interval, colour: str, marker: str, size: float) -> None:
    low = interval.estimate if interval.low is None else interval.low
    high = interval.estimate if interval.high is None else interval.high
    axes.plot([x, x], [low, high], color=colour, linewidth=1.1, zorder=5)
    axes.plot(
        [x], [interval.estimate], linestyle="", marker=marker, color=colour, markersize=size, markeredgecolor="white",
        markeredgewidth=0.5, zorder=6,
    )  # fmt: skip
