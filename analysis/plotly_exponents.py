"""The exponents in Plotly, from the same data as the printed figure; each panel is a plot."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from analysis.exponents_data import Cloud, Exponents, short_name
from analysis.figures.exponents import GREEK, a_limits, in_sight, rays
from analysis.plotly_traces import arms, line_trace, marks_trace, new_plot, role_colour, titled

__all__ = ["cloud_plot", "exponents_of_n_plot"]


def cloud_plot(cloud: Cloud, data: Exponents) -> go.Figure:
    """The resamples of two exponents, the outline of most of them, lines of equal a and the published laws."""
    names = [GREEK.get(name, name) for name in cloud.names]
    figure = new_plot(
        titled(f"exponent {names[0]} of parameters", range=list(cloud.limits[0]), nticks=6),
        titled(f"exponent {names[1]} of tokens", range=list(cloud.limits[1]), nticks=6),
    )
    for index, (a, alpha, beta) in enumerate(rays(cloud)):
        figure.add_trace(
            line_trace(
                alpha, beta, role_colour("published"), mode="lines+text", line={"width": 1, "dash": "dot"},
                text=["", f"a = {a:g}"], textposition="bottom left", name="equal exponent a of N*", legendgroup="a",
                showlegend=index == 0, hoverinfo="skip",
            )
        )  # fmt: skip
    colour = role_colour("parametric")
    figure.add_trace(
        marks_trace(
            cloud.draws[:, 0].astype(np.float32), cloud.draws[:, 1].astype(np.float32), colour, "circle", 4,
            opacity=0.35, name="resample", hovertemplate=f"{names[0]} %{{x:.3f}}, {names[1]} %{{y:.3f}}<extra></extra>",
        )
    )  # fmt: skip
    for index, line in enumerate(cloud.outlines):
        figure.add_trace(
            line_trace(
                line[:, 0].astype(np.float32), line[:, 1].astype(np.float32), colour, line={"width": 2},
                name=f"densest {data.level:.0%} of them", showlegend=index == 0, hoverinfo="skip",
            )
        )  # fmt: skip
    figure.add_trace(
        marks_trace(
            [cloud.estimate[0]], [cloud.estimate[1]], role_colour("target"), "cross", 12, name="estimate",
            hovertemplate=f"estimate: {names[0]} %{{x:.3f}}, {names[1]} %{{y:.3f}}<extra></extra>",
        )
    )  # fmt: skip
    shown = [(law, law.alpha_beta) for law in in_sight(cloud, data.published) if law.alpha_beta]
    if shown:
        figure.add_trace(
            marks_trace(
                [place[0] for _, place in shown], [place[1] for _, place in shown], role_colour("published"), "diamond",
                9, mode="markers+text", text=[short_name(law) for law, _ in shown], textposition="top right",
                name="published", hovertemplate="%{text}: %{x:.3f}, %{y:.3f}<extra></extra>",
            )
        )  # fmt: skip
    return figure


def exponents_of_n_plot(data: Exponents) -> go.Figure:
    """a of N* ∝ C^a: a row an estimator, with its interval and density, and a row a published law."""
    names = [each.name for each in data.estimators] + [short_name(law) for law in data.published]
    figure = new_plot(
        titled("exponent a of N* in C", range=list(a_limits(data)), nticks=7),
        titled("", tickvals=[-row for row in range(len(names))], ticktext=names, range=[0.5 - len(names), 0.95]),
    )
    for row, each in enumerate(data.estimators):
        colour = role_colour(each.kind)
        if each.values.size:
            figure.add_trace(
                line_trace(
                    np.concatenate([each.values, each.values[::-1]]),
                    np.concatenate([-row + 0.75 * each.density, np.full(each.values.size, float(-row))]),
                    colour | {"fill": "yes"}, fill="toself", line={"width": 0}, hoverinfo="skip", showlegend=False,
                )
            )  # fmt: skip
        low, high = each.interval.low, each.interval.high
        bounds = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
        figure.add_trace(
            marks_trace(
                [each.interval.estimate], [-row], colour, "circle" if each.kind == "parametric" else "square", 10,
                error_x=arms(each.interval), name=each.name, showlegend=False,
                hovertemplate=f"{each.interval.estimate:.3f}{bounds}<extra>{each.name}</extra>",
            )
        )  # fmt: skip
    figure.add_trace(
        marks_trace(
            [law.n_exponent for law in data.published],
            [-row for row in range(len(data.estimators), len(names))],
            role_colour("published"), "diamond", 9, showlegend=False,
            text=[short_name(law) for law in data.published], hovertemplate="%{x:.3f}<extra>%{text}</extra>",
        )
    )  # fmt: skip
    return figure
