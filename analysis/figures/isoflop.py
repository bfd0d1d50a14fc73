"""Iso-FLOP lines: loss against parameters at each budget, the fitted parabolas and their minima with intervals."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figure_data import Isoflop, IsoflopLine
from analysis.style import (
    MARKERS,
    MUTED,
    count_label,
    interval_arms,
    label_line_ends,
    log_axis,
    loss_label,
    new_figure,
    ordered_colours,
    power_label,
    role,
)

__all__ = ["draw", "limits"]

_LABELS = 8
"""Of more lines than this, an even sample is labelled."""


def limits(data: Isoflop) -> tuple[tuple[float, float], tuple[float, float]]:
    """(N low, N high), (L low, L high) that hold every run, and the intervals of the minima as far down as they are
    high."""
    params = np.concatenate([line.params for line in data.lines])
    losses = np.concatenate([line.loss for line in data.lines])
    bounds = [o.loss for line in data.lines if (o := line.optimum).status == "ok" and o.loss is not None]
    lows = [value for bound in bounds if (value := bound.low) is not None]
    least, high = float(losses.min()), float(losses.max())
    low = max(min([least, *lows]), least * least / high)
    margin = (high / low) ** 0.06
    return (float(params.min()) / 1.25, float(params.max()) * 1.25), (low / margin, high * margin)


def draw(data: Isoflop, width_inches: float) -> Figure:
    """Colours and markers rise with the budget; a rejected minimum is hollow, at its line's lowest run."""
    figure = new_figure(width_inches, width_inches * (0.82 if width_inches < 5 else 0.6))
    axes = figure.subplots()
    params_limits, loss_limits = limits(data)
    log_axis(axes.xaxis, *params_limits, count_label)
    log_axis(axes.yaxis, *loss_limits, loss_label)
    colours = ordered_colours([line.optimum.flops for line in data.lines], "cividis")
    for index, (line, colour) in enumerate(zip(data.lines, colours, strict=True)):
        _line(axes, line, colour, MARKERS[index % len(MARKERS)], loss_limits)
    if data.path is not None:
        axes.plot(data.path.x, data.path.estimate, color=role("parametric").colour, linestyle=(0, (4, 2)), zorder=2)
    for line, colour in zip(data.lines, colours, strict=True):
        _minimum(axes, line, colour)
    axes.set_xlabel("parameters N")
    axes.set_ylabel("held-out loss (nats per token)")
    ends = [
        (*_end(line, loss_limits), f"{power_label(line.optimum.flops)} FLOPs", colour)
        for line, colour in zip(data.lines, colours, strict=True)
        if line.params.size
    ]
    shown: list[int] = (
        np.unique(np.linspace(0, len(ends) - 1, min(len(ends), _LABELS)).round().astype(int)).tolist() if ends else []
    )
    label_line_ends(axes, [ends[index] for index in shown])
    _key(figure, data)
    return figure


def _end(line: IsoflopLine, loss_limits: tuple[float, float]) -> tuple[float, float]:
    """Where the line leaves the figure on its right."""
    inside = np.flatnonzero((line.curve_loss > loss_limits[0]) & (line.curve_loss < loss_limits[1]))
    if not inside.size:
        return float(line.params[-1]), float(line.loss[-1])
    return float(line.curve_params[inside[-1]]), float(line.curve_loss[inside[-1]])


def _line(axes: Axes, line: IsoflopLine, colour: str, marker: str, loss_limits: tuple[float, float]) -> None:
    inside = (line.curve_loss > loss_limits[0]) & (line.curve_loss < loss_limits[1])
    ok = line.optimum.status == "ok"
    axes.plot(
        line.curve_params[inside], line.curve_loss[inside], color=colour, alpha=0.9, zorder=3,
        linestyle="-" if ok else ":",
    )  # fmt: skip
    axes.plot(
        line.params, line.loss, linestyle="", marker=marker, color=colour, markeredgecolor="white",
        markeredgewidth=0.4, zorder=4,
    )  # fmt: skip


def _minimum(axes: Axes, line: IsoflopLine, colour: str) -> None:
    optimum = line.optimum
    if optimum.status == "ok" and optimum.params is not None and optimum.loss is not None:
        axes.errorbar(
            [optimum.params.estimate], [optimum.loss.estimate], xerr=interval_arms(optimum.params),
            yerr=interval_arms(optimum.loss),
            color=role("isoflop").colour, marker="D", markersize=5, markeredgecolor="white", markeredgewidth=0.6,
            capsize=2, linewidth=1.1, zorder=6,
        )  # fmt: skip
    elif line.loss.size:
        lowest = int(np.argmin(line.loss))
        axes.plot(
            [line.params[lowest]], [line.loss[lowest]], linestyle="", marker="D", markersize=8, markerfacecolor="none",
            markeredgecolor=role("isoflop").colour, markeredgewidth=1.1, zorder=6,
        )  # fmt: skip


def _key(figure: Figure, data: Isoflop) -> None:
    """What the diamonds and the dashed path are, above the lines, where nothing can lie below the words."""
    entries = []
    if any(line.optimum.status == "ok" for line in data.lines):
        entries.append(_diamond(role("isoflop").colour, "fitted minimum"))
    if data.path is not None:
        look = role("parametric")
        entries.append(Line2D([], [], color=look.colour, linestyle=(0, (4, 2)), label="optimum of the parametric law"))
    rejected = sorted({line.optimum.status for line in data.lines} - {"ok"})
    if rejected:
        entries.append(_diamond(role("isoflop").colour, f"no minimum: {', '.join(rejected)}", hollow=True))
    if entries:
        figure.legend(handles=entries, loc="outside upper left", labelcolor=MUTED, ncols=2, borderaxespad=0.1)


def _diamond(colour: str, label: str, *, hollow: bool = False) -> Line2D:
    face = "none" if hollow else colour
    return Line2D([], [], marker="D", linestyle="", color=colour, markerfacecolor=face, label=label)
