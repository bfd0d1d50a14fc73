"""The pieces of the interactive figures: axes, lines, marks and bands.

A trace's ``meta`` holds its colour for a light page and for a dark one; ``templates/plots.js`` applies one of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from analysis.figure_data import Band
from analysis.style import ordered_colours, role
from scaling.record import Interval

__all__ = [
    "add_band",
    "arms",
    "colour_pair",
    "line_trace",
    "log_range",
    "marks_trace",
    "new_plot",
    "ordered",
    "role_colour",
    "titled",
]


def colour_pair(light: str, dark: str) -> dict[str, str]:
    return {"light": light, "dark": dark}


def role_colour(name: str) -> dict[str, str]:
    return colour_pair(role(name).colour, role(name).dark_colour)


def ordered(values: ArrayLike, colour_map: str = "viridis") -> list[dict[str, str]]:
    pairs = zip(ordered_colours(values, colour_map), ordered_colours(values, colour_map, dark_page=True), strict=True)
    return [colour_pair(light, dark) for light, dark in pairs]


def new_plot(x: dict[str, Any], y: dict[str, Any]) -> go.Figure:
    """Axes as given; fonts, grid and background are the page's (``plots.js``)."""
    figure = go.Figure()
    figure.update_layout(
        template="none",
        margin={"l": 64, "r": 16, "t": 30, "b": 48},
        legend={"orientation": "h", "yanchor": "top", "y": -0.18, "x": 0, "xanchor": "left"},
        hovermode="closest",
        xaxis=x,
        yaxis=y,
    )
    return figure


def titled(title: str, **settings: Any) -> dict[str, Any]:
    return {"title": {"text": title, "standoff": 8}, "automargin": True, "zeroline": False} | settings


def log_range(low: float, high: float) -> list[float]:
    return [math.log10(low), math.log10(high)]


def line_trace(x: ArrayLike, y: ArrayLike, colour: dict[str, str], **settings: Any) -> go.Scatter:
    line = settings.pop("line", {})
    return go.Scatter(x=x, y=y, mode=settings.pop("mode", "lines"), line=line, meta=colour, **settings)


def marks_trace(
    x: ArrayLike, y: ArrayLike, colour: dict[str, str], symbol: str, size: int = 8, **settings: Any
) -> go.Scatter:
    marker = {"symbol": symbol, "size": size, "line": {"width": 0.7, "color": "white"}}
    mode = settings.pop("mode", "markers")
    return go.Scatter(x=x, y=y, mode=mode, marker=marker, meta=colour, **settings)


def add_band(
    figure: go.Figure,
    band: Band,
    kind: str,
    name: str,
    last_fitted: float,
    value: Callable[[float], str],
    at: str = "%{x:.2e} FLOPs",
) -> None:
    """The interval as a filled outline, the estimate solid inside the fitted range and dashed beyond."""
    colour = role_colour(kind)
    known = np.isfinite(band.low) & np.isfinite(band.high)
    if known.any():
        x = np.concatenate([band.x[known], band.x[known][::-1]])
        y = np.concatenate([band.high[known], band.low[known][::-1]])
        figure.add_trace(
            line_trace(
                x,
                y,
                colour | {"fill": "yes"},
                fill="toself",
                line={"width": 0},
                hoverinfo="skip",
                showlegend=False,
                legendgroup=kind,
            )
        )
    text = [
        f"{value(estimate)} [{value(low)}, {value(high)}]" if np.isfinite(low) else value(estimate)
        for estimate, low, high in zip(band.estimate, band.low, band.high, strict=True)
    ]
    inside = band.x <= last_fitted
    beyond = band.x >= (band.x[inside][-1] if inside.any() else band.x[0])
    for part, dash in ((inside, "solid"), (beyond, "dash")):
        figure.add_trace(
            line_trace(
                band.x[part],
                band.estimate[part],
                colour,
                line={"width": 2, "dash": dash},
                name=name,
                legendgroup=kind,
                showlegend=dash == "solid",
                text=[t for t, keep in zip(text, part, strict=True) if keep],
                hovertemplate=f"%{{text}}<br>at {at}<extra>" + name + "</extra>",
            )
        )


def arms(interval: Interval) -> dict[str, Any] | None:
    if interval.low is None or interval.high is None:
        return None
    return {
        "type": "data",
        "symmetric": False,
        "array": [max(interval.high - interval.estimate, 0.0)],
        "arrayminus": [max(interval.estimate - interval.low, 0.0)],
        "thickness": 1.5,
        "width": 4,
    }
