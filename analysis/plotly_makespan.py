"""Expected and real time in Plotly, from the same data as the printed figure; each panel is a plot."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from analysis.figures.makespan import limits, seconds_label, stage_look, time_ticks
from analysis.makespan_data import Makespan, unit_of
from analysis.plotly_traces import colour_pair, line_trace, log_range, marks_trace, new_plot, role_colour, titled
from scaling.quantity import format_duration

__all__ = ["lanes_plot", "times_plot"]


def times_plot(data: Makespan) -> go.Figure:
    """Each run's and stage's real time against what the plan expected."""
    low, high = limits(data)
    ticks = time_ticks(low, high, most=6)
    axis = {
        "type": "log", "range": log_range(low, high), "tickvals": ticks,
        "ticktext": [seconds_label(tick) for tick in ticks],
    }  # fmt: skip
    figure = new_plot(titled("expected by the plan", **axis), titled("real wall-clock time", **axis))
    for factor, dash, name in ((1.0, "solid", "as expected"), (2.0, "dot", "twice or half"), (0.5, "dot", "")):
        figure.add_trace(
            line_trace(
                [low, high], [low * factor, high * factor], role_colour("published"), line={"width": 1, "dash": dash},
                name=name, showlegend=bool(name), hoverinfo="skip",
            )
        )  # fmt: skip
    names, size = np.array([run.stage for run in data.runs]), 5 if data.real.size > 100 else 7
    for stage in data.stages:
        look, here = stage_look(stage.name), names == stage.name
        pair = colour_pair(look.colour, look.dark_colour)
        told = [
            f"{run.label}: {format_duration(real)}, expected {format_duration(expected)}"
            for run, real, expected in zip(data.runs, data.real, data.expected, strict=True)
            if run.stage == stage.name
        ]
        figure.add_trace(
            marks_trace(
                data.expected[here], data.real[here], pair, look.plotly_marker, size, name=stage.name, customdata=told,
                hovertemplate="%{customdata}<extra></extra>",
            )
        )  # fmt: skip
        if stage.expected > 0:
            words = f"{stage.name}: {format_duration(stage.real)}, expected {format_duration(stage.expected)}"
            figure.add_trace(
                marks_trace(
                    [stage.expected], [stage.real], pair, f"{look.plotly_marker}-open", 15,
                    name=f"{stage.name}, all of it", hovertemplate=words + "<extra></extra>",
                )
            )  # fmt: skip
    return figure


def lanes_plot(data: Makespan) -> go.Figure:
    """Who trained what when: a lane a worker, a bar a run; hovering tells which."""
    size, unit = unit_of(data.end)
    breaks = ", breaks cut short" if data.breaks else ""
    figure = new_plot(
        titled(f"time in training ({unit}){breaks}", range=[0, 1.02 * data.end / size], nticks=7),
        titled(
            "worker", tickvals=list(range(data.lanes)), ticktext=[str(lane + 1) for lane in range(data.lanes)],
            range=[-0.6, data.lanes - 0.4],
        ),
    )  # fmt: skip
    for stage, kept in ((stage, kept) for stage in data.stages for kept in (True, False)):
        look = stage_look(stage.name)
        mine = [bar for bar in data.bars if bar.run.stage == stage.name and (bar.run.state == "finished") == kept]
        if not mine:
            continue
        figure.add_trace(
            go.Bar(
                base=[bar.start / size for bar in mine], x=[(bar.end - bar.start) / size for bar in mine],
                y=[bar.lane for bar in mine], orientation="h", width=0.8, opacity=1.0 if kept else 0.35,
                name=stage.name if kept else f"{stage.name}, without a loss",
                marker={"line": {"width": 0.5 if len(mine) < 200 else 0}},
                meta=colour_pair(look.colour, look.dark_colour),
                customdata=[
                    f"{bar.run.label} ({bar.run.state})<br>{format_duration(bar.run.ended_at - bar.run.started_at)}"
                    for bar in mine
                ],
                hovertemplate="%{customdata}<extra></extra>",
            )
        )  # fmt: skip
    for place in data.breaks:
        figure.add_vline(x=place / size, line={"color": "#808a94", "width": 1, "dash": "dot"})
    figure.update_layout(barmode="overlay")
    return figure
