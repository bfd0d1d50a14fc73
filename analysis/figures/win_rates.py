"""Win rates beside length: each model's rate, raw and with length taken out, and how long its answers are."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from analysis.style import MUTED, Role, interval_arms, new_figure, role
from analysis.win_rate_data import WinRates

__all__ = ["CAPTION", "CONTROLLED", "RAW", "TITLE", "draw", "length_limits", "short"]

TITLE = "Win rates beside length"
CAPTION = (
    "First, how often each model's answers are preferred to the baseline's, as judged (hollow) and as expected of "
    "answers as long as the baseline's (filled), with {level} intervals; dotted, no preference. Second, how long its "
    "answers are; dotted, the baseline's."
)
RAW, CONTROLLED = role("isoflop"), role("parametric")
_APART = 0.16
_LONGEST = 28


def short(label: str) -> str:
    return label if len(label) <= _LONGEST else label[: _LONGEST - 1] + "…"


def length_limits(data: WinRates) -> tuple[float, float]:
    """From no length at all: a bar's ratio to another is what is looked at."""
    return 0.0, 1.12 * max(data.baseline_length, *(row.mean_length for row in data.rows), 1e-9)


def draw(data: WinRates, width_inches: float) -> Figure:
    """Two panels with one row a model."""
    narrow = width_inches < 5
    height = 0.75 + (0.3 if narrow else 0.36) * len(data.rows)
    figure = new_figure(width_inches, max(1.6, height))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.6, 1))
    _rates(left, data)
    _lengths(right, data)
    figure.legend(
        handles=[_entry("as judged", RAW, True), _entry("at the baseline's length", CONTROLLED, False)],
        loc="outside upper left", labelcolor=MUTED, ncols=2, borderaxespad=0.1,
    )  # fmt: skip
    return figure


def _entry(name: str, look: Role, hollow: bool) -> Line2D:
    return Line2D(
        [], [], linestyle="", marker=look.marker, color=look.colour, label=name,
        markerfacecolor="white" if hollow else look.colour,
    )  # fmt: skip


def _rates(axes: Axes, data: WinRates) -> None:
    axes.set_xlim(0, 100)
    axes.set_ylim(len(data.rows) - 0.5, -0.5)
    axes.axvline(50, color=MUTED, linestyle=":", linewidth=0.9, zorder=1)
    for place, row in enumerate(data.rows):
        for interval, look, offset, hollow in (
            (row.raw, RAW, -_APART, True), (row.controlled, CONTROLLED, _APART, False),
        ):  # fmt: skip
            arms = interval_arms(interval)
            axes.errorbar(
                [100 * interval.estimate], [place + offset],
                xerr=None if arms is None else [[100 * side[0]] for side in arms], fmt=look.marker, color=look.colour,
                markerfacecolor="white" if hollow else look.colour, markersize=5, elinewidth=1.1, capsize=2, zorder=4,
            )  # fmt: skip
    axes.set_yticks(range(len(data.rows)), [short(row.label).replace("$", r"\$") for row in data.rows])
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}%"))
    axes.set_xlabel(f"preferred to {short(data.baseline)}".replace("$", r"\$"))


def _lengths(axes: Axes, data: WinRates) -> None:
    axes.set_xlim(*length_limits(data))
    axes.barh(
        range(len(data.rows)), [row.mean_length for row in data.rows], height=0.5, color=MUTED, alpha=0.55, zorder=3
    )
    axes.axvline(data.baseline_length, color=MUTED, linestyle=":", linewidth=0.9, zorder=4)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.set_xlabel(f"mean {data.unit}")
