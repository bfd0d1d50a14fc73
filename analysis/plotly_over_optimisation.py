"""Over-optimisation in Plotly, from the same data as the printed figure; each method is a plot."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from analysis.figure_data import Band
from analysis.figures.over_optimisation import LOOKS, distance_limits, score_limits
from analysis.over_optimisation_data import MethodCurve, OverOptimisation
from analysis.plotly_traces import arms, colour_pair, line_trace, marks_trace, new_plot, role_colour, titled
from analysis.style import PLOTLY_MARKERS

__all__ = ["over_optimisation_plots"]


def over_optimisation_plots(data: OverOptimisation) -> dict[str, go.Figure]:
    """A plot a method, by its name, on the same axes."""
    return {curve.method: _plot(data, curve) for curve in data.curves}


def _plot(data: OverOptimisation, curve: MethodCurve) -> go.Figure:
    figure = new_plot(
        titled(f"√KL of {_plain(curve.method)} from the initial policy (√nats)", range=list(distance_limits(data))),
        titled("reward", range=list(score_limits(data))),
    )
    for name, score, band in (("proxy", curve.proxy, curve.proxy_band), ("gold", curve.gold, curve.gold_band)):
        if score is not None:
            _score(figure, curve, score, band, name)
    peak, top = curve.fit.peak_sqrt_kl.value, curve.fit.peak_gold.value
    if peak is not None and top is not None:
        figure.add_trace(
            marks_trace(
                [peak.estimate], [top.estimate], role_colour("target"), "diamond", 11, name="highest gold reward",
                error_x=arms(peak), error_y=arms(top),
                hovertemplate="highest gold reward %{y:.4g} at √KL %{x:.3g}<extra></extra>",
            )
        )  # fmt: skip
    return figure


def _score(figure: go.Figure, curve: MethodCurve, score: np.ndarray, band: Band | None, name: str) -> None:
    look = LOOKS[name]
    colour = colour_pair(look.colour, look.dark_colour)
    if band is not None:
        known = np.isfinite(band.low) & np.isfinite(band.high)
        x, low, high = band.x[known], band.low[known], band.high[known]
        figure.add_trace(
            line_trace(
                np.concatenate([x, x[::-1]]), np.concatenate([high, low[::-1]]), colour | {"fill": "yes"},
                fill="toself", line={"width": 0}, hoverinfo="skip", showlegend=False, legendgroup=name,
            )
        )  # fmt: skip
        figure.add_trace(
            line_trace(
                band.x, band.estimate, colour, line={"width": 2, "dash": look.dash}, name=name, legendgroup=name,
                hovertemplate=f"{name} %{{y:.4g}} at √KL %{{x:.3g}}<extra>law</extra>",
            )
        )  # fmt: skip
    for seed in np.unique(curve.seed):
        here = curve.seed == seed
        symbol = PLOTLY_MARKERS[seed % len(PLOTLY_MARKERS)] + ("-open" if name == "proxy" else "")
        figure.add_trace(
            marks_trace(
                curve.sqrt_kl[here], score[here], colour, symbol, 7, name=name, legendgroup=name,
                showlegend=bool(band is None and seed == 0),
                customdata=curve.sqrt_kl[here] ** 2,
                hovertemplate=f"{name} %{{y:.4g}} at %{{customdata:.3g}} nats<extra>seed {seed + 1}</extra>",
            )
        )  # fmt: skip


def _plain(text: str) -> str:
    """``text`` for Plotly, which reads some HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;")
