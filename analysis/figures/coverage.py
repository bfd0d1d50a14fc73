"""Did the intervals hold: each run that a cut left out, against how far it lay beyond, and the share inside at every
level."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter
from numpy.typing import NDArray

from analysis.coverage_data import Coverage
from analysis.style import MUTED, label_line_ends, log_axis, new_figure, ordered_colours, percent_axis, role, spread

__all__ = ["beyond_limits", "draw", "error_limits", "factor_label", "side_by_side"]


def factor_label(value: float) -> str:
    """How many times the compute: 2x, 10x."""
    return f"{value:g}×"


def beyond_limits(data: Coverage) -> tuple[float, float]:
    known = np.append(data.beyond, data.registered[0]) if data.registered else data.beyond
    return 1.0, float(known.max()) * 1.25


def error_limits(data: Coverage) -> tuple[float, float]:
    """In per cent: all errors, and the intervals of nearly all runs."""
    ends = np.concatenate([np.quantile(data.low, [0.02]), np.quantile(data.high, [0.98]), data.error])
    if data.registered:
        ends = np.append(ends, [value for value in data.registered[1:] if np.isfinite(value)])
    widest = 108 * max(float(np.abs(ends).max()), 1e-4)
    return -widest, widest


def side_by_side(data: Coverage) -> NDArray[np.float64]:
    """``beyond``, with runs of one compute moved apart by a hair, so that each interval is seen."""
    low, high = np.log(beyond_limits(data))
    return np.asarray(np.exp(spread(np.log(data.beyond), (high - low) * min(0.012, 0.5 / data.beyond.size))))


def draw(data: Coverage, width_inches: float) -> Figure:
    """Two panels: errors with intervals, and the share of runs inside at every nominal level."""
    narrow = width_inches < 5
    figure = new_figure(width_inches, width_inches * (1.6 if narrow else 0.47))
    left, right = (
        figure.subplots(2, 1, height_ratios=(1, 1.1)) if narrow else figure.subplots(1, 2, width_ratios=(1.3, 1))
    )
    _errors(left, data)
    _shares(right, data)
    return figure


def _errors(axes: Axes, data: Coverage) -> None:
    log_axis(axes.xaxis, *beyond_limits(data), factor_label, most=5)
    axes.set_ylim(*error_limits(data))
    percent_axis(axes.yaxis)
    axes.axhline(0, color=MUTED, linewidth=0.8, zorder=1)
    held, many, missed = data.inside, data.error.size > 60, role("hold-out").colour
    colours = np.where(held, ordered_colours(data.params), missed)
    at = side_by_side(data)
    axes.vlines(
        at, 100 * data.low, 100 * data.high, colors=list(colours), linewidth=0.6 if many else 1,
        alpha=0.5 if many else 0.8, zorder=3,
    )  # fmt: skip
    for here, marker, size in ((held, "o", 2.5), (~held, "X", 4.0)):
        axes.scatter(
            at[here], 100 * data.error[here], s=(size if many else 1.6 * size) ** 2, c=list(colours[here]),
            marker=marker, edgecolors="white", linewidths=0.3, zorder=4,
        )  # fmt: skip
    if data.registered:
        look = role("hold-out")
        beyond, error, low, high = data.registered
        axes.plot([beyond, beyond], [100 * low, 100 * high], color=look.colour, linewidth=1.2, zorder=6)
        axes.plot(
            [beyond], [100 * error], linestyle="", marker=look.marker, color=look.colour, markersize=9,
            markeredgecolor="white", markeredgewidth=0.5, zorder=7,
        )  # fmt: skip
        label_line_ends(axes, [(beyond, 100 * error, "hold-out", look.colour)])
    axes.set_xlabel("compute over the largest run below")
    axes.set_ylabel("predicted / actual − 1")


def _shares(axes: Axes, data: Coverage) -> None:
    look = role("parametric")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.fill_between(data.nominal, *data.chance, color=MUTED, alpha=0.12, linewidth=0, zorder=1, step="post")
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, zorder=2)
    axes.plot(data.nominal, data.share, color=look.colour, zorder=4)
    share = float(data.inside.mean())
    axes.plot(
        [data.level], [share], linestyle="", marker="o", color=look.colour, markeredgecolor="white",
        markeredgewidth=0.6, markersize=6, zorder=5,
    )  # fmt: skip
    axes.annotate(
        f"{int(data.inside.sum())} of {data.inside.size} runs\ninside {data.level:.0%}", (0.98, 0.04),
        xycoords="axes fraction", color=look.colour, ha="right", va="bottom", linespacing=1.15,
    )  # fmt: skip
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    axes.set_xlabel("nominal level of the interval")
    axes.set_ylabel("share of left-out runs inside")
