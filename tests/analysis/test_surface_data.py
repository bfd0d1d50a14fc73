"""The loss surface is the fitted law's, with every run on it, and the target only where it is in reach."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from analysis.figure_data import theta_of
from analysis.figures.surface import contour_levels
from analysis.plotly_surface import surface_plot
from analysis.study_view import StudyView
from analysis.surface_data import Surface, surface
from scaling.laws.chinchilla import CHINCHILLA
from scaling.recommend import recommend

from .test_figure_data import refused


@pytest.fixture(scope="module")
def data(view: StudyView) -> Surface:
    made = surface(view)
    assert made is not None
    return made


def test_the_surface_is_the_fitted_law(view: StudyView, data: Surface) -> None:
    theta = theta_of(view.fit.parametric)
    for row, column in ((0, 0), (10, 50), (63, 5)):
        expected = CHINCHILLA.predict(theta, data.grid_params[column], data.grid_tokens[row])
        assert data.grid_loss[row, column] == pytest.approx(float(expected))


def test_every_run_lies_in_the_frame_with_its_role(view: StudyView, data: Surface) -> None:
    assert data.loss.size == len(view.observations)
    assert data.hold_out.sum() == len(view.held_out)
    for values, axis in ((data.params, data.grid_params), (data.tokens, data.grid_tokens)):
        assert axis[0] < values.min() and values.max() < axis[-1]


def test_the_way_of_the_optimum_is_the_cheapest_size_of_each_compute(view: StudyView, data: Surface) -> None:
    path = data.optimum
    assert path is not None
    theta = theta_of(view.fit.parametric)
    here = CHINCHILLA.predict(theta, path.estimate, data.tokens_of(path.x, path.estimate))
    for factor in (0.9, 1.1):
        beside = CHINCHILLA.predict(theta, factor * path.estimate, data.tokens_of(path.x, factor * path.estimate))
        assert (beside > here).all()
    assert (path.low <= path.estimate).all() and (path.estimate <= path.high).all()


def test_lines_of_equal_compute_are_powers_of_ten_through_the_frame(data: Surface) -> None:
    assert len(data.diagonals) <= 6
    assert np.log10(data.diagonals) == pytest.approx(np.log10(data.diagonals).round())
    for flops in data.diagonals:
        product = data.flops_per_param_token * data.grid_params * data.tokens_of(flops, data.grid_params)
        assert product == pytest.approx(flops)


def test_a_target_ten_orders_away_is_left_out_and_a_near_one_is_shown(make_view: Callable[..., StudyView]) -> None:
    far = make_view()
    assert far.recommendation is not None and far.recommendation.illustration
    assert surface(far).target is None  # type: ignore[union-attr]
    near = make_view(recommendation=recommend(far.fit, flops=1e14, study="simulated"))
    shown = surface(near)
    assert shown is not None and shown.target is not None
    assert shown.grid_params[-1] > shown.target.params.estimate
    assert shown.grid_tokens[-1] > shown.target.tokens.estimate


def test_one_size_alone_still_has_a_surface(make_view: Callable[..., StudyView], view: StudyView) -> None:
    rows = view.observations[view.observations["params_total"] == view.observations["params_total"].median()]
    made = surface(make_view(observations=rows))
    assert made is not None
    assert made.grid_params[-1] / made.grid_params[0] >= 30


def test_without_a_law_there_is_no_surface(view: StudyView) -> None:
    assert surface(dataclasses.replace(view, fit=refused(view.fit, "parametric"))) is None


def test_plotlys_contours_are_at_the_printed_losses(data: Surface) -> None:
    drawn = surface_plot(data)
    labels = {text for trace in drawn.data[1:] if trace.mode == "lines+text" for text in trace.text if text}
    assert {f"{level:.4g}" for level in contour_levels(data, 12)[1:-1]} <= labels
