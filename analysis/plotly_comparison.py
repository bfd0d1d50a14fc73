"""Recipes side by side in Plotly, from the same data as the printed figure; each panel is a plot."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from analysis.comparison_data import ArmComparison
from analysis.figure_data import Band
from analysis.figures.comparison import compute_limits, loss_limits, multiplier_limits, times_label
from analysis.plotly_traces import colour_pair, line_trace, log_range, marks_trace, new_plot, titled
from analysis.style import Role, arm_look, count_label, log_ticks, loss_label

__all__ = ["arms_plot", "multiplier_plot"]


def arms_plot(data: ArmComparison) -> go.Figure:
    """Runs and frontiers of every arm against compute."""
    figure = _plot(data, f"held-out loss ({data.unit})", loss_limits(data), loss_label)
    for index, arm in enumerate(data.arms):
        look = arm_look(index)
        runs = arm.runs
        for here, symbol, name, size in (
            (~runs.held_out, look.plotly_marker, arm.name, 7),
            (runs.held_out, f"{look.plotly_marker}-open", f"{arm.name}, held out", 11),
        ):
            if here.any():
                figure.add_trace(
                    marks_trace(
                        runs.flops[here], runs.loss[here], _pair(look), symbol, size, name=_plain(name),
                        legendgroup=str(index), showlegend=False,
                        customdata=[count_label(params) for params in runs.params[here]],
                        hovertemplate="%{y:.4f}, %{customdata} params, %{x:.2e} FLOPs<extra>" + _plain(name)
                        + "</extra>",
                    )
                )  # fmt: skip
        text = [f"{e:.3f} [{low:.3f}, {high:.3f}]" for e, low, high in _rows(arm.frontier)]
        _banded(figure, arm.frontier, look, arm.name, arm.fitted_flops, text, loss_limits(data), index)
    return figure


def multiplier_plot(data: ArmComparison) -> go.Figure:
    """What compute each arm is worth against the first."""
    limits = multiplier_limits(data)
    first = _plain(data.arms[0].name)
    figure = _plot(data, f"compute multiplier over {first if len(first) < 16 else 'the first'}", limits, times_label)
    figure.add_hline(y=1, line={"color": "#808a94", "width": 1})
    for index, each in enumerate(data.multipliers):
        look = arm_look(index + 1)
        text = [f"{e:.2f}× [{low:.2f}×, {_bound(high)}]" for e, low, high in _rows(each.band)]
        _banded(figure, each.band, look, each.name, data.fitted_flops, text, limits, index)
        if each.target is not None:
            told = each.target.compute_multiplier
            ends = np.clip([told.low or 0.0, np.inf if told.high is None else told.high], *limits)
            name = f"at the target: {told.estimate:.2f}× [{told.low or 0:.2f}×, {_bound(told.high)}]"
            figure.add_trace(
                line_trace(
                    [each.target.flops] * 2, ends, _pair(look), line={"width": 2}, showlegend=False, hoverinfo="skip"
                )
            )
            figure.add_trace(
                marks_trace(
                    [each.target.flops], [told.estimate], _pair(look), look.plotly_marker, 11, name=name,
                    hovertemplate=name + "<extra>" + _plain(each.name) + "</extra>",
                )
            )  # fmt: skip
    return figure


def _plot(data: ArmComparison, title: str, limits: tuple[float, float], label: Any) -> go.Figure:
    ticks = log_ticks(*limits)
    figure = new_plot(
        titled(
            "training compute C (FLOPs)", type="log", exponentformat="power", range=log_range(*compute_limits(data)),
            nticks=7,
        ),
        titled(
            title, type="log", range=log_range(*limits), tickvals=ticks, ticktext=[label(tick) for tick in ticks]
        ),
    )  # fmt: skip
    first, last = data.fitted_flops
    figure.add_vrect(x0=first, x1=last, fillcolor="#808a94", opacity=0.15, line_width=0, layer="below")
    return figure


def _banded(
    figure: go.Figure, band: Band, look: Role, name: str, inside: tuple[float, float], text: list[str],
    limits: tuple[float, float], index: int,
) -> None:  # fmt: skip
    """The interval as a filled outline, the estimate solid where there are runs and dashed over all."""
    low, high = (np.clip(side, *limits) for side in (band.low, band.high))
    figure.add_trace(
        line_trace(
            np.concatenate([band.x, band.x[::-1]]), np.concatenate([high, low[::-1]]), _pair(look) | {"fill": "yes"},
            fill="toself", line={"width": 0}, hoverinfo="skip", showlegend=False, legendgroup=str(index),
        )
    )  # fmt: skip
    here = (band.x >= inside[0] * 0.999) & (band.x <= inside[1] * 1.001)
    for part, dash in ((np.ones_like(here), "dash"), (here, "solid")):
        figure.add_trace(
            line_trace(
                band.x[part], np.where(np.isfinite(band.estimate), band.estimate, np.nan)[part], _pair(look),
                line={"width": 2.2 if dash == "solid" else 1.3, "dash": dash}, name=_plain(name),
                legendgroup=str(index), showlegend=dash == ("solid" if here.any() else "dash"),
                text=[each for each, keep in zip(text, part, strict=True) if keep],
                hovertemplate="%{text}<br>at %{x:.2e} FLOPs<extra>" + _plain(name) + "</extra>",
            )
        )  # fmt: skip


def _rows(band: Band) -> zip[tuple[float, float, float]]:
    return zip(band.estimate, band.low, band.high, strict=True)


def _pair(look: Role) -> dict[str, str]:
    return colour_pair(look.colour, look.dark_colour)


def _bound(value: float | None) -> str:
    return "without bound" if value is None or not np.isfinite(value) else f"{value:.2f}×"


def _plain(name: str) -> str:
    """A name that Plotly reads as text and not as its markup."""
    return name.replace("<", "‹").replace(">", "›")
