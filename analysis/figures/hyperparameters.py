"""Hyperparameters: the valley of loss at each size, and the law through the bottoms out to the target."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.hyperparameter_data import HyperparameterPanel, Hyperparameters, ValleyLine
from analysis.style import (
    INK,
    MARKERS,
    MUTED,
    count_label,
    interval_arms,
    log_axis,
    new_figure,
    ordered_colours,
    percent_axis,
    role,
)
from scaling.record import Interval

__all__ = ["draw", "shown_top", "value_label"]

_TOP = 0.08
"""Highest excess shown: beyond it a valley is no parabola, and the law leaves such trials out."""


def shown_top(panel: HyperparameterPanel) -> float:
    """The excess at the upper edge of a panel of valleys."""
    highest = max((float(line.excess.max(initial=0.0)) for line in panel.valleys), default=0.0)
    return min(max(1.15 * highest, 0.01), _TOP)


def value_label(value: float) -> str:
    """A rate as 0.003, a batch as 4.1k."""
    return count_label(value) if value >= 1000 else f"{value:.3g}"


def draw(data: Hyperparameters, width_inches: float) -> Figure:
    """A row a hyperparameter: its valleys on the left, its law on the right; below one another in a column."""
    narrow = width_inches < 5
    rows = len(data.panels)
    figure = new_figure(width_inches, width_inches * rows * (1.4 if narrow else 0.5))
    grid = figure.subplots(2 * rows if narrow else rows, 1 if narrow else 2, squeeze=False).reshape(rows, 2)
    for (valleys, law), panel in zip(grid, data.panels, strict=True):
        _valleys(valleys, panel, narrow)
        _law(law, panel, narrow)
    _key(figure, data, narrow)
    return figure


def _valleys(axes: Axes, panel: HyperparameterPanel, narrow: bool) -> None:
    top = shown_top(panel)
    tried = np.concatenate([values for line in panel.valleys for values in (line.values, line.lost)])
    for line, colour, marker in _looks(panel):
        low = line.curve_excess <= top
        axes.plot(line.curve_values[low], 100 * line.curve_excess[low], color=colour, alpha=0.9, zorder=3)
        inside = line.excess <= top
        look: dict[str, Any] = {"linestyle": "", "marker": marker, "color": colour, "zorder": 4}
        axes.plot(line.values[inside], 100 * line.excess[inside], markeredgecolor="white", markeredgewidth=0.4, **look)
        above = np.full(int((~inside).sum()), 100 * top)
        axes.plot(line.values[~inside], above, markerfacecolor="none", **look)
        lost = np.full(line.lost.size, 100 * top)
        axes.plot(line.lost, lost, linestyle="", marker="x", color=colour, zorder=4)
    log_axis(axes.xaxis, tried.min() / 1.15, tried.max() * 1.15, value_label, most=4 if narrow else 5)
    lowest = min(float(line.excess.min(initial=0.0)) for line in panel.valleys)
    axes.set_ylim(100 * min(-0.04 * top, 1.3 * lowest), 104 * top)
    percent_axis(axes.yaxis)
    axes.set_xlabel(panel.title)
    axes.set_ylabel("loss above the valley's bottom")


def _looks(panel: HyperparameterPanel) -> list[tuple[ValleyLine, str, str]]:
    colours = ordered_colours(np.arange(1, len(panel.valleys) + 1))
    markers = [MARKERS[index % len(MARKERS)] for index in range(len(panel.valleys))]
    return list(zip(panel.valleys, colours, markers, strict=True))


def _law(axes: Axes, panel: HyperparameterPanel, narrow: bool) -> None:
    look = role("parametric")
    ends = [bottom.params for bottom in panel.bottoms] + ([panel.target[0]] if panel.target else [])
    heights = [edge for bottom in panel.bottoms for edge in _edges(bottom.value)]
    if panel.law is not None:
        band = panel.law
        axes.fill_between(band.x, band.low, band.high, color=look.colour, alpha=0.15, linewidth=0, zorder=1)
        known = band.x <= max(bottom.params for bottom in panel.bottoms)
        axes.plot(band.x[known], band.estimate[known], color=look.colour, zorder=3)
        axes.plot(band.x[~known], band.estimate[~known], color=look.colour, linestyle=(0, (4, 2)), zorder=3)
        heights += [float(edge) for side in (band.low, band.high) for edge in side if np.isfinite(edge)]
    for bottom, (_, colour, marker) in zip(panel.bottoms, _looks(panel), strict=True):
        axes.errorbar(
            [bottom.params], [bottom.value.estimate], yerr=interval_arms(bottom.value), color=colour, marker=marker,
            markerfacecolor=colour if bottom.trusted else "none", capsize=2, linewidth=1, linestyle="", zorder=5,
        )  # fmt: skip
    if panel.target is not None:
        params, value = panel.target
        target = role("target")
        axes.errorbar(
            [params], [value.estimate], yerr=interval_arms(value), color=target.colour, marker=target.marker,
            markersize=5, capsize=2, linewidth=1.1, linestyle="", zorder=6,
        )  # fmt: skip
        heights += _edges(value)
    for _, params, rate in panel.published:
        axes.plot([params], [rate], linestyle="", marker="_", markersize=9, color=role("published").colour, zorder=5)
        heights.append(rate)
    log_axis(axes.xaxis, min(ends) / 1.5, max(ends) * 1.8, count_label, most=4 if narrow else 6)
    log_axis(axes.yaxis, min(heights) / 1.3, max(heights) * 1.3, value_label, most=6)
    axes.set_xlabel("parameters N")
    axes.set_ylabel(f"best {panel.title}")


def _edges(interval: Interval) -> list[float]:
    return [edge for edge in (interval.low, interval.estimate, interval.high) if edge is not None and edge > 0]


def _key(figure: Figure, data: Hyperparameters, narrow: bool) -> None:
    first = data.panels[0]
    entries = [
        Line2D([], [], color=colour, marker=marker, markeredgecolor="white", markeredgewidth=0.4, label=line.label)
        for line, colour, marker in _looks(first)
    ]
    if any(line.lost.size for line in first.valleys):
        entries.append(Line2D([], [], color=MUTED, marker="x", linestyle="", label="pruned or diverged"))
    if any(panel.law is not None for panel in data.panels):
        entries.append(Line2D([], [], color=role("parametric").colour, label="law"))
    if first.target is not None:
        entries.append(Line2D([], [], color=INK, marker="D", linestyle="", label="recommended run"))
    if first.published:
        names = ", ".join(name for name, _, _ in first.published)
        look = role("published")
        entries.append(Line2D([], [], color=look.colour, marker="_", linestyle="", markersize=9, label=names))
    figure.legend(
        handles=entries, loc="outside upper left", labelcolor=MUTED, ncols=3 if narrow else 5, borderaxespad=0.1,
        columnspacing=1.2,
    )  # fmt: skip
