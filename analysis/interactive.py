"""The figures to zoom into and hover over, in one page; Plotly is inlined and no network is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from analysis.figures.gallery import FIGURES
from analysis.offline_page import render_plots
from analysis.plotly_cost import cost_plot, sizes_plot
from analysis.plotly_coverage import left_out_plot, shares_plot
from analysis.plotly_diagnosis import leverage_plot, profile_plot, residual_plots, shifts_plot
from analysis.plotly_exponents import cloud_plot, exponents_of_n_plot
from analysis.plotly_figures import (
    allocation_plot,
    errors_plot,
    isoflop_plot,
    loss_against_compute_plot,
    predicted_plot,
)
from analysis.plotly_hyperparameters import hyperparameter_plots
from analysis.plotly_makespan import lanes_plot, times_plot
from analysis.plotly_surface import surface_plot
from analysis.study_view import StudyView
from trainer.whole_file import write_whole

__all__ = ["Plot", "plots", "plots_json", "write_page"]


@dataclass(frozen=True)
class Plot:
    """One Plotly figure and the printed figure it belongs to."""

    kind: str
    name: str
    figure: go.Figure


_DRAWN: Mapping[str, Callable[[Any], Mapping[str, go.Figure]]] = {
    "loss_against_compute": lambda data: {"loss_against_compute": loss_against_compute_plot(data)},
    "surface": lambda data: {"surface": surface_plot(data)},
    "isoflop": lambda data: {"isoflop": isoflop_plot(data)},
    "allocation": lambda data: {
        f"allocation_{quantity}": allocation_plot(data, quantity) for quantity in ("params", "tokens")
    },
    "predicted_actual": lambda data: {"predicted_actual": predicted_plot(data), "relative_error": errors_plot(data)},
    "exponents": lambda data: (
        ({} if data.cloud is None else {"exponents_cloud": cloud_plot(data.cloud, data)})
        | {"exponents_of_n": exponents_of_n_plot(data)}
    ),
    "coverage": lambda data: {"left_out": left_out_plot(data), "coverage": shares_plot(data)},
    "cost": lambda data: {"cost": cost_plot(data), "flat_sizes": sizes_plot(data)},
    "makespan": lambda data: {"times": times_plot(data), "lanes": lanes_plot(data)},
    "hyperparameters": lambda data: {
        name: figure for panel in data.panels for name, figure in hyperparameter_plots(panel).items()
    },
    "residuals": lambda data: {f"residuals_{name}": figure for name, figure in residual_plots(data).items()},
    "influence": lambda data: {"leverage": leverage_plot(data), "shifts": shifts_plot(data)},
    "profiles": lambda data: {
        f"profile_{one.name}": profile_plot(one, data.intervals.get(one.name)) for one in data.profiles
    },
}
"""Each printed figure's plots by name: one of several panels is several plots, which a phone stacks."""


def plots(view: StudyView) -> tuple[Plot, ...]:
    """Every figure the study can show."""
    shown = [(kind, view.once(kind.data)) for kind in FIGURES]
    return tuple(
        Plot(kind.name, name, figure)
        for kind, data in shown
        if data is not None
        for name, figure in _DRAWN[kind.name](data).items()
    )


def plots_json(made: Sequence[Plot]) -> str:
    """{name: Plotly's JSON} for ``templates/plots.js``."""
    return "{" + ",".join(f'"{plot.name}":{plot.figure.to_json()}' for plot in made) + "}"


def write_page(view: StudyView, path: Path) -> Path:
    """One self-contained HTML file with the interactive figures; it opens without a network."""
    made = view.once(plots)
    figures = [
        (
            kind,
            kind.caption.format(level=f"{view.fit.level:.0%}"),
            [plot.name for plot in made if plot.kind == kind.name],
        )
        for kind in FIGURES
    ]
    html = render_plots("curves.html", plots_json(made), view=view, figures=[f for f in figures if f[2]])
    write_whole(path, html)
    return path
