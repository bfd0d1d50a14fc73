"""Profile likelihoods: how much worse the fit gets as one quantity is held away from its estimate."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis.diagnosis_data import Diagnosis
from analysis.style import MUTED, new_figure, role
from scaling.fits.profile import Profile
from scaling.record import Interval

__all__ = ["TOP", "draw", "label", "shown_range"]

_LABELS = {"E": "E (nats per token)", "n_exponent": "exponent of N* in C", "loss": "loss at 10 C (nats)"}
_GREEK = {"alpha": "α", "beta": "β", "gamma": "γ"}
TOP = 3.0
"""Highest rise shown, in units of the one at which the interval ends."""


def label(one: Profile) -> str:
    """What the horizontal axis says."""
    word, *index = one.name.split("_")
    return _LABELS.get(one.name, "_".join([_GREEK.get(word, word), *index]))


def shown_range(one: Profile) -> tuple[float, float]:
    """The values over which the profile is seen: as far as it stays below ``TOP``."""
    seen = one.values[one.excess <= TOP * one.threshold]
    width = float(np.ptp(seen)) or max(abs(one.estimate), 1e-6)
    return float(seen.min()) - 0.06 * width, float(seen.max()) + 0.06 * width


def draw(data: Diagnosis, width_inches: float) -> Figure:
    """A panel a quantity, two or three a row; the key takes the last place."""
    narrow = width_inches < 5
    columns = 2 if narrow else 3
    rows = -(-(len(data.profiles) + 1) // columns)
    figure = new_figure(width_inches, width_inches * (0.46 if narrow else 0.31) * rows)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, one in zip(grid, data.profiles, strict=False):
        _panel(axes, one, data.intervals.get(one.name))
    for axes in grid[len(data.profiles) :]:
        axes.set_axis_off()
    level = f"{data.profiles[0].level:.0%}"
    _key(grid[len(data.profiles)], level)
    figure.supylabel(f"rise of the objective ({level} interval ends at 1)", fontsize="medium", color="#1b1f24")
    return figure


def _panel(axes: Axes, one: Profile, stated: Interval | None) -> None:
    look = role("parametric")
    low, high = shown_range(one)
    rise = one.excess / one.threshold
    axes.set_xlim(low, high)
    axes.set_ylim(0, TOP)
    axes.axvspan(one.low if one.low is not None else low, one.high if one.high is not None else high, color=look.colour,
                 alpha=0.12, linewidth=0, zorder=0)  # fmt: skip
    axes.axhline(1, color=MUTED, linestyle=":", linewidth=0.8, zorder=1)
    axes.plot(one.values, rise, color=look.colour, marker="o", markersize=2, zorder=4)
    axes.axvline(one.estimate, color=MUTED, linewidth=0.7, zorder=1)
    if stated is not None and stated.low is not None and stated.high is not None:
        axes.plot([stated.low, stated.high], [0.12, 0.12], color=role("isoflop").colour, linewidth=2.2, zorder=5,
                  solid_capstyle="butt")  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_locator(MaxNLocator(3))
    axes.set_xlabel(label(one))
    for side, end in ((0.03, one.low), (0.97, one.high)):
        if end is None:
            axes.annotate(
                "no end", (side, 0.97), xycoords="axes fraction", fontsize="small", color=MUTED, va="top",
                ha="left" if side < 0.5 else "right",
            )  # fmt: skip


def _key(axes: Axes, level: str) -> None:
    look = role("parametric")
    entries = [
        Line2D([], [], color=look.colour, marker="o", markersize=2, label="profile"),
        Line2D([], [], color=look.colour, alpha=0.25, linewidth=7, label=f"its {level} interval"),
        Line2D([], [], color=MUTED, linewidth=0.8, label="estimate"),
        Line2D([], [], color=role("isoflop").colour, linewidth=2.2, label=f"{level} interval of the fit"),
    ]
    axes.legend(handles=entries, loc="center left", labelcolor=MUTED, borderaxespad=0)
