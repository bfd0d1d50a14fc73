"""Over-optimisation: gold and proxy reward of each method against √KL, the laws through them, and where gold peaks."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figure_data import Band
from analysis.over_optimisation_data import MethodCurve, OverOptimisation
from analysis.style import MARKERS, MUTED, Role, interval_arms, new_figure, role

__all__ = ["CAPTION", "LOOKS", "TITLE", "distance_limits", "draw", "score_limits"]

TITLE = "Reward over-optimisation"
CAPTION = (
    "Gold (filled, solid) and proxy reward (hollow, dashed) as each method moves away from the policy that it started "
    "from; markers tell seeds. Lines are the law of the method with its {level} interval, the diamond is where it puts "
    "the highest gold reward."
)
LOOKS = {"gold": role("parametric"), "proxy": role("isoflop")}
_COLUMNS = 3


def distance_limits(data: OverOptimisation) -> tuple[float, float]:
    """Of √KL, from just below none."""
    return -0.02 * data.farthest, 1.03 * data.farthest


def score_limits(data: OverOptimisation) -> tuple[float, float]:
    """All scores, with a margin."""
    low, high = float(data.scores.min()), float(data.scores.max())
    margin = 0.06 * (high - low) or 1.0
    return low - margin, high + margin


def draw(data: OverOptimisation, width_inches: float) -> Figure:
    """One panel a method, on the same axes."""
    narrow, methods = width_inches < 5, len(data.curves)
    columns = 1 if narrow else min(methods, _COLUMNS)
    rows = math.ceil(methods / columns)
    figure = new_figure(width_inches, rows * width_inches * (0.62 if narrow else 0.62 if columns == 1 else 0.46))
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, curve in zip(panels, data.curves, strict=False):
        _panel(axes, curve)
        axes.set_xlim(*distance_limits(data))
        axes.set_ylim(*score_limits(data))
    for axes in panels[methods:]:
        axes.set_axis_off()
    for axes in panels[max(0, methods - columns) : methods]:
        axes.tick_params(labelbottom=True)
    size = panels[0].xaxis.label.get_size()
    figure.supxlabel("√KL from the initial policy (√nats)", size=size)
    figure.supylabel("reward", size=size)
    figure.legend(
        handles=[_entry("gold", LOOKS["gold"], False), _entry("proxy", LOOKS["proxy"], True)],
        loc="outside upper left", labelcolor=MUTED, ncols=2, borderaxespad=0.1,
    )  # fmt: skip
    return figure


def _entry(name: str, look: Role, hollow: bool) -> Line2D:
    return Line2D(
        [], [], color=look.colour, linestyle=cast(Any, look.linestyle), marker="o", label=name,
        markerfacecolor="white" if hollow else look.colour,
    )  # fmt: skip


def _panel(axes: Axes, curve: MethodCurve) -> None:
    axes.set_title(curve.method.replace("$", r"\$"))
    for name, score, band in (("proxy", curve.proxy, curve.proxy_band), ("gold", curve.gold, curve.gold_band)):
        if score is not None:
            _score(axes, curve, score, band, LOOKS[name], hollow=name == "proxy")
    peak, top = curve.fit.peak_sqrt_kl.value, curve.fit.peak_gold.value
    if peak is not None and top is not None:
        axes.errorbar(
            [peak.estimate], [top.estimate], xerr=interval_arms(peak), yerr=interval_arms(top), fmt="D",
            color=role("target").colour, markersize=5, markeredgecolor="white", markeredgewidth=0.6, elinewidth=1,
            capsize=2, zorder=7,
        )  # fmt: skip
    elif curve.fit.status == "refused":
        axes.annotate("no law: too few divergences", (0.02, 0.02), xycoords="axes fraction", color=MUTED, va="bottom")
    else:
        axes.annotate(
            "no peak in these data", (0.98, 0.02), xycoords="axes fraction", color=MUTED, ha="right", va="bottom"
        )


def _score(axes: Axes, curve: MethodCurve, score: np.ndarray, band: Band | None, look: Role, *, hollow: bool) -> None:
    if band is not None:
        axes.fill_between(band.x, band.low, band.high, color=look.colour, alpha=0.16, linewidth=0, zorder=2)
        axes.plot(band.x, band.estimate, color=look.colour, linestyle=look.linestyle, zorder=4)
    for seed in np.unique(curve.seed):
        here = curve.seed == seed
        axes.plot(
            curve.sqrt_kl[here], score[here], linestyle="", marker=MARKERS[seed % len(MARKERS)], color=look.colour,
            markerfacecolor="white" if hollow else look.colour, markersize=4, alpha=0.85,
            markeredgecolor=look.colour if hollow else "white", markeredgewidth=0.8 if hollow else 0.4, zorder=5,
        )  # fmt: skip
