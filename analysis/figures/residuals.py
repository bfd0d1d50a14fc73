"""Residuals of the law against size, horizon and budget: a bend of the median is what the law leaves out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from analysis.diagnosis_data import Diagnosis, trend
from analysis.style import INK, MUTED, count_label, log_axis, mark_rows, new_figure, percent_axis, power_label, role

__all__ = ["HORIZON", "draw", "panels"]

HORIZON = "tokens per parameter D/N"
Floats = NDArray[np.float64]


def panels(data: Diagnosis) -> tuple[tuple[str, Floats, Callable[[float], str]], ...]:
    """Label, values and tick label of each horizontal axis."""
    return (
        ("parameters N", data.params, count_label),
        (HORIZON, data.tokens / data.params, count_label),
        ("training compute C (FLOPs)", data.flops, power_label),
    )


def draw(data: Diagnosis, width_inches: float) -> Figure:
    """Three panels side by side, below one another in a column; the band is two robust standard deviations."""
    narrow = width_inches < 5
    figure = new_figure(width_inches, width_inches * (1.75 if narrow else 0.44))
    axes = figure.subplots(3, 1) if narrow else figure.subplots(1, 3, sharey=True)
    percent = 100 * data.relative_error
    widest = 1.18 * max(float(np.abs(percent).max()), 200 * data.pull.scale)
    for panel, (label, x, tick) in zip(axes, panels(data), strict=True):
        _panel(panel, data, x, percent)
        log_axis(panel.xaxis, float(x.min()) / 1.4, float(x.max()) * 1.4, tick, most=5 if narrow else 4)
        panel.set_ylim(-widest, widest)
        panel.set_xlabel(label)
        percent_axis(panel.yaxis)
    for panel in axes if narrow else axes[:1]:
        panel.set_ylabel("predicted / actual − 1")
    _key(figure, data)
    return figure


def _panel(axes: Axes, data: Diagnosis, x: Floats, percent: Floats) -> None:
    look, far = role("parametric"), data.far
    axes.axhspan(-200 * data.pull.scale, 200 * data.pull.scale, color=MUTED, alpha=0.12, linewidth=0, zorder=0)
    axes.axhline(0, color=MUTED, linewidth=0.8, zorder=1)
    axes.plot(
        x[~far], percent[~far], linestyle="", marker="o", color=look.colour, markersize=3, alpha=0.55,
        markeredgewidth=0, zorder=3,
    )  # fmt: skip
    axes.plot(*trend(x, percent), color=INK, linewidth=1.1, marker="_", markersize=6, zorder=5)
    mark_rows(axes, x[far], percent[far], data.rows[far])


def _key(figure: Figure, data: Diagnosis) -> None:
    entries = [
        Line2D([], [], marker="o", linestyle="", color=role("parametric").colour, markersize=3, label="run"),
        Line2D([], [], color=INK, marker="_", label="median along the axis"),
        Line2D([], [], color=MUTED, alpha=0.3, linewidth=6, label="two robust SD"),
    ]
    if data.far.any():
        look = role("hold-out")
        entries.append(Line2D([], [], marker="X", linestyle="", color=look.colour, label="far from the law, by row"))
    columns = 2 if figure.get_figwidth() < 5 else 4
    figure.legend(handles=entries, loc="outside upper left", labelcolor=MUTED, ncols=columns, borderaxespad=0.1)
