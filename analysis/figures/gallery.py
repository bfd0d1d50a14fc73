"""The figures of a study: their names, captions and files, in the order in which they are told."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from analysis import (
    cost_data,
    coverage_data,
    exponents_data,
    figure_data,
    hyperparameter_data,
    makespan_data,
    surface_data,
)
from analysis.diagnosis_data import Diagnosis
from analysis.figures import (
    allocation,
    cost,
    coverage,
    exponents,
    hyperparameters,
    influence,
    isoflop,
    loss_against_compute,
    makespan,
    predicted_actual,
    profiles,
    residuals,
    surface,
)
from analysis.study_view import StudyView
from analysis.style import PAGE_INCHES, lay_out, settings
from trainer.whole_file import write_whole

__all__ = ["FIGURES", "FigureKind", "draw_all", "figure_bytes", "laid_out", "rendered", "write_figure"]

DPI = 200
_ENCODING: dict[str, dict[str, Any]] = {
    "svg": {"metadata": {"Date": None}},
    "png": {"metadata": {"Software": None}},
    # Half the time of Pillow's own choice, and 5% more bytes.
    "webp": {"pil_kwargs": {"method": 2}},
}


@dataclass(frozen=True)
class FigureKind:
    """One figure: where its data come from (None where the study can't show it) and who draws it."""

    name: str
    title: str
    caption: str
    data: Callable[[StudyView], Any]
    draw: Callable[[Any, float], Figure]


def _diagnosis(view: StudyView) -> Diagnosis | None:
    return view.diagnosis


FIGURES: tuple[FigureKind, ...] = (
    FigureKind(
        "loss_against_compute",
        "Loss against compute",
        "Held-out loss of every run as it trained. The line is the least loss the fit expects at each compute, dashed "
        "beyond the fitted runs, with its {level} interval; the star is the hold-out, the bar the forecast made "
        "before it ran.",
        figure_data.loss_against_compute,
        loss_against_compute.draw,
    ),
    FigureKind(
        "surface",
        "Loss surface",
        "The fitted law over parameters and tokens: contours of equal loss, and each run in the colour of the loss it "
        "reached. Dotted, equal compute. The line is where the law puts each compute, dashed beyond the fitted runs, "
        "with its {level} interval.",
        surface_data.surface,
        surface.draw,
    ),
    FigureKind(
        "isoflop",
        "Iso-FLOP lines",
        "Each line spends one budget on models of different size. Diamonds mark the fitted minima with their {level} "
        "intervals; a hollow diamond is a line without a usable minimum. Dashed: where the parametric law has its "
        "optimum.",
        figure_data.isoflop,
        isoflop.draw,
    ),
    FigureKind(
        "allocation",
        "Optimal parameters and tokens",
        "N* and D* by both estimators with {level} bands, solid where runs were fitted (shaded) and dashed beyond, "
        "out to the target. In grey, laws published for other data, tokenizers and architectures.",
        figure_data.allocation,
        allocation.draw,
    ),
    FigureKind(
        "exponents",
        "Exponents",
        "First, the law's two exponents in the resamples of the fit: outlined, where the densest {level} of them lie; "
        "a cross, the estimate; dotted, lines of one exponent of N*. Second, the exponent of N* by each estimator with "
        "the density of its resamples and its {level} interval. Diamonds are published laws.",
        exponents_data.exponents,
        exponents.draw,
    ),
    FigureKind(
        "predicted_actual",
        "Predicted against actual",
        "The parametric law's loss beside each run's, and its relative error against compute; colours and markers "
        "rise with N. The star is the hold-out, whose bar is the {level} interval registered before it ran.",
        figure_data.predicted_actual,
        predicted_actual.draw,
    ),
    FigureKind(
        "coverage",
        "Back-test of the intervals",
        "First, the study's own largest runs, each forecast from the runs below it alone: its error and {level} "
        "interval against how far beyond them it lay, crosses where the interval missed; the star is the hold-out's "
        "registered forecast. Second, the share of these runs inside at every level of the interval: on the line the "
        "intervals are as wide as they say, above it wider; shaded, what chance does to as many runs in nine cases of "
        "ten.",
        coverage_data.coverage,
        coverage.draw,
    ),
    FigureKind(
        "cost",
        "Cost against loss",
        "First, the loss expected of a compute-optimal run with its {level} interval, and what a tenth, half, twice "
        "and ten times the recommended budget (diamond) change in nats. Second, the best size and those that lose "
        "little: where the ground is flat, a smaller model is as good and cheaper to serve. Dollars and GPU-hours as "
        "in the recommendation.",
        cost_data.cost,
        cost.draw,
    ),
    FigureKind(
        "hyperparameters",
        "Hyperparameters",
        "First, the loss of each trial above the bottom of its size's valley; hollow marks at the upper edge lie "
        "higher still, crosses were pruned or diverged. Where several hyperparameters were tuned, the others are "
        "taken at their best. Second, the bottoms (hollow: outside what was tried) and the law through them with its "
        "90% interval, dashed beyond the trials.",
        hyperparameter_data.hyperparameters,
        hyperparameters.draw,
    ),
    FigureKind(
        "residuals",
        "Residuals",
        "The law's relative error for each fitted run against its size, its horizon and its budget, with the median "
        "along each axis: where it bends away from zero, the law leaves something out. Numbers are rows of the table.",
        _diagnosis,
        residuals.draw,
    ),
    FigureKind(
        "influence",
        "Leverage and influence",
        "First, how much of its own fitted value each run decides, against how far it lies from the law. Second, what "
        "leaving the run out does to the exponent of N* and to the loss at ten times the largest budget, in their "
        "standard errors. Numbers are rows of the table.",
        _diagnosis,
        influence.draw,
    ),
    FigureKind(
        "profiles",
        "Profile likelihoods",
        "The least objective with one quantity held and all else fitted again, over the rise at which its {level} "
        "interval ends. A flat side is one that the runs do not bound.",
        _diagnosis,
        profiles.draw,
    ),
    FigureKind(
        "makespan",
        "Expected and real time",
        "First, the time in training of each run, and the wall clock of each whole stage (hollow), against what the "
        "plan's calibration expected. Second, who trained what when: a lane a worker (one each for runs that it "
        "trained together), pale bars ended without a loss. Lanes are told by times: a run lies where a worker was "
        "free.",
        makespan_data.makespan,
        makespan.draw,
    ),
)


def rendered(view: StudyView, width_inches: float = PAGE_INCHES) -> Iterable[tuple[FigureKind, Figure]]:
    """Each figure that the study can show, drawn at this width; those of a page's width are kept with the view."""
    return view.once(_across_a_page) if width_inches == PAGE_INCHES else _drawn(view, width_inches)


def _across_a_page(view: StudyView) -> tuple[tuple[FigureKind, Figure], ...]:
    return tuple(_drawn(view, PAGE_INCHES))


def _drawn(view: StudyView, width_inches: float) -> Iterator[tuple[FigureKind, Figure]]:
    for kind in FIGURES:
        data = view.once(kind.data)
        if data is not None:
            yield kind, laid_out(kind.draw, data, width_inches)


def laid_out(draw: Callable[[Any, float], Figure], data: Any, width_inches: float = PAGE_INCHES) -> Figure:
    """``draw``'s figure of ``data``, laid out once: PNG and SVG agree, and a second drawing repeats the first to the
    byte."""
    with settings(width_inches):
        figure = draw(data, width_inches)
        lay_out(figure)
        # "none" would keep a placeholder, for which every format draws the figure a first time unseen.
        figure.set_layout_engine(None)
    return figure


def figure_bytes(figure: Figure, file_format: str, width_inches: float = PAGE_INCHES) -> bytes:
    """The figure as ``svg``, or at 200 dpi as ``png`` or ``webp``; equal figures give equal bytes."""
    buffer = io.BytesIO()
    with settings(width_inches):
        figure.savefig(buffer, format=file_format, dpi=DPI, **_ENCODING[file_format])
    return buffer.getvalue()


def draw_all(view: StudyView, folder: Path, width_inches: float = PAGE_INCHES) -> list[Path]:
    """PNG and SVG of each figure under ``folder``, each file whole by rename; returns their paths."""
    return [
        path
        for kind, figure in rendered(view, width_inches)
        for path in write_figure(figure, kind.name, folder, width_inches)
    ]


def write_figure(figure: Figure, name: str, folder: Path, width_inches: float = PAGE_INCHES) -> list[Path]:
    """``name``.png and ``name``.svg under ``folder``."""
    paths = [folder / f"{name}.{file_format}" for file_format in ("png", "svg")]
    for path in paths:
        write_whole(path, figure_bytes(figure, path.suffix[1:], width_inches))
    return paths
