"""The back-test in Plotly, from the same data as the printed figure; each panel is a plot."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from analysis.coverage_data import Coverage
from analysis.figures.coverage import beyond_limits, error_limits, factor_label, side_by_side
from analysis.plotly_traces import line_trace, log_range, marks_trace, new_plot, role_colour, titled
from analysis.style import count_label, log_ticks

__all__ = ["left_out_plot", "shares_plot"]


def left_out_plot(data: Coverage) -> go.Figure:
    """Each left-out run's error with its interval, against how far beyond the fitted runs it lay."""
    limits, errors = beyond_limits(data), np.array(error_limits(data)) / 100
    ticks = log_ticks(*limits, most=6)
    figure = new_plot(
        titled(
            "compute over the largest run below", type="log", range=log_range(*limits),
            tickvals=ticks, ticktext=[factor_label(tick) for tick in ticks],
        ),
        titled(
            "predicted / actual − 1", tickformat="+.2~%", range=list(errors), zeroline=True
        ),
    )  # fmt: skip
    at, inside = side_by_side(data), data.inside
    for here, colour, symbol, name in (
        (inside, "parametric", "circle", f"inside its {data.level:.0%} interval"),
        (~inside, "hold-out", "x", "outside"),
    ):
        if here.any():
            figure.add_trace(
                marks_trace(
                    at[here], data.error[here], role_colour(colour), symbol, 7, name=name,
                    error_y=_bars(data.error[here], data.low[here], data.high[here]),
                    customdata=[
                        f"{count_label(params)} params, {times:.2f} times beyond"
                        for params, times in zip(data.params[here], data.beyond[here], strict=True)
                    ],
                    hovertemplate="%{y:+.2%}<br>%{customdata}<extra></extra>",
                )
            )  # fmt: skip
    if data.registered:
        beyond, error, low, high = (np.array([value]) for value in data.registered)
        figure.add_trace(
            marks_trace(
                beyond, error, role_colour("hold-out"), "star", 14, name="hold-out, its registered forecast",
                error_y=_bars(error, low, high), hovertemplate="hold-out: %{y:+.2%}<extra></extra>",
            )
        )  # fmt: skip
    return figure


def shares_plot(data: Coverage) -> go.Figure:
    """The share of the left-out runs inside, at every level of the interval."""
    axis = {"range": [0, 1.02], "tickformat": ".0%", "nticks": 6}
    figure = new_plot(titled("nominal level of the interval", **axis), titled("share of left-out runs inside", **axis))
    low, high = data.chance
    figure.add_trace(
        line_trace(
            np.concatenate([data.nominal, data.nominal[::-1]]), np.concatenate([high, low[::-1]]),
            role_colour("published") | {"fill": "yes"}, fill="toself", line={"width": 0}, hoverinfo="skip",
            name="nine tables of ten, were the intervals right",
        )
    )  # fmt: skip
    figure.add_trace(
        line_trace([0, 1], [0, 1], role_colour("published"), line={"width": 1}, showlegend=False, hoverinfo="skip")
    )
    figure.add_trace(
        line_trace(
            data.nominal, data.share, role_colour("parametric"), line={"width": 2}, name="left-out runs",
            hovertemplate="%{y:.0%} inside the %{x:.0%} interval<extra></extra>",
        )
    )  # fmt: skip
    figure.add_trace(
        marks_trace(
            [data.level], [float(data.inside.mean())], role_colour("parametric"), "circle", 10,
            name=f"{int(data.inside.sum())} of {data.inside.size} inside {data.level:.0%}",
            hovertemplate="%{y:.0%} inside the %{x:.0%} interval<extra></extra>",
        )
    )  # fmt: skip
    return figure


def _bars(middle: np.ndarray, low: np.ndarray, high: np.ndarray) -> dict[str, object]:
    return {
        "type": "data", "symmetric": False, "array": high - middle, "arrayminus": middle - low, "thickness": 1,
        "width": 2,
    }  # fmt: skip
