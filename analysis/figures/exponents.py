"""How sure the exponents are: the fit's resamples as a cloud, and a of N* ∝ C^a by each estimator beside the published
laws."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from analysis.exponents_data import Cloud, Exponents, PublishedExponent, short_name
from analysis.style import INK, MUTED, label_line_ends, new_figure, role

__all__ = ["GREEK", "a_limits", "draw", "in_sight", "rays"]

GREEK = {"alpha": "α", "beta": "β", "gamma": "γ"}
_APART = 0.17
"""Share of the frame's width that one name takes."""
_HALO = [withStroke(linewidth=2, foreground="white")]


def rays(cloud: Cloud) -> list[tuple[float, np.ndarray, np.ndarray]]:
    """(a, α, β) of lines of equal a = β/(α+β) through the frame; none for laws whose exponents are not α and β."""
    if cloud.names != ("alpha", "beta"):
        return []
    (low, high), (lowest, highest) = cloud.limits
    found = []
    for a in (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8):
        alpha = np.array([low, high])
        beta = alpha * a / (1 - a)
        alpha, beta = np.clip(beta, lowest, highest) * (1 - a) / a, np.clip(beta, lowest, highest)
        if alpha[1] > alpha[0] and alpha[1] > low and alpha[0] < high:
            found.append((a, alpha, beta))
    return found


def in_sight(cloud: Cloud, published: tuple[PublishedExponent, ...]) -> list[PublishedExponent]:
    """The published laws whose α and β lie inside the frame."""
    (low, high), (lowest, highest) = cloud.limits
    return [
        law
        for law in published
        if law.alpha_beta and low <= law.alpha_beta[0] <= high and lowest <= law.alpha_beta[1] <= highest
    ]


def a_limits(data: Exponents) -> tuple[float, float]:
    values = [law.n_exponent for law in data.published]
    for each in data.estimators:
        values += [each.interval.estimate, *each.values[[0, -1]]] if each.values.size else [each.interval.estimate]
        values += [bound for bound in (each.interval.low, each.interval.high) if bound is not None]
    margin = 0.06 * (max(values) - min(values)) or 0.05
    return max(min(values) - margin, -0.2), min(max(values) + margin, 1.4)


def draw(data: Exponents, width_inches: float) -> Figure:
    """The cloud left (above, in a column), the exponent of N* right; the cloud is left out where there is none."""
    narrow = width_inches < 5
    if data.cloud is None:
        figure = new_figure(width_inches, width_inches * (0.6 if narrow else 0.35))
        _exponents_of_n(figure.subplots(), data)
        return figure
    figure = new_figure(width_inches, width_inches * (1.6 if narrow else 0.47))
    first, second = figure.subplots(2, 1, height_ratios=(1.35, 1)) if narrow else figure.subplots(1, 2)
    _cloud(first, data.cloud, data)
    _exponents_of_n(second, data)
    return figure


def _cloud(axes: Axes, cloud: Cloud, data: Exponents) -> None:
    look = role("parametric")
    axes.set_xlim(*cloud.limits[0])
    axes.set_ylim(*cloud.limits[1])
    axes.plot(
        cloud.draws[:, 0], cloud.draws[:, 1], linestyle="", marker="o", markersize=2, color=look.colour, alpha=0.25,
        markeredgewidth=0, zorder=2,
    )  # fmt: skip
    for line in cloud.outlines:
        axes.fill(line[:, 0], line[:, 1], color=look.colour, alpha=0.1, linewidth=0, zorder=1)
        axes.plot(line[:, 0], line[:, 1], color=look.colour, linewidth=1.1, zorder=4)
    axes.plot(
        [cloud.estimate[0]], [cloud.estimate[1]], linestyle="", marker="P", markersize=7, color=INK,
        markeredgecolor="white", markeredgewidth=0.6, zorder=6,
    )  # fmt: skip
    for law in in_sight(cloud, data.published):
        assert law.alpha_beta is not None
        axes.plot(
            [law.alpha_beta[0]], [law.alpha_beta[1]], linestyle="", marker="D", markersize=4, color=MUTED,
            markeredgecolor="white", markeredgewidth=0.5, zorder=5,
        )  # fmt: skip
        axes.annotate(
            short_name(law), law.alpha_beta, xytext=(4, 3), textcoords="offset points", color=MUTED, fontsize="small",
            path_effects=_HALO, zorder=7,
        )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(f"exponent {GREEK.get(cloud.names[0], cloud.names[0])} of parameters")
    axes.set_ylabel(f"exponent {GREEK.get(cloud.names[1], cloud.names[1])} of tokens")
    ends = []
    for a, alpha, beta in rays(cloud):
        axes.plot(alpha, beta, color=MUTED, linestyle=":", linewidth=0.8, zorder=1)
        ends.append((float(alpha[1]), float(beta[1]), f"a = {a:g}", MUTED))
    right = [end for end in ends if end[0] > cloud.limits[0][1] * 0.999]
    label_line_ends(axes, right)
    taken = -np.inf
    for x, y, text, colour in sorted(end for end in ends if end not in right):
        # Rays of steep laws leave the frame side by side; of names that would meet, the first is written.
        if x - taken < _APART * (cloud.limits[0][1] - cloud.limits[0][0]):
            continue
        taken = x
        axes.annotate(
            text, (x, y), xytext=(0, 2), textcoords="offset points", color=colour, fontsize="small", ha="center",
            va="bottom", annotation_clip=False,
        )  # fmt: skip


def _exponents_of_n(axes: Axes, data: Exponents) -> None:
    """A row each: the estimators with densities and intervals, then the published laws."""
    names = [each.name for each in data.estimators] + [short_name(law) for law in data.published]
    for row, each in enumerate(data.estimators):
        look, at = role(each.kind), -float(row)
        if each.values.size:
            axes.fill_between(each.values, at, at + 0.75 * each.density, color=look.colour, alpha=0.2, linewidth=0)
        low, high = each.interval.low, each.interval.high
        if low is not None and high is not None:
            axes.plot([low, high], [at, at], color=look.colour, linewidth=1.6, zorder=4, solid_capstyle="butt")
        axes.plot(
            [each.interval.estimate], [at], linestyle="", marker=look.marker, color=look.colour, markersize=5,
            markeredgecolor="white", markeredgewidth=0.5, zorder=5,
        )  # fmt: skip
    first = len(data.estimators)
    for row, law in enumerate(data.published, start=first):
        axes.plot([law.n_exponent], [-row], linestyle="", marker="D", color=MUTED, markersize=4, zorder=4)
    axes.set_xlim(*a_limits(data))
    axes.set_ylim(-len(names) + 0.5, 0.95)
    axes.set_yticks([-row for row in range(len(names))], names)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel("exponent a of N* in C")
    axes.set_ylabel("fit or published law")
