"""Valleys and laws of hyperparameters in Plotly, from the same data as the printed figure; each panel is a plot."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from analysis.figure_data import Band
from analysis.figures.hyperparameters import shown_top, value_label
from analysis.hyperparameter_data import HyperparameterPanel
from analysis.plotly_traces import add_band, arms, line_trace, marks_trace, new_plot, ordered, role_colour, titled
from analysis.style import PLOTLY_MARKERS, count_label

__all__ = ["hyperparameter_plots"]


def hyperparameter_plots(panel: HyperparameterPanel) -> dict[str, go.Figure]:
    """Name to plot: the valleys and the law."""
    return {f"valleys_{panel.name}": _valleys(panel), f"law_{panel.name}": _law(panel)}


def _valleys(panel: HyperparameterPanel) -> go.Figure:
    top = shown_top(panel)
    figure = new_plot(
        titled(panel.title, type="log", nticks=6, exponentformat="power"),
        titled("loss above the valley's bottom", tickformat=".1~%", range=[-0.03 * top, 1.05 * top]),
    )
    for index, (line, colour) in enumerate(zip(panel.valleys, _colours(panel), strict=True)):
        symbol = PLOTLY_MARKERS[index % len(PLOTLY_MARKERS)]
        group: dict[str, Any] = {"legendgroup": line.label}
        figure.add_trace(
            line_trace(
                line.curve_values, line.curve_excess, colour, line={"width": 2}, showlegend=False, hoverinfo="skip",
                **group,
            )
        )  # fmt: skip
        hover = "%{y:.2%} at %{x:.3g}<extra>" + line.label + "</extra>"
        figure.add_trace(
            marks_trace(line.values, line.excess, colour, symbol, name=line.label, hovertemplate=hover, **group)
        )
        if line.lost.size:
            hover = "pruned or diverged at %{x:.3g}<extra>" + line.label + "</extra>"
            figure.add_trace(
                marks_trace(
                    line.lost, np.full(line.lost.size, top), colour, "x-thin-open", 8, showlegend=False,
                    hovertemplate=hover, **group,
                )
            )  # fmt: skip
    return figure


def _colours(panel: HyperparameterPanel) -> list[dict[str, str]]:
    return ordered(np.arange(1, len(panel.valleys) + 1))


def _law(panel: HyperparameterPanel) -> go.Figure:
    figure = new_plot(
        titled("parameters N", type="log", nticks=7, exponentformat="SI"),
        titled(f"best {panel.title}", type="log", nticks=7, exponentformat="power"),
    )
    last = max(bottom.params for bottom in panel.bottoms)
    if panel.law is not None:
        add_band(figure, _clipped(panel.law), "parametric", "law", last, value_label, "%{x:.3s}")
    for index, (bottom, line, colour) in enumerate(zip(panel.bottoms, panel.valleys, _colours(panel), strict=True)):
        symbol = PLOTLY_MARKERS[index % len(PLOTLY_MARKERS)] + ("" if bottom.trusted else "-open")
        figure.add_trace(
            marks_trace(
                [bottom.params], [bottom.value.estimate], colour, symbol, error_y=arms(bottom.value),
                showlegend=False, hovertemplate="%{y:.3g} at %{x:.3s}<extra>" + line.label + "</extra>",
            )
        )  # fmt: skip
    if panel.target is not None:
        params, value = panel.target
        figure.add_trace(
            marks_trace(
                [params], [value.estimate], role_colour("target"), "diamond", 10, error_y=arms(value),
                name=f"recommended run: {value_label(value.estimate)}",
                hovertemplate="%{y:.3g} at %{x:.3s}<extra>recommended run</extra>",
            )
        )  # fmt: skip
    for name, params, rate in panel.published:
        hover = "%{y:.3g} at " + count_label(params) + "<extra>" + name + "</extra>"
        figure.add_trace(
            marks_trace([params], [rate], role_colour("published"), "line-ew-open", 12, name=name, hovertemplate=hover)
        )
    return figure


def _clipped(band: Band) -> Band:
    """Log axes can't show a bound of zero."""
    return Band(band.x, band.estimate, np.maximum(band.low, band.estimate * 1e-6), band.high)
