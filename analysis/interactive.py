"""The figures to zoom into and hover over, in one page; Plotly is inlined and no network is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go

from analysis.diagnosis_data import Diagnosis
from analysis.figure_data import allocation, isoflop, loss_against_compute, predicted_actual
from analysis.figures.gallery import FIGURES
from analysis.hyperparameter_data import hyperparameters
from analysis.offline_page import render_plots
from analysis.plotly_diagnosis import leverage_plot, profile_plot, residual_plots, shifts_plot
from analysis.plotly_figures import (
    allocation_plot,
    errors_plot,
    isoflop_plot,
    loss_against_compute_plot,
    predicted_plot,
)
from analysis.plotly_hyperparameters import hyperparameter_plots
from analysis.study_view import StudyView
from trainer.whole_file import write_whole

__all__ = ["Plot", "plots", "plots_json", "write_page"]


@dataclass(frozen=True)
class Plot:
    """One Plotly figure and the printed figure it belongs to."""

    kind: str
    name: str
    figure: go.Figure


def plots(view: StudyView) -> tuple[Plot, ...]:
    """Every figure the study can show; those of two panels are two plots, which a phone stacks."""
    made = [Plot("loss_against_compute", "loss_against_compute", loss_against_compute_plot(loss_against_compute(view)))]
    lines, allocated, errors = isoflop(view), allocation(view), predicted_actual(view)
    if lines is not None:
        made.append(Plot("isoflop", "isoflop", isoflop_plot(lines)))
    if allocated is not None:
        made.append(Plot("allocation", "allocation_params", allocation_plot(allocated, "params")))
        made.append(Plot("allocation", "allocation_tokens", allocation_plot(allocated, "tokens")))
    if errors is not None:
        made.append(Plot("predicted_actual", "predicted_actual", predicted_plot(errors)))
        made.append(Plot("predicted_actual", "relative_error", errors_plot(errors)))
    tuning = hyperparameters(view)
    for panel in tuning.panels if tuning is not None else ():
        made.extend(Plot("hyperparameters", name, figure) for name, figure in hyperparameter_plots(panel).items())
    if view.diagnosis is not None:
        made.extend(_diagnosis_plots(view.diagnosis))
    return tuple(made)


def _diagnosis_plots(data: Diagnosis) -> list[Plot]:
    return [
        *(Plot("residuals", f"residuals_{name}", figure) for name, figure in residual_plots(data).items()),
        Plot("influence", "leverage", leverage_plot(data)),
        Plot("influence", "shifts", shifts_plot(data)),
        *(
            Plot("profiles", f"profile_{one.name}", profile_plot(one, data.intervals.get(one.name)))
            for one in data.profiles
        ),
    ]


def plots_json(made: Sequence[Plot]) -> str:
    """{name: Plotly's JSON} for ``templates/plots.js``."""
    return "{" + ",".join(f'"{plot.name}":{plot.figure.to_json()}' for plot in made) + "}"


def write_page(view: StudyView, path: Path) -> Path:
    """One self-contained HTML file with the interactive figures; it opens without a network."""
    made = plots(view)
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
