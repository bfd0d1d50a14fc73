"""The loss surface in Plotly, from the same data as the printed figure: hovering tells the law's loss anywhere."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
from contourpy import contour_generator

from analysis.figures.surface import contour_levels
from analysis.plotly_traces import (
    arms,
    line_trace,
    log_range,
    marks_trace,
    new_plot,
    ordered,
    role_colour,
    titled,
)
from analysis.style import count_label, log_ticks, loss_label, powers_of_ten
from analysis.surface_data import Surface

__all__ = ["surface_plot"]


def surface_plot(data: Surface) -> go.Figure:
    """Contours of equal loss over N and D, the runs, lines of equal compute and the way of the optimum."""
    limits = [(float(axis[0]), float(axis[-1])) for axis in (data.grid_params, data.grid_tokens)]
    titles = [
        titled(
            title, type="log", range=log_range(*ends), tickvals=ticks, ticktext=[count_label(tick) for tick in ticks]
        )
        for title, ends in zip(("parameters N", "training tokens D"), limits, strict=True)
        for ticks in (log_ticks(*ends, most=8),)
    ]
    figure = new_plot(*titles)
    _contours(figure, data)
    _diagonals(figure, data)
    _optimum(figure, data)
    _runs(figure, data)
    if data.target is not None:
        params, tokens = data.target.params, data.target.tokens
        figure.add_trace(
            marks_trace(
                [params.estimate], [tokens.estimate], role_colour("target"), "diamond", 11, name="target",
                error_x=arms(params), error_y=arms(tokens),
                hovertemplate="target: %{x:.3s} params, %{y:.3s} tokens<extra></extra>",
            )
        )  # fmt: skip
    return figure


def _runs(figure: go.Figure, data: Surface) -> None:
    """The fitted runs in the colours of the contours nearest to their losses; the hold-out."""
    levels = contour_levels(data, 12)
    nearest = np.abs(np.log(data.loss[:, None] / levels)).argmin(axis=1)
    size = 5 if data.loss.size > 100 else 8
    hover = "measured %{customdata:.4f} nats<br>%{x:.3s} params, %{y:.3s} tokens<extra>"
    for index, colour in enumerate(ordered(levels)):
        here = (nearest == index) & ~data.hold_out
        if here.any():
            figure.add_trace(
                marks_trace(
                    data.params[here], data.tokens[here], colour, "circle", size, name="fitted run, by its loss",
                    legendgroup="run", showlegend=not any(trace.legendgroup == "run" for trace in figure.data[1:]),
                    customdata=data.loss[here], hovertemplate=hover + "fitted run</extra>",
                )
            )  # fmt: skip
    held = data.hold_out
    if held.any():
        figure.add_trace(
            marks_trace(
                data.params[held], data.tokens[held], role_colour("hold-out"), "star", 13, name="hold-out",
                customdata=data.loss[held], hovertemplate=hover + "hold-out</extra>",
            )
        )  # fmt: skip


def _contours(figure: go.Figure, data: Surface) -> None:
    levels = contour_levels(data, 12)
    # Nothing to see, but to hover over: the law's loss anywhere.
    figure.add_trace(
        go.Heatmap(
            x=data.grid_params, y=data.grid_tokens, z=data.grid_loss.astype(np.float32), showscale=False, opacity=0,
            meta=role_colour("published"),
            hovertemplate="%{z:.3f} nats by the law<br>%{x:.3s} params, %{y:.3s} tokens<extra></extra>",
        )
    )  # fmt: skip
    lines = contour_generator(np.log(data.grid_params), np.log(data.grid_tokens), data.grid_loss)
    middle = len(levels) // 2
    for index, (level, colour) in enumerate(zip(levels, ordered(levels), strict=True)):
        for place, piece in enumerate(np.exp(np.asarray(each, np.float64)) for each in lines.lines(float(level))):
            rightmost = int(np.argmax(piece[:, 0]))
            figure.add_trace(
                line_trace(
                    piece[:, 0].astype(np.float32), piece[:, 1].astype(np.float32), colour, mode="lines+text",
                    line={"width": 1.3}, name="loss by the law (nats)", legendgroup="contour",
                    text=[loss_label(level) if at == rightmost else "" for at in range(len(piece))],
                    textposition="top left", showlegend=index == middle and place == 0, hoverinfo="skip",
                )
            )  # fmt: skip


def _diagonals(figure: go.Figure, data: Surface) -> None:
    (least_n, most_n), (least_d, most_d) = (
        (float(axis[0]), float(axis[-1])) for axis in (data.grid_params, data.grid_tokens)
    )
    for index, flops in enumerate(data.diagonals):
        product = flops / data.flops_per_param_token
        left, right = max(least_n, product / most_d), min(most_n, product / least_d)
        # Named a little inside the frame, which cuts off what reaches beyond it.
        ends = np.array([left, left * (right / left) ** 0.1, right])
        figure.add_trace(
            line_trace(
                ends, data.tokens_of(flops, ends), role_colour("published"), mode="lines+text",
                line={"width": 1, "dash": "dot"}, text=["", powers_of_ten(flops), ""], textposition="top right",
                name="equal compute (FLOPs)", legendgroup="compute", showlegend=index == 0, hoverinfo="skip",
            )
        )  # fmt: skip


def _optimum(figure: go.Figure, data: Surface) -> None:
    if data.optimum is None:
        return
    path, colour = data.optimum, role_colour("parametric")
    known = np.isfinite(path.low) & np.isfinite(path.high)
    edge = np.concatenate([path.low[known], path.high[known][::-1]])
    compute = np.concatenate([path.x[known], path.x[known][::-1]])
    figure.add_trace(
        line_trace(
            edge, data.tokens_of(compute, edge), colour | {"fill": "yes"}, fill="toself", line={"width": 0},
            hoverinfo="skip", showlegend=False,
        )
    )  # fmt: skip
    inside = (path.x >= data.fitted_flops[0]) & (path.x <= data.fitted_flops[1])
    tokens = data.tokens_of(path.x, path.estimate)
    for part, dash in ((np.ones_like(inside), "dash"), (inside, "solid")):
        figure.add_trace(
            line_trace(
                path.estimate[part], tokens[part], colour, line={"width": 2, "dash": dash}, name="compute-optimal",
                legendgroup="optimal", showlegend=dash == "solid", customdata=path.x[part],
                hovertemplate="N* = %{x:.3s}, D* = %{y:.3s}<br>at %{customdata:.2e} FLOPs<extra></extra>",
            )
        )  # fmt: skip
