"""Did the plan's minutes hold: each run's and stage's expected and real time, and who trained what when."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from analysis.makespan_data import Makespan, unit_of
from analysis.style import INK, MUTED, Role, arm_look, log_axis, new_figure, role

__all__ = ["draw", "limits", "seconds_label", "stage_look", "time_ticks"]

_MOST_LANES_NAMED = 16
_NAMED = 0.12
"""A stage of this share of the time has room for its name."""
_UNITS = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"))
_TICKS = (
    (1.0, 3.0, 10.0, 30.0, 60.0, 180.0, 600.0, 1800.0, 3600.0, 4 * 3600.0, 12 * 3600.0, 86_400.0, 3 * 86_400.0),
    (1.0, 10.0, 60.0, 600.0, 3600.0, 10 * 3600.0, 86_400.0),
    (1.0, 60.0, 3600.0, 86_400.0),
)
"""Round times, ever fewer."""


def stage_look(stage: str) -> Role:
    if stage == "hold-out":
        return role("hold-out")
    return {"sweep": role("parametric"), "tune": arm_look(2)}.get(stage, role("isoflop"))


def seconds_label(value: float) -> str:
    """0.5 s, 20 s, 5 min, 3 h, 2 d."""
    size, name = next((pair for pair in _UNITS if value >= pair[0]), (1.0, "s"))
    return f"{value / size:.3g} {name}"


def time_ticks(low: float, high: float, most: int = 5) -> NDArray[np.float64]:
    """At most ``most`` round times inside [low, high]; powers of ten of a second below a second and beyond a month."""
    ends = [10.0**power for power in range(-6, 0)], [86_400 * 10.0**power for power in range(1, 5)]
    for between in _TICKS:
        ticks = np.array([*ends[0], *between, *ends[1]])
        ticks = ticks[(ticks >= low) & (ticks <= high)]
        if len(ticks) <= most:
            break
    return ticks if len(ticks) > 1 else np.array([low, high])


def limits(data: Makespan) -> tuple[float, float]:
    """Seconds that hold every run and stage on both axes."""
    values = [*data.expected, *data.real, *(stage.real for stage in data.stages)]
    values += [stage.expected for stage in data.stages if stage.expected > 0]
    return min(values) / 1.5, max(values) * 1.6


def draw(data: Makespan, width_inches: float) -> Figure:
    """Two panels: expected against real, and the lanes over time."""
    narrow = width_inches < 5
    figure = new_figure(width_inches, width_inches * (1.65 if narrow else 0.47))
    left, right = (
        figure.subplots(2, 1, height_ratios=(1.5, 1)) if narrow else figure.subplots(1, 2, width_ratios=(1, 1.25))
    )
    _times(left, data)
    _lanes(right, data)
    return figure


def _times(axes: Axes, data: Makespan) -> None:
    low, high = limits(data)
    ticks = time_ticks(low, high)
    for axis in (axes.xaxis, axes.yaxis):
        log_axis(axis, low, high, seconds_label)
        axis.set_major_locator(FixedLocator(list(ticks)))
        axis.set_major_formatter(FixedFormatter([seconds_label(tick) for tick in ticks]))
        axis.set_minor_locator(NullLocator())
    axes.plot([low, high], [low, high], color=MUTED, linewidth=0.8, zorder=1)
    for factor in (0.5, 2.0):
        axes.plot([low, high], [low * factor, high * factor], color=MUTED, linestyle=":", linewidth=0.8, zorder=1)
    many = data.real.size > 100
    entries = []
    names = np.array([run.stage for run in data.runs])
    for stage in data.stages:
        look, here = stage_look(stage.name), names == stage.name
        axes.plot(
            data.expected[here], data.real[here], linestyle="", marker=look.marker, color=look.colour, alpha=0.7,
            markersize=2.5 if many else 4, markeredgecolor="white", markeredgewidth=0.3, zorder=3,
        )  # fmt: skip
        if stage.expected > 0:
            axes.plot(
                [stage.expected], [stage.real], linestyle="", marker=look.marker, color=look.colour, markersize=9,
                markerfacecolor="none", markeredgewidth=1.2, zorder=5,
            )  # fmt: skip
        entries.append(Line2D([], [], color=look.colour, marker=look.marker, linestyle="", label=stage.name))
    entries.append(
        Line2D([], [], color=INK, marker="o", linestyle="", markerfacecolor="none", markersize=8, label="whole stage")
    )
    axes.legend(handles=entries, loc="upper left", labelcolor=MUTED, borderaxespad=0.2, labelspacing=0.3)
    for text, place in (("2×", (high / 2, high)), ("½×", (high, high / 2))):
        axes.annotate(
            text,
            place,
            xytext=(-9, -3),
            textcoords="offset points",
            fontsize="small",
            color=MUTED,
            ha="right",
            va="top",
        )
    axes.set_xlabel("expected by the plan")
    axes.set_ylabel("real wall-clock time")


def _lanes(axes: Axes, data: Makespan) -> None:
    size, unit = unit_of(data.end)
    many = len(data.bars) > 100
    for stage in data.stages:
        mine = [bar for bar in data.bars if bar.run.stage == stage.name]
        boxes = [Rectangle((bar.start / size, bar.lane + 0.1), (bar.end - bar.start) / size, 0.8) for bar in mine]
        ended = [bar.run.state == "finished" for bar in mine]
        look = stage_look(stage.name)
        for kept in (True, False):
            chosen = [box for box, end in zip(boxes, ended, strict=True) if end == kept]
            axes.add_collection(
                PatchCollection(
                    chosen, facecolor=look.colour, edgecolor="white", linewidth=0.2 if many else 0.5,
                    alpha=0.85 if kept else 0.3, zorder=3,
                )
            )  # fmt: skip
        if stage.real > _NAMED * data.end:
            axes.annotate(
                stage.name, ((stage.start + stage.real / 2) / size, data.lanes), xytext=(0, 2), color=look.colour,
                textcoords="offset points", ha="center", va="bottom", annotation_clip=False,
            )  # fmt: skip
    for place in data.breaks:
        axes.axvline(place / size, color=MUTED, linestyle=":", linewidth=0.9, zorder=4)
    axes.set_xlim(0, 1.02 * data.end / size)
    axes.set_ylim(0, data.lanes)
    if data.lanes <= _MOST_LANES_NAMED:
        axes.yaxis.set_major_locator(FixedLocator([lane + 0.5 for lane in range(data.lanes)]))
        axes.set_yticklabels([str(lane + 1) for lane in range(data.lanes)])
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel(f"time in training ({unit})" + (", breaks cut short" if data.breaks else ""))
    axes.set_ylabel("worker")
