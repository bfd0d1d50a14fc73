"""The figures in Plotly, from the same data as the printed ones; those of two panels are two plots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from analysis.figure_data import Allocation, Isoflop, LossAgainstCompute, LossCurve, PredictedActual
from analysis.figures.isoflop import limits as isoflop_limits
from analysis.figures.loss_against_compute import loss_limits
from analysis.plotly_traces import (
    add_band,
    arms,
    line_trace,
    log_range,
    marks_trace,
    new_plot,
    ordered,
    role_colour,
    titled,
)
from analysis.style import PLOTLY_MARKERS, count_label, log_ticks, powers_of_ten

__all__ = ["allocation_plot", "errors_plot", "isoflop_plot", "loss_against_compute_plot", "predicted_plot"]

_LEGEND_SIZES = 10
_COMPUTE, _LOSS, _PARAMS = "training compute C (FLOPs)", "held-out loss (nats per token)", "parameters N"
_POWER = {"type": "log", "exponentformat": "power", "dtick": 1}
_PUBLISHED_DASHES = ("dashdot", "dot", "longdashdot", "longdash")


def loss_against_compute_plot(data: LossAgainstCompute) -> go.Figure:
    lowest_flops = data.fitted_flops[0] / 6
    end = data.frontier.x[-1] if data.frontier is not None else data.fitted_flops[1] * 2
    figure = new_plot(
        titled(_COMPUTE, range=log_range(lowest_flops, float(end)), **_POWER),
        titled(_LOSS, type="log", range=log_range(*loss_limits(data)), nticks=8),
    )
    colours = dict(zip(data.sizes, ordered(data.sizes), strict=True))
    for size in np.unique([curve.params for curve in data.curves]):
        # One trace a size, its runs apart by a gap: three hundred traces would make the page slow.
        name = f"{count_label(size)} params"
        flops, loss = _joined([curve for curve in data.curves if curve.params == size])
        figure.add_trace(
            line_trace(
                flops,
                loss,
                colours[size],
                line={"width": 1.1},
                opacity=0.6,
                name=name,
                legendgroup=str(size),
                showlegend=False,
                hovertemplate="%{y:.3f} nats at %{x:.2e} FLOPs<extra>" + name + "</extra>",
            )
        )
    sizes = data.sizes
    listed = set(np.unique(np.linspace(0, sizes.size - 1, min(sizes.size, _LEGEND_SIZES)).round().astype(int)).tolist())
    for index, size in enumerate(sizes):
        here = data.params == size
        name = f"{count_label(size)} params"
        figure.add_trace(
            marks_trace(
                data.flops[here],
                data.loss[here],
                colours[size],
                PLOTLY_MARKERS[index % len(PLOTLY_MARKERS)],
                name=name,
                legendgroup=str(size),
                showlegend=index in listed and bool(here.any()),
                hovertemplate="%{y:.4f} nats at %{x:.2e} FLOPs<extra>" + name + "</extra>",
            )
        )
    if data.frontier is not None:
        add_band(
            figure,
            data.frontier,
            "parametric",
            "fitted frontier",
            data.fitted_flops[1],
            lambda loss: f"{loss:.3f} nats",
        )
    if data.hold_out is not None:
        point, colour = data.hold_out, role_colour("hold-out")
        if point.forecast is not None:
            figure.add_trace(
                marks_trace(
                    [point.flops],
                    [point.forecast.estimate],
                    role_colour("target"),
                    "line-ew-open",
                    12,
                    name="forecast",
                    error_y=arms(point.forecast),
                    hovertemplate="forecast %{y:.3f} nats<extra></extra>",
                )
            )
        figure.add_trace(
            marks_trace(
                np.full(point.losses.size, point.flops),
                point.losses,
                colour,
                "star",
                13,
                name="hold-out",
                hovertemplate="hold-out measured %{y:.4f} nats<extra></extra>",
            )
        )
    return figure


def _joined(curves: Sequence[LossCurve]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """FLOPs and loss of several curves one after another with NaN between them; single precision halves the page."""
    gap = np.array([np.nan])
    flops = np.concatenate([part for curve in curves for part in (curve.flops, gap)])
    loss = np.concatenate([part for curve in curves for part in (curve.loss, gap)])
    return flops.astype(np.float32), loss.astype(np.float32)


def isoflop_plot(data: Isoflop) -> go.Figure:
    params_limits, losses = isoflop_limits(data)
    ticks = log_ticks(*params_limits, most=12)
    figure = new_plot(
        titled(
            _PARAMS,
            type="log",
            range=log_range(*params_limits),
            tickvals=ticks,
            ticktext=[count_label(t) for t in ticks],
        ),
        titled(_LOSS, type="log", range=log_range(*losses), nticks=8),
    )
    colours = ordered([line.optimum.flops for line in data.lines], "cividis")
    for index, (line, colour) in enumerate(zip(data.lines, colours, strict=True)):
        ok, name = line.optimum.status == "ok", f"{powers_of_ten(line.optimum.flops)} FLOPs"
        group: dict[str, Any] = {"legendgroup": str(index), "name": name}
        figure.add_trace(
            line_trace(
                line.curve_params,
                line.curve_loss,
                colour,
                line={"width": 2, "dash": "solid" if ok else "dot"},
                showlegend=False,
                hoverinfo="skip",
                **group,
            )
        )
        hover = "%{y:.4f} nats, %{x:.3s} params<extra>" + name + "</extra>"
        symbol = PLOTLY_MARKERS[index % len(PLOTLY_MARKERS)]
        figure.add_trace(marks_trace(line.params, line.loss, colour, symbol, hovertemplate=hover, **group))
    if data.path is not None:
        figure.add_trace(
            line_trace(
                data.path.x,
                data.path.estimate,
                role_colour("parametric"),
                line={"width": 2, "dash": "dash"},
                name="optimum of the parametric law",
                hoverinfo="skip",
            )
        )
    shown = False
    for line in data.lines:
        optimum = line.optimum
        if optimum.status == "ok" and optimum.params is not None and optimum.loss is not None:
            figure.add_trace(
                marks_trace(
                    [optimum.params.estimate],
                    [optimum.loss.estimate],
                    role_colour("isoflop"),
                    "diamond",
                    11,
                    error_x=arms(optimum.params),
                    error_y=arms(optimum.loss),
                    name="fitted minimum",
                    legendgroup="minimum",
                    showlegend=not shown,
                    hovertemplate="minimum: %{y:.4f} nats at %{x:.3s} params<extra></extra>",
                )
            )
            shown = True
        elif line.loss.size:
            lowest = int(np.argmin(line.loss))
            figure.add_trace(
                marks_trace(
                    [line.params[lowest]],
                    [line.loss[lowest]],
                    role_colour("isoflop"),
                    "diamond-open",
                    14,
                    name=f"no minimum: {optimum.status}",
                    hovertemplate=f"no minimum: {optimum.status}<extra></extra>",
                )
            )
    return figure


def allocation_plot(data: Allocation, quantity: str) -> go.Figure:
    params = quantity == "params"
    figure = new_plot(
        titled(_COMPUTE, type="log", exponentformat="power", nticks=7),
        titled("optimal parameters N*" if params else "optimal tokens D*", type="log", exponentformat="B", nticks=7),
    )
    first, last = data.fitted_flops
    figure.add_vrect(x0=first, x1=last, fillcolor="#808a94", opacity=0.15, line_width=0, layer="below")
    # Published laws first: the study's own lines lie over them.
    for index, line in enumerate(sorted(data.lines, key=lambda line: line.kind != "published")):
        band = line.params if params else line.tokens
        if line.kind == "published":
            dash = _PUBLISHED_DASHES[index % len(_PUBLISHED_DASHES)]
            figure.add_trace(
                line_trace(
                    band.x,
                    band.estimate,
                    role_colour("published"),
                    line={"width": 1.2, "dash": dash},
                    name=line.name,
                    hovertemplate="%{y:.3s} at %{x:.2e} FLOPs<extra>" + line.name + "</extra>",
                )
            )
        else:
            add_band(figure, band, line.kind, line.name, data.fitted_flops[1], count_label)
    for index, optimum in enumerate(data.optima):
        interval = optimum.params if params else optimum.tokens
        if interval is not None:
            figure.add_trace(
                marks_trace(
                    [optimum.flops],
                    [interval.estimate],
                    role_colour("isoflop"),
                    "square",
                    7,
                    error_y=arms(interval),
                    name="iso-FLOP minima",
                    legendgroup="minima",
                    showlegend=index == 0,
                    hovertemplate="%{y:.3s} at %{x:.2e} FLOPs<extra>minimum</extra>",
                )
            )
    target = data.target_params if params else data.target_tokens
    if data.target_flops is not None and target is not None:
        figure.add_trace(
            marks_trace(
                [data.target_flops],
                [target.estimate],
                role_colour("target"),
                "diamond",
                10,
                error_y=arms(target),
                name=f"target: {count_label(target.estimate)}",
                hovertemplate="%{y:.3s} at %{x:.2e} FLOPs<extra>target</extra>",
            )
        )
    return figure


def _by_size(figure: go.Figure, data: PredictedActual, x: np.ndarray, y: np.ndarray, hover: str) -> None:
    sizes = np.unique(data.params)
    for index, (size, colour) in enumerate(zip(sizes, ordered(sizes), strict=True)):
        here = (data.params == size) & ~data.hold_out
        name = f"{count_label(size)} params"
        figure.add_trace(
            marks_trace(
                x[here],
                y[here],
                colour,
                PLOTLY_MARKERS[index % len(PLOTLY_MARKERS)],
                name=name,
                showlegend=False,
                hovertemplate=hover + "<extra>" + name + "</extra>",
            )
        )


def predicted_plot(data: PredictedActual) -> go.Figure:
    values = np.concatenate([data.actual, data.predicted, data.low, data.high])
    low, high = float(np.nanmin(values)) / 1.02, float(np.nanmax(values)) * 1.02
    axis = {"type": "log", "range": log_range(low, high), "nticks": 6}
    figure = new_plot(titled("actual loss (nats per token)", **axis), titled("predicted loss (nats per token)", **axis))
    figure.add_trace(
        line_trace(
            [low, high],
            [low, high],
            role_colour("published"),
            line={"width": 1},
            name="predicted = actual",
            hoverinfo="skip",
        )
    )
    _by_size(figure, data, data.actual, data.predicted, "predicted %{y:.4f}, actual %{x:.4f}")
    _add_hold_out(figure, data, data.actual, data.predicted, data.low, data.high, "predicted %{y:.4f}, actual %{x:.4f}")
    return figure


def errors_plot(data: PredictedActual) -> go.Figure:
    figure = new_plot(titled(_COMPUTE, **_POWER), titled("predicted / actual − 1", tickformat="+.2~%", zeroline=True))
    error = data.relative_error
    _by_size(figure, data, data.flops, error, "%{y:+.2%} at %{x:.2e} FLOPs")
    low, high = data.low / data.actual - 1, data.high / data.actual - 1
    _add_hold_out(figure, data, data.flops, error, low, high, "%{y:+.2%} at %{x:.2e} FLOPs")
    return figure


def _add_hold_out(
    figure: go.Figure,
    data: PredictedActual,
    x: np.ndarray,
    y: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    hover: str,
) -> None:
    held = data.hold_out
    if not held.any():
        return
    bars = {
        "type": "data",
        "symmetric": False,
        "array": high[held] - y[held],
        "arrayminus": y[held] - low[held],
        "thickness": 1.5,
        "width": 4,
    }
    figure.add_trace(
        marks_trace(
            x[held],
            y[held],
            role_colour("hold-out"),
            "star",
            13,
            name="hold-out, its forecast's interval",
            error_y=bars if np.isfinite(low[held]).all() else None,
            hovertemplate=hover + "<extra>hold-out</extra>",
        )
    )
