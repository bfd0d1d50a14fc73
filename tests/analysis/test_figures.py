"""The printed figures: drawn at both widths, nothing clipped, the same bytes each time."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from analysis.figures.gallery import FIGURES, draw_all, figure_bytes, rendered
from analysis.study_view import StudyView, empty_curves
from analysis.style import COLUMN_INCHES, PAGE_INCHES, settings

from .conftest import simulate
from .test_figure_data import refused


def clipped(figure: Figure) -> list[str]:
    """Texts that reach beyond the figure's edges by over half a point."""
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    page = figure.bbox
    # Ticks beyond an axis's limits exist and are never drawn.
    unseen = set()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        for tick in (tick for tick in (*axis.majorTicks, *axis.minorTicks) if not low <= tick.get_loc() <= high):
            unseen |= {tick.label1, tick.label2}
    outside = []
    for text in figure.findobj(Text):
        if not text.get_text().strip() or not text.get_visible() or text in unseen:
            continue
        box = text.get_window_extent(renderer)
        if box.x0 < page.x0 - 1 or box.x1 > page.x1 + 1 or box.y0 < page.y0 - 1 or box.y1 > page.y1 + 1:
            outside.append(text.get_text())
    return outside


@pytest.mark.parametrize("width", [COLUMN_INCHES, PAGE_INCHES])
def test_no_text_is_clipped_at_either_width(view: StudyView, width: float) -> None:
    for kind, figure in rendered(view, width):
        with settings(width):
            assert clipped(figure) == [], kind.name


@pytest.mark.parametrize("width", [COLUMN_INCHES, PAGE_INCHES])
def test_every_axis_names_its_quantity(view: StudyView, width: float) -> None:
    for kind, figure in rendered(view, width):
        for axes in figure.axes:
            if not axes.axison:  # the place of a key
                continue
            beside = [axes, *axes.get_shared_x_axes().get_siblings(axes)]
            above = [axes, *axes.get_shared_y_axes().get_siblings(axes)]
            assert any(other.get_xlabel() for other in beside), kind.name
            assert figure.get_supylabel() or any(other.get_ylabel() for other in above), kind.name


def test_png_and_svg_of_each_figure_are_written_and_repeat_to_the_byte(view: StudyView, tmp_path: Path) -> None:
    paths = draw_all(view, tmp_path / "figures")
    assert [path.name for path in paths] == [f"{kind.name}.{suffix}" for kind in FIGURES for suffix in ("png", "svg")]
    again = {kind.name: figure_bytes(figure, "svg") for kind, figure in rendered(view)}
    for kind in FIGURES:
        svg = (tmp_path / "figures" / f"{kind.name}.svg").read_bytes()
        assert svg == again[kind.name]
        assert not re.search(rb'(href|src)="https?:', svg)
    assert (tmp_path / "figures" / "isoflop.png").read_bytes()[16:20] == (1400).to_bytes(4, "big")


def test_figures_of_refused_estimators_are_left_out(view: StudyView) -> None:
    law_free = {"loss_against_compute", "hyperparameters", "makespan"}
    neither = dataclasses.replace(view, fit=refused(view.fit, "parametric", "isoflop"))
    assert {kind.name for kind, _ in rendered(neither)} == law_free
    lines_only = dataclasses.replace(view, fit=refused(view.fit, "parametric"))
    assert {kind.name for kind, _ in rendered(lines_only)} == law_free | {"isoflop", "allocation", "exponents"}


def test_a_rejected_minimum_is_marked_and_named(view: StudyView) -> None:
    first, *rest = view.fit.isoflop.optima
    edge = first.model_copy(update={"status": "edge", "params": None, "tokens": None, "loss": None})
    lines = view.fit.isoflop.model_copy(update={"optima": (edge, *rest)})
    shown = dataclasses.replace(view, fit=view.fit.model_copy(update={"isoflop": lines}))
    figure = next(figure for kind, figure in rendered(shown) if kind.name == "isoflop")
    assert any(text.get_text() == "no minimum: edge" for text in figure.findobj(Text))
    assert clipped(figure) == []


def test_a_bare_table_of_runs_can_be_drawn(make_view: Callable[..., StudyView]) -> None:
    observations = simulate(replicates=0).observations
    bare = make_view(observations=observations, curves=empty_curves(), forecast=None, outcome=None, recommendation=None)
    for kind, figure in rendered(bare, COLUMN_INCHES):
        assert clipped(figure) == [], kind.name
