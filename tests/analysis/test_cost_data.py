"""What a budget buys is the recommendation's own numbers, and the flat sizes those of the allocation."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from analysis.cost_data import Cost, cost
from analysis.study_view import StudyView
from scaling.recommend import recommend

from .test_figure_data import refused


@pytest.fixture(scope="module")
def data(view: StudyView) -> Cost:
    made = cost(view)
    assert made is not None
    return made


def test_the_line_goes_through_the_recommended_run(view: StudyView, data: Cost) -> None:
    made = view.recommendation
    assert made is not None and made.loss is not None
    assert np.interp(np.log(made.flops), np.log(data.loss.x), data.loss.estimate) == pytest.approx(
        made.loss.estimate, rel=2e-3
    )
    at_target = np.exp(np.interp(np.log(made.flops), np.log(data.params.x), np.log(data.params.estimate)))
    assert at_target == pytest.approx(made.params.estimate, rel=0.02)


def test_more_compute_never_costs_loss(data: Cost) -> None:
    assert (np.diff(data.loss.estimate) < 0).all()
    assert [step.difference > 0 for step in data.steps] == [step.factor < 1 for step in data.steps]


def test_dollars_and_hours_at_the_target_are_the_recommendations(view: StudyView, data: Cost) -> None:
    assert view.recommendation is not None and view.recommendation.cluster is not None and data.hardware is not None
    cluster, flops = view.recommendation.cluster, view.recommendation.flops
    assert data.hardware.usd_per_flop * flops == pytest.approx(cluster.usd.estimate)
    assert data.hardware.gpu_hours_per_flop * flops == pytest.approx(cluster.gpu_hours.estimate)


def test_sizes_that_lose_more_lie_around_those_that_lose_less(data: Cost) -> None:
    assert [share for share, _, _ in data.regions] == [0.003, 0.01, 0.03]
    for (_, low, high), (_, lower, higher) in zip(data.regions, data.regions[1:], strict=False):
        assert (lower < low).all() and (high < higher).all()
    _, low, high = data.regions[0]
    assert (low < data.params.estimate).all() and (data.params.estimate < high).all()


def test_without_a_recommendation_the_line_goes_on_from_the_runs(view: StudyView) -> None:
    data = cost(dataclasses.replace(view, recommendation=None))
    assert data is not None
    assert data.hardware is None and data.steps == () and data.target_flops is None
    assert data.loss.x[0] < view.fit.fitted_range.flops[1] < data.loss.x[-1]


def test_a_run_that_costs_less_than_a_cent_has_no_axis_of_dollars(view: StudyView) -> None:
    toy = dataclasses.replace(view, recommendation=recommend(view.fit, flops=1e13, study="simulated"))
    data = cost(toy)
    assert data is not None and data.target_flops == 1e13
    assert data.hardware is None


def test_without_a_law_of_the_loss_there_is_no_figure(view: StudyView) -> None:
    assert cost(dataclasses.replace(view, fit=refused(view.fit, "parametric"))) is None
