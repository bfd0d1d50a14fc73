"""How every picture looks: colours that survive colour blindness and grey print, log ticks, labels that never meet.

Categories take the palette of Okabe and Ito (Color Universal Design, 2008); ordered quantities take viridis or cividis,
cut short of their palest end. Nothing is told by colour alone: markers and line styles vary with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, NullFormatter
from numpy.typing import ArrayLike, NDArray

from scaling.quantity import format_count
from scaling.record import Interval

__all__ = [
    "COLUMN_INCHES",
    "INK",
    "MARKERS",
    "MUTED",
    "PAGE_INCHES",
    "PLOTLY_MARKERS",
    "Role",
    "arm_look",
    "count_label",
    "interval_arms",
    "label_line_ends",
    "lay_out",
    "log_axis",
    "log_ticks",
    "loss_label",
    "mark_rows",
    "new_figure",
    "ordered_colours",
    "percent_axis",
    "power_label",
    "powers_of_ten",
    "role",
    "settings",
    "signed",
    "spread",
]

COLUMN_INCHES = 3.4
"""Width of one column of a two-column paper."""
PAGE_INCHES = 7.0
"""Width of both."""

INK = "#1b1f24"
MUTED = "#5d6670"
GRID = "#e4e7ea"
_ROWS_MARKED = 8
"""Row numbers written in one panel; of more, the crosses alone."""
_PALEST = {"viridis": 0.78, "cividis": 0.6}
MARKERS = ("o", "s", "^", "D", "v", "p", "<", "h", ">", "8")

PLOTLY_MARKERS = (
    "circle", "square", "triangle-up", "diamond", "triangle-down", "pentagon", "triangle-left", "hexagon",
    "triangle-right", "octagon",
)  # fmt: skip
"""The same shapes in the same order, by Plotly's names."""


@dataclass(frozen=True)
class Role:
    """The look of one kind of thing, the same in every figure; ``dash`` is Plotly's word for ``linestyle``."""

    colour: str
    dark_colour: str
    """The same hue, light enough for a dark page."""
    linestyle: str | tuple[int, tuple[float, ...]]
    dash: str
    marker: str
    plotly_marker: str


_ROLES = {
    "parametric": Role("#0072b2", "#56b4e9", "-", "solid", "o", "circle"),
    "isoflop": Role("#b84e00", "#f0883e", (0, (5.0, 1.5)), "dash", "s", "square"),
    "hold-out": Role("#a83279", "#e78ac3", "-", "solid", "*", "star"),
    "target": Role("#1b1f24", "#f0f2f4", ":", "dot", "D", "diamond"),
    "published": Role("#5d6670", "#a5adb6", "-.", "dashdot", "", ""),
}


def role(name: str) -> Role:
    """The look of ``parametric``, ``isoflop``, ``hold-out``, ``target`` or ``published``."""
    return _ROLES[name]


_ARMS = (
    _ROLES["parametric"],
    _ROLES["isoflop"],
    Role("#00795a", "#4fc3a1", "-", "solid", "^", "triangle-up"),
    Role("#a83279", "#e78ac3", "-", "solid", "D", "diamond"),
    Role("#5d6670", "#a5adb6", "-", "solid", "v", "triangle-down"),
)


def arm_look(index: int) -> Role:
    """The look of one of several studies side by side; of more than five, colours come again."""
    return _ARMS[index % len(_ARMS)]


def ordered_colours(values: ArrayLike, colour_map: str = "viridis", *, dark_page: bool = False) -> list[str]:
    """One hex colour a value, dark for the lowest spaced by log value; the maps' pale ends are cut off.

    On a dark page the dark ends are cut off instead.
    """
    logs = np.log(np.asarray(values, dtype=np.float64))
    span = np.ptp(logs) if logs.size else 0.0
    first, last = (0.38, 0.97) if dark_page else (0.0, _PALEST[colour_map])
    places = (logs - logs.min()) / span if span > 0 else np.full(logs.size, 0.5)
    shares = first + (last - first) * places
    return [to_hex(c) for c in matplotlib.colormaps[colour_map](shares)]


def settings(width_inches: float) -> AbstractContextManager[None]:
    """Matplotlib's settings for a figure of this width, while the block runs."""
    return matplotlib.rc_context(cast(Any, _rc(width_inches)))


