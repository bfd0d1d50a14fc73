"""The loss surface: the fitted law's contours over N and D, the runs in the colours of their own losses, the optimum's
path."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from analysis.style import (
    INK,
    MUTED,
    count_label,
    label_line_ends,
    lay_out,
    log_axis,
    log_ticks,
    loss_label,
    new_figure,
    ordered_colours,
    power_label,
    role,
)
from analysis.surface_data import Surface
from scaling.record import Interval

__all__ = ["contour_levels", "draw"]

_BEYOND = (0, (4, 2))
_HALO = [withStroke(linewidth=2, foreground="white")]


def contour_levels(data: Surface, most: int) -> NDArray[np.float64]:
    """Round losses from the surface's lowest to somewhat above the runs'."""
    low = float(data.grid_loss.min())
    return log_ticks(low, max(float(data.loss.max()) * 1.1, low * 1.05), most)


def draw(data: Surface, width_inches: float) -> Figure:
    """Log axes; a run lies on the contour of its colour where the law is right."""
    narrow = width_inches < 5
    figure = new_figure(width_inches, width_inches * (1.0 if narrow else 0.7))
    axes = figure.subplots()
    log_axis(axes.xaxis, float(data.grid_params[0]), float(data.grid_params[-1]), count_label)
    log_axis(axes.yaxis, float(data.grid_tokens[0]), float(data.grid_tokens[-1]), count_label)
    axes.grid(visible=False)
    levels = contour_levels(data, 9 if narrow else 12)
    shades = LinearSegmentedColormap.from_list("losses", ordered_colours(np.geomspace(1, 10, 32)))
    norm = LogNorm(float(levels[0]), float(max(levels[-1], levels[0] * 1.01)))
    axes.contour(
        data.grid_params, data.grid_tokens, data.grid_loss, levels=levels, cmap=shades, norm=norm, linewidths=0.9,
        zorder=2,
    )  # fmt: skip
    _diagonals(axes, data)
    _optimum(axes, data)
    _runs(axes, data, shades, norm, narrow)
    if data.target is not None:
        _target(axes, data)
    axes.set_xlabel("parameters N")
    axes.set_ylabel("training tokens D")
    _label_contours(axes, data, levels, shades(norm(levels)))
    _key(figure, data, narrow)
    return figure


def _diagonals(axes: Axes, data: Surface) -> None:
    """Lines of equal compute, named where they leave the frame at its top or its left side."""
    ends = data.grid_params[[0, -1]]
    lay_out(axes.get_figure(root=True))
    for flops in data.diagonals:
        axes.plot(ends, data.tokens_of(flops, ends), color=MUTED, linestyle=":", linewidth=0.8, zorder=1)
        across = np.geomspace(ends[0], ends[1], 200)
        down = data.tokens_of(flops, across)
        seen = np.flatnonzero((down <= data.grid_tokens[-1]) & (down >= data.grid_tokens[0]))
        if seen.size < 30:
            continue
        at, beside = seen[3], seen[9]
        (x0, y0), (x1, y1) = axes.transData.transform([(across[at], down[at]), (across[beside], down[beside])])
        axes.annotate(
            power_label(flops), (across[at], down[at]), xytext=(2, 1), textcoords="offset points", color=MUTED,
            fontsize="small", rotation=float(np.degrees(np.arctan2(y1 - y0, x1 - x0))), rotation_mode="anchor",
            ha="left", va="bottom", path_effects=_HALO, zorder=3,
        )  # fmt: skip


def _label_contours(axes: Axes, data: Surface, levels: NDArray[np.float64], colours: NDArray[np.float64]) -> None:
    """Each contour's loss where it leaves the frame: beside its right edge, or inside above the lower one."""
    right, lower = data.grid_loss[:, -1], data.grid_loss[0]
    ends = []
    for level, shade in zip(levels, colours, strict=True):
        colour = to_hex(shade)
        if right[-1] < level < right[0]:
            tokens = float(np.interp(-level, -right, data.grid_tokens))
            ends.append((float(data.grid_params[-1]), tokens, loss_label(level), colour))
        elif lower[-1] < level < lower[0]:
            params = float(np.interp(-level, -lower, data.grid_params))
            axes.annotate(
                loss_label(level), (params, float(data.grid_tokens[0])), xytext=(0, 2), textcoords="offset points",
                color=colour, fontsize="small", ha="center", va="bottom", path_effects=_HALO, zorder=8,
            )  # fmt: skip
    label_line_ends(axes, ends)


