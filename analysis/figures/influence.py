"""Which runs the answer hangs on: leverage against residual, and what leaving each run out does to the answer."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter

from analysis.diagnosis_data import FAR, MOVES, Diagnosis
from analysis.style import MUTED, log_axis, mark_rows, new_figure, role, signed

__all__ = ["draw"]


def draw(data: Diagnosis, width_inches: float) -> Figure:
    """Two panels, below one another in a column; marked runs carry their row."""
    narrow = width_inches < 5
    figure = new_figure(width_inches, width_inches * (1.6 if narrow else 0.47))
    left, right = figure.subplots(2, 1) if narrow else figure.subplots(1, 2)
    _leverage(left, data)
    _shifts(right, data)
    return figure


def _leverage(axes: Axes, data: Diagnosis) -> None:
    leverage, scaled, marked = data.pull.leverage, -data.pull.scaled_residuals, data.far | data.moving
    shown = np.maximum(leverage, 1e-4)
    log_axis(
        axes.xaxis, float(shown.min()) / 1.3, max(float(shown.max()) * 1.6, 1.05), lambda value: f"{value:g}", most=5
    )
    widest = 1.2 * max(float(np.abs(scaled).max()), FAR + 1)
    axes.set_ylim(-widest, widest)
    for limit in (-FAR, FAR):
        axes.axhline(limit, color=MUTED, linestyle=":", linewidth=0.8, zorder=1)
    axes.axhline(0, color=MUTED, linewidth=0.8, zorder=1)
    high = 2 * float(leverage.mean())
    axes.axvline(high, color=MUTED, linestyle=":", linewidth=0.8, zorder=1)
    leftwards = high > float(np.sqrt(shown.min() * shown.max()))
    axes.annotate(
        "twice the mean", (high, 0), xycoords=("data", "axes fraction"), xytext=(-3 if leftwards else 3, 3),
        textcoords="offset points", fontsize="small", color=MUTED, ha="right" if leftwards else "left", va="bottom",
    )  # fmt: skip
    _dots(axes, shown, scaled, marked)
    mark_rows(axes, shown[marked], scaled[marked], data.rows[marked])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: signed(value)))
    axes.set_xlabel("leverage of the run")
    axes.set_ylabel("predicted / actual − 1 (robust SD)")


def _shifts(axes: Axes, data: Diagnosis) -> None:
    exponent, loss, marked = data.pull.n_exponent_shift, data.pull.loss_shift, data.moving
    known = np.isfinite(exponent) & np.isfinite(loss)
    both = np.abs(np.concatenate([exponent[known], loss[known]]))
    widest = 1.25 * max(float(both.max()), MOVES)
    axes.set_xlim(-widest, widest)
    axes.set_ylim(-widest, widest)
    box = Rectangle((-MOVES, -MOVES), 2 * MOVES, 2 * MOVES, fill=False, edgecolor=MUTED, linestyle=":", linewidth=0.9)
    axes.add_patch(box)
    axes.annotate(
        "one standard error", (-MOVES, MOVES), xytext=(0, 2), textcoords="offset points", fontsize="small", color=MUTED,
        ha="left", va="bottom",
    )  # fmt: skip
    axes.axhline(0, color=MUTED, linewidth=0.6, zorder=1)
    axes.axvline(0, color=MUTED, linewidth=0.6, zorder=1)
    _dots(axes, exponent[known], loss[known], marked[known])
    mark_rows(axes, exponent[marked], loss[marked], data.rows[marked])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: signed(value)))
    axes.set_xlabel("without the run: exponent of N* (SE)")
    axes.set_ylabel("without the run: log loss at 10 C (SE)")


def _dots(axes: Axes, x: np.ndarray, y: np.ndarray, marked: np.ndarray) -> None:
    axes.plot(
        x[~marked], y[~marked], linestyle="", marker="o", color=role("parametric").colour, markersize=3, alpha=0.55,
        markeredgewidth=0, zorder=3,
    )  # fmt: skip