def _rc(width_inches: float) -> dict[str, Any]:
    """7 pt text in a column, 9 pt across the page."""
    text = 7.0 if width_inches < 5 else 9.0
    return {
        "font.family": "sans-serif",
        "font.sans-serif": ["Liberation Sans", "Arial", "Helvetica", "DejaVu Sans"],
        "mathtext.fontset": "dejavusans",
        "mathtext.default": "regular",
        "font.size": text,
        "axes.labelsize": text,
        "axes.titlesize": text,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "xtick.labelsize": text - 0.5,
        "ytick.labelsize": text - 0.5,
        "legend.fontsize": text - 0.5,
        "legend.frameon": False,
        "legend.handlelength": 1.6,
        "axes.edgecolor": MUTED,
        "axes.labelcolor": INK,
        "text.color": INK,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "axes.linewidth": 0.6,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "xtick.minor.width": 0.4,
        "ytick.minor.width": 0.4,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": GRID,
        "grid.linewidth": 0.5,
        "axes.axisbelow": True,
        "lines.linewidth": 1.2 if width_inches < 5 else 1.5,
        "lines.markersize": 3.5 if width_inches < 5 else 5.0,
        "svg.fonttype": "path",
        "svg.hashsalt": "lossfrontier",
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
    }


def new_figure(width_inches: float, height_inches: float) -> Figure:
    """A figure apart from pyplot and its global state; drawn with Agg, laid out so that nothing is clipped."""
    figure = Figure(figsize=(width_inches, height_inches), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def power_label(value: float) -> str:
    """8e10 as 8 x 10^10 in mathtext; 1e11 as 10^11."""
    exponent = math.floor(math.log10(value) + 1e-9)
    mantissa = value / 10**exponent
    lead = "" if abs(mantissa - 1) < 0.005 else rf"{mantissa:.2g}{{\times}}"
    return rf"${lead}10^{{{exponent}}}$"


def powers_of_ten(value: float) -> str:
    """The same in HTML, for Plotly: 8x10<sup>10</sup>."""
    exponent = math.floor(math.log10(value) + 1e-9)
    mantissa = value / 10**exponent
    lead = "" if abs(mantissa - 1) < 0.005 else f"{mantissa:.2g}×"
    return f"{lead}10<sup>{exponent}</sup>"


def count_label(value: float) -> str:
    """100k, 1M, 70B."""
    return format_count(value)


def loss_label(value: float) -> str:
    """A loss in nats: 4.5, 12."""
    return f"{value:.4g}"


def signed(value: float) -> str:
    """A number with its sign, and a true minus: +2, −0.5, 0."""
    return f"{value:+.3g}".replace("-", "−") if value else "0"


def percent_axis(axis: Axis) -> None:
    """Ticks of values given in percent, with their sign."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: signed(value) + ("%" if value else "")))


def mark_rows(axes: Axes, x: ArrayLike, y: ArrayLike, rows: ArrayLike) -> None:
    """Runs that stand out, each with the number of its row in the table."""
    look = role("hold-out")
    axes.plot(
        x, y, linestyle="", marker="X", color=look.colour, markersize=5, markeredgecolor="white", markeredgewidth=0.5,
        zorder=6,
    )  # fmt: skip
    ends = [
        (float(at_x), float(at_y), str(row), look.colour)
        for at_x, at_y, row in zip(np.asarray(x), np.asarray(y), np.asarray(rows), strict=True)
    ]
    label_line_ends(axes, ends[:_ROWS_MARKED])


def interval_arms(interval: Interval) -> list[list[float]] | None:
    """How far a mark's bars reach down and up, as ``errorbar`` takes it; None without both bounds."""
    if interval.low is None or interval.high is None:
        return None
    return [[max(interval.estimate - interval.low, 0.0)], [max(interval.high - interval.estimate, 0.0)]]


def log_ticks(low: float, high: float, most: int = 6) -> NDArray[np.float64]:
    """At most ``most`` round values inside [low, high]: powers of ten, 1-2-5 over a decade, even steps below."""
    decades = math.log10(high / low)
    exponents = np.arange(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for mantissas, stride in [((1, 2, 5), 1), ((1, 3), 1), *(((1,), stride) for stride in range(1, 12))]:
        if decades < 0.9:
            break
        # Powers are kept to multiples of the stride, so that neighbouring figures show the same decades.
        ticks = np.array([m * 10.0**e for e in exponents for m in mantissas if e % stride == 0])
        ticks = ticks[(ticks >= low * 0.999) & (ticks <= high * 1.001)]
        if len(ticks) <= most:
            return ticks
    for step in (s * 10.0**e for e in range(math.floor(math.log10(high - low)) - 2, 30) for s in (1, 2, 2.5, 5)):
        ticks = np.arange(math.ceil(low / step), math.floor(high / step) + 1, dtype=np.float64) * step
        if len(ticks) <= most:
            return ticks
    return np.array([low, high])


def log_axis(axis: Axis, low: float, high: float, label: Callable[[float], str], most: int = 6) -> None:
    """A log axis over [low, high] with readable ticks, and unlabelled minor ones where the decades leave room."""
    (axis.axes.set_xscale if axis.axis_name == "x" else axis.axes.set_yscale)("log")  # type: ignore[attr-defined]
    (axis.axes.set_xlim if axis.axis_name == "x" else axis.axes.set_ylim)(low, high)  # type: ignore[attr-defined]
    ticks = log_ticks(low, high, most)
    axis.set_major_locator(FixedLocator(list(ticks)))
    axis.set_major_formatter(FixedFormatter([label(tick) for tick in ticks]))
    decades = math.log10(high / low)
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    if decades > 6:
        minor = [10.0**e for e in exponents]
    else:
        minor = [m * 10.0**e for e in exponents for m in range(1, 10)] if decades > 0.9 else []
    axis.set_minor_locator(FixedLocator([m for m in minor if low <= m <= high and m not in ticks]))
    axis.set_minor_formatter(NullFormatter())
    # An empty label still takes its time whenever a figure is laid out.
    axis.set_tick_params(which="minor", label1On=False)


def spread(positions: ArrayLike, gap: float) -> NDArray[np.float64]:
    """``positions`` moved as little as a sweep can so that neighbours are ``gap`` apart; the order is kept."""
    wanted = np.asarray(positions, dtype=np.float64)
    order = np.argsort(wanted, kind="stable")
    # With y_i = z_i + i * gap and z rising, least squares is isotonic regression: pool neighbours that cross.
    blocks: list[tuple[float, int]] = []
    for rank, index in enumerate(order):
        blocks.append((wanted[index] - rank * gap, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (mean_b, n_b), (mean_a, n_a) = blocks.pop(), blocks.pop()
            blocks.append(((mean_a * n_a + mean_b * n_b) / (n_a + n_b), n_a + n_b))
    level = np.concatenate([np.full(n, mean) for mean, n in blocks]) if blocks else np.zeros(0)
    placed = np.empty_like(wanted)
    placed[order] = level + gap * np.arange(len(wanted))
    return placed


def lay_out(figure: Figure | None) -> None:
    """Settle where the axes lie, for what is placed by pixels; drawing the figure would do so too, and take longer.

    None, the figure of axes that were removed, is left alone.
    """
    engine = None if figure is None else figure.get_layout_engine()
    if figure is not None and engine is not None:
        engine.execute(figure)


def label_line_ends(
    axes: Axes,
    ends: Sequence[tuple[float, float, str, str]],
    *,
    gap_points: float | None = None,
    size: float | None = None,
) -> None:
    """Text right of each line's last point (x, y, text, colour), moved apart vertically where it would overlap.

    Call after the axes' limits are set; the axes need room on their right (the text may leave them, and constrained
    layout makes the room).
    """
    if not ends:
        return
    size = size if size is not None else matplotlib.rcParams["legend.fontsize"]
    gap = (gap_points if gap_points is not None else size * 1.2) * axes.figure.dpi / 72
    lay_out(axes.get_figure(root=True))
    pixels = axes.transData.transform([(x, y) for x, y, _, _ in ends])
    placed = spread(pixels[:, 1], gap)
    halo = [withStroke(linewidth=2, foreground="white")]
    for (x, y, text, colour), here, there in zip(ends, pixels[:, 1], placed, strict=True):
        axes.annotate(
            text,
            (x, y),
            xytext=(5, (there - here) * 72 / axes.figure.dpi),
            textcoords="offset points",
            color=colour,
            fontsize=size,
            va="center",
            ha="left",
            annotation_clip=False,
            path_effects=halo,
            zorder=8,
        )