def _optimum(axes: Axes, data: Surface) -> None:
    if data.optimum is None:
        return
    look, path = role("parametric"), data.optimum
    known = np.isfinite(path.low) & np.isfinite(path.high)
    edge = np.concatenate([path.low[known], path.high[known][::-1]])
    compute = np.concatenate([path.x[known], path.x[known][::-1]])
    axes.fill(edge, data.tokens_of(compute, edge), color=look.colour, alpha=0.16, linewidth=0, zorder=1)
    inside = (path.x >= data.fitted_flops[0]) & (path.x <= data.fitted_flops[1])
    tokens = data.tokens_of(path.x, path.estimate)
    axes.plot(path.estimate, tokens, color=look.colour, linestyle=_BEYOND, linewidth=1.1, zorder=4)
    axes.plot(path.estimate[inside], tokens[inside], color=look.colour, zorder=5)


def _runs(axes: Axes, data: Surface, shades: LinearSegmentedColormap, norm: LogNorm, narrow: bool) -> None:
    held, many = data.hold_out, data.loss.size > 100
    axes.scatter(
        data.params[~held], data.tokens[~held], c=data.loss[~held], cmap=shades, norm=norm,
        s=18 if not many else 4 if narrow else 9, edgecolors="white", linewidths=0.4, zorder=6,
    )  # fmt: skip
    look = role("hold-out")
    axes.plot(
        data.params[held], data.tokens[held], linestyle="", marker=look.marker, color=look.colour, markersize=9,
        markeredgecolor="white", markeredgewidth=0.5, zorder=7,
    )  # fmt: skip


def _target(axes: Axes, data: Surface) -> None:
    assert data.target is not None
    params, tokens = data.target.params, data.target.tokens
    for interval, across in ((params, True), (tokens, False)):
        if interval.low is not None and interval.high is not None:
            bar = [interval.low, interval.high]
            axes.plot(
                bar if across else [params.estimate] * 2, [tokens.estimate] * 2 if across else bar, color=INK,
                linewidth=1, zorder=7,
            )  # fmt: skip
    look = role("target")
    axes.plot(
        [params.estimate], [tokens.estimate], linestyle="", marker=look.marker, color=look.colour, markersize=6,
        markeredgecolor="white", markeredgewidth=0.6, zorder=8,
    )  # fmt: skip


def _key(figure: Figure, data: Surface, narrow: bool) -> None:
    dot = ordered_colours([1, 2, 3])[1]
    entries = [
        Line2D([], [], color=dot, linewidth=0.9, label="loss by the law (nats)"),
        Line2D([], [], color=dot, marker="o", linestyle="", markeredgecolor="white", label="fitted run, by its loss"),
    ]
    if data.hold_out.any():
        look = role("hold-out")
        entries.append(
            Line2D([], [], color=look.colour, marker=look.marker, linestyle="", markersize=7, label="hold-out")
        )
    if data.optimum is not None:
        entries.append(Line2D([], [], color=role("parametric").colour, label="compute-optimal"))
    entries.append(Line2D([], [], color=MUTED, linestyle=":", linewidth=0.8, label="equal compute (FLOPs)"))
    if data.target is not None:
        entries.append(Line2D([], [], color=INK, marker="D", linestyle="", label=_target_label(data.target.params)))
    figure.legend(
        handles=entries, loc="outside upper left", labelcolor=MUTED, ncols=2 if narrow else 3, borderaxespad=0.1
    )


def _target_label(params: Interval) -> str:
    return f"target: {count_label(params.estimate)}"
