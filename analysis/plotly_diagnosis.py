"""The figures of diagnosis in Plotly, from the same data as the printed ones; each panel is a plot."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from analysis.diagnosis_data import FAR, MOVES, Diagnosis, trend
from analysis.figures.profiles import TOP, label, shown_range
from analysis.figures.residuals import panels
from analysis.plotly_traces import line_trace, marks_trace, new_plot, role_colour, titled
from scaling.fits.profile import Profile
from scaling.record import Interval

__all__ = ["leverage_plot", "profile_plot", "residual_plots", "shifts_plot"]

_SHAPE = {"color": "#808a94", "width": 1, "dash": "dot"}
Floats = NDArray[np.float64]


def residual_plots(data: Diagnosis) -> dict[str, go.Figure]:
    """Name to plot: residuals against size, horizon and budget."""
    plots = {}
    for name, (axis, x, _) in zip(("size", "horizon", "budget"), panels(data), strict=True):
        figure = new_plot(
            titled(axis, type="log", nticks=7, exponentformat="power" if name == "budget" else "SI"),
            titled("predicted / actual − 1", tickformat="+.2~%", zeroline=True),
        )
        sd = 2 * data.pull.scale
        figure.add_hrect(y0=-sd, y1=sd, fillcolor="#808a94", opacity=0.15, line_width=0, layer="below")
        _runs(figure, data, x, data.relative_error, data.far, "%{y:+.2%} at %{x:.3s}", "far from the law")
        middle, median = trend(x, data.relative_error)
        figure.add_trace(
            line_trace(
                middle, median, role_colour("target"), line={"width": 1.5}, name="median along the axis",
                hovertemplate="median %{y:+.2%}<extra></extra>",
            )
        )  # fmt: skip
        plots[name] = figure
    return plots


def leverage_plot(data: Diagnosis) -> go.Figure:
    figure = new_plot(
        titled("leverage of the run", type="log", nticks=6), titled("predicted / actual − 1 (robust SD)", zeroline=True)
    )
    for limit in (-FAR, FAR):
        figure.add_hline(y=limit, line=_SHAPE)
    figure.add_vline(x=2 * float(data.pull.leverage.mean()), line=_SHAPE)
    marked = data.far | data.moving
    shown = np.maximum(data.pull.leverage, 1e-4)
    hover = "%{y:+.1f} SD, leverage %{x:.2f}"
    _runs(figure, data, shown, -data.pull.scaled_residuals, marked, hover, "far from the law, or moves the answer")
    return figure


def shifts_plot(data: Diagnosis) -> go.Figure:
    figure = new_plot(
        titled("without the run: exponent of N* (SE)", zeroline=True),
        titled("without the run: log loss at 10 C (SE)", zeroline=True),
    )
    figure.add_shape(type="rect", x0=-MOVES, x1=MOVES, y0=-MOVES, y1=MOVES, line=_SHAPE)
    hover = "exponent %{x:+.2f} SE, loss %{y:+.2f} SE"
    _runs(figure, data, data.pull.n_exponent_shift, data.pull.loss_shift, data.moving, hover, "moves the answer")
    return figure


def profile_plot(one: Profile, stated: Interval | None) -> go.Figure:
    """The profile of one quantity; its interval shaded, the fit's own as a bar."""
    low, high = shown_range(one)
    level = f"{one.level:.0%}"
    figure = new_plot(
        titled(label(one) + (", without an end" if one.flat else ""), range=[low, high], nticks=6),
        titled("rise of the objective", range=[0, TOP]),
    )
    figure.add_vrect(
        x0=low if one.low is None else one.low, x1=high if one.high is None else one.high, fillcolor="#56b4e9",
        opacity=0.15, line_width=0, layer="below",
    )  # fmt: skip
    figure.add_hline(y=1, line=_SHAPE)
    figure.add_vline(x=one.estimate, line=_SHAPE | {"dash": "solid"})
    finite = np.isfinite(one.excess)
    figure.add_trace(
        line_trace(
            one.values[finite], one.excess[finite] / one.threshold, role_colour("parametric"), mode="lines+markers",
            line={"width": 2}, name="profile", hovertemplate="%{x:.4g}: %{y:.2f}<extra></extra>",
        )
    )  # fmt: skip
    if stated is not None and stated.low is not None and stated.high is not None:
        figure.add_trace(
            line_trace(
                [stated.low, stated.high], [0.12, 0.12], role_colour("isoflop"), line={"width": 4},
                name=f"{level} interval of the fit", hovertemplate="%{x:.4g}<extra>the fit's interval</extra>",
            )
        )  # fmt: skip
    return figure


def _runs(
    figure: go.Figure, data: Diagnosis, x: Floats, y: Floats, marked: NDArray[np.bool_], hover: str, why: str
) -> None:
    """The runs, those marked as crosses; hovering tells the row."""
    for here, colour, symbol, size, name in (
        (~marked, "parametric", "circle", 6, "run"),
        (marked, "hold-out", "x", 10, why),
    ):
        if here.any():
            figure.add_trace(
                marks_trace(
                    x[here], y[here], role_colour(colour), symbol, size, name=name, customdata=data.rows[here],
                    opacity=0.6 if symbol == "circle" else 1.0,
                    hovertemplate=hover + "<extra>row %{customdata}</extra>",
                )
            )  # fmt: skip
