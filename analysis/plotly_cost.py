"""What a budget buys in Plotly, from the same data as the printed figure; each panel is a plot."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from analysis.cost_data import Cost
from analysis.figures.cost import loss_limits, params_limits, step_label
from analysis.plotly_traces import arms, line_trace, log_range, marks_trace, new_plot, role_colour, titled
from analysis.style import count_label, log_ticks, loss_label
from scaling.quantity import format_usd

__all__ = ["cost_plot", "sizes_plot"]


def cost_plot(data: Cost) -> go.Figure:
    """The expected loss against compute; hovering tells GPU-hours and dollars."""
    limits, band, colour = loss_limits(data), data.loss, role_colour("parametric")
    figure = _plot(data, "expected loss (nats per token)", limits, loss_label)
    low, high = (
        np.clip(np.nan_to_num(side, nan=end), *limits) for side, end in zip((band.low, band.high), limits, strict=True)
    )
    _area(figure, band.x, low, high, f"{data.level:.0%} interval", {"width": 0})
    figure.add_trace(
        line_trace(
            band.x, band.estimate, colour, line={"width": 2}, name="expected loss",
            customdata=[_price(data, float(flops)) for flops in band.x],
            hovertemplate="%{y:.3f} nats at %{x:.2e} FLOPs%{customdata}<extra></extra>",
        )
    )  # fmt: skip
    if data.steps:
        figure.add_trace(
            marks_trace(
                [step.flops for step in data.steps], [step.loss for step in data.steps], colour, "circle", 8,
                mode="markers+text", text=_apart([step_label(step.factor, step.difference) for step in data.steps]),
                textposition=["bottom center" if step.factor < 1 else "top center" for step in data.steps],
                name="the budget times, and what it buys (nats)",
                customdata=[
                    f"{step_label(step.factor, step.difference)} nats{_price(data, step.flops)}" for step in data.steps
                ],
                hovertemplate="%{y:.3f} nats at %{x:.2e} FLOPs<br>%{customdata}<extra></extra>",
            )
        )  # fmt: skip
    _target(figure, data, data.target_loss, "%{y:.3f} nats")
    return figure


def sizes_plot(data: Cost) -> go.Figure:
    """N* against compute, and the sizes within some share of the best loss."""
    figure = _plot(data, "parameters N", params_limits(data), count_label)
    for (share, low, high), dash in reversed(list(zip(data.regions, ("solid", "dash", "dot"), strict=False))):
        name = f"within {share:.1%}".replace(".0%", "%") + " of the best loss"
        _area(figure, data.params.x, low, high, name, {"width": 0.8, "dash": dash})
    if not data.regions and np.isfinite(data.params.low).all() and np.isfinite(data.params.high).all():
        _area(figure, data.params.x, data.params.low, data.params.high, f"{data.level:.0%} interval", {"width": 0})
    figure.add_trace(
        line_trace(
            data.params.x, data.params.estimate, role_colour("parametric"), line={"width": 2}, name="N*",
            customdata=[_price(data, float(flops)) for flops in data.params.x],
            hovertemplate="N* = %{y:.3s} at %{x:.2e} FLOPs%{customdata}<extra></extra>",
        )
    )  # fmt: skip
    _target(figure, data, data.target_params, "%{y:.3s} parameters")
    return figure


def _plot(data: Cost, title: str, limits: tuple[float, float], label: Any) -> go.Figure:
    ticks = log_ticks(*limits)
    span = float(data.loss.x[0]), float(data.loss.x[-1])
    return new_plot(
        titled("training compute C (FLOPs)", type="log", exponentformat="power", range=log_range(*span), dtick=1),
        titled(title, type="log", range=log_range(*limits), tickvals=ticks, ticktext=[label(tick) for tick in ticks]),
    )


def _apart(labels: list[str]) -> list[str]:
    """The first and the last alone, which half a page has room for; hovering tells the others."""
    return [label if place in (0, len(labels) - 1) else "" for place, label in enumerate(labels)]


def _area(figure: go.Figure, x: np.ndarray, low: np.ndarray, high: np.ndarray, name: str, line: dict[str, Any]) -> None:
    figure.add_trace(
        line_trace(
            np.concatenate([x, x[::-1]]), np.concatenate([high, low[::-1]]),
            role_colour("parametric") | {"fill": "yes"}, fill="toself", line=line, hoverinfo="skip", name=name,
        )
    )  # fmt: skip


def _price(data: Cost, flops: float) -> str:
    if data.hardware is None:
        return ""
    hours = count_label(flops * data.hardware.gpu_hours_per_flop)
    return f"<br>{format_usd(flops * data.hardware.usd_per_flop)}, {hours} GPU-hours ({data.hardware.accelerator})"


def _target(figure: go.Figure, data: Cost, interval: Any, hover: str) -> None:
    if data.target_flops is None or interval is None:
        return
    figure.add_trace(
        marks_trace(
            [data.target_flops], [interval.estimate], role_colour("target"), "diamond", 11, name="recommended",
            error_y=arms(interval),
            hovertemplate=f"recommended: {hover} at %{{x:.2e}} FLOPs{_price(data, data.target_flops)}<extra></extra>",
        )
    )  # fmt: skip
