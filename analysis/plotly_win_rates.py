"""Win rates beside length in Plotly, from the same data as the printed figure; each panel is a plot."""

from __future__ import annotations

import plotly.graph_objects as go

from analysis.figures.win_rates import CONTROLLED, RAW, length_limits, short
from analysis.plotly_traces import colour_pair, marks_trace, new_plot, role_colour, titled
from analysis.win_rate_data import WinRates

__all__ = ["lengths_plot", "rates_plot"]


def rates_plot(data: WinRates) -> go.Figure:
    """Each model's rate, as judged and at the baseline's length."""
    figure = new_plot(
        titled(f"preferred to {_plain(data.baseline)}", range=[0, 1], tickformat=".0%"),
        {"type": "category", "autorange": "reversed", "automargin": True},
    )
    figure.add_vline(x=0.5, line={"color": "#808a94", "width": 1, "dash": "dot"})
    labels = _labels(data)
    for name, look, symbol, intervals in (
        ("as judged", RAW, "square-open", [row.raw for row in data.rows]),
        ("at the baseline's length", CONTROLLED, "circle", [row.controlled for row in data.rows]),
    ):
        middle = [each.estimate for each in intervals]
        high = [each.estimate if each.high is None else each.high for each in intervals]
        low = [each.estimate if each.low is None else each.low for each in intervals]
        figure.add_trace(
            marks_trace(
                middle, labels, colour_pair(look.colour, look.dark_colour), symbol, 9, name=name,
                error_x={
                    "type": "data", "symmetric": False, "thickness": 1.5, "width": 4,
                    "array": [end - here for end, here in zip(high, middle, strict=True)],
                    "arrayminus": [here - end for end, here in zip(low, middle, strict=True)],
                },
                customdata=[f"{a:.1%} to {b:.1%}" for a, b in zip(low, high, strict=True)],
                hovertemplate="%{y}: %{x:.1%}<br>%{customdata}<extra>" + name + "</extra>",
            )
        )  # fmt: skip
    return figure


def lengths_plot(data: WinRates) -> go.Figure:
    """How long each model's answers are, and the baseline's."""
    figure = new_plot(
        titled(f"mean {data.unit} an answer", range=list(length_limits(data))),
        {"type": "category", "autorange": "reversed", "automargin": True},
    )
    figure.add_vline(x=data.baseline_length, line={"color": "#808a94", "width": 1, "dash": "dot"})
    figure.add_trace(
        marks_trace(
            [row.mean_length for row in data.rows], _labels(data), role_colour("published"), "diamond", 10,
            name=f"mean length (dotted: {_plain(data.baseline)})",
            hovertemplate="%{y}: %{x:,.0f} " + data.unit + "<extra></extra>",
        )
    )  # fmt: skip
    return figure


def _labels(data: WinRates) -> list[str]:
    return [_plain(short(row.label)) for row in data.rows]


def _plain(text: str) -> str:
    """``text`` for Plotly, which reads some HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;")
