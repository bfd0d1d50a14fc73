"""The back-test's picture agrees with what the fit says of its cuts, run by run and at every level."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from analysis.coverage_data import Coverage, coverage
from analysis.figures.coverage import side_by_side
from analysis.study_view import StudyView

from .test_figure_data import refused


@pytest.fixture(scope="module")
def data(view: StudyView) -> Coverage:
    made = coverage(view)
    assert made is not None
    return made


def test_each_cut_has_as_many_runs_inside_as_the_fit_says(view: StudyView, data: Coverage) -> None:
    cuts = view.fit.drift.back_test or ()
    assert len(cuts) >= 2
    for index, cut in enumerate(cuts):
        here = data.cut == index
        assert here.sum() == cut.predicted
        assert data.inside[here].sum() == cut.inside
        assert np.sqrt(np.mean(np.log1p(data.error[here]) ** 2)) == pytest.approx(cut.rms_error)


def test_the_share_at_the_fits_level_is_that_of_its_intervals(data: Coverage) -> None:
    at = int(np.argmin(np.abs(data.nominal - data.level)))
    assert data.share[at] == pytest.approx(data.inside.mean())
    assert (np.diff(data.share) >= 0).all()
    assert (data.share[0], data.share[-1]) == (0, 1)


def test_on_a_study_whose_law_is_true_the_intervals_hold(data: Coverage) -> None:
    low, high = data.chance
    assert ((data.share >= low - 0.1) & (data.share <= high + 0.2)).all()


def test_runs_lie_beyond_what_their_forecast_had_seen(data: Coverage) -> None:
    assert (data.beyond > 1).all()
    assert side_by_side(data) == pytest.approx(data.beyond, rel=0.15)
    assert len(np.unique(side_by_side(data))) == data.beyond.size


def test_the_hold_outs_registered_forecast_stands_beside(view: StudyView, data: Coverage) -> None:
    assert data.registered is not None and view.outcome is not None
    beyond, error, low, high = data.registered
    assert beyond == pytest.approx(5e12 / view.fit.fitted_range.flops[1])
    assert error == pytest.approx(view.outcome.relative_error)
    assert (low <= 0 <= high) == view.outcome.inside


def test_a_fit_that_was_not_back_tested_has_no_figure(view: StudyView) -> None:
    assert coverage(dataclasses.replace(view, fit=refused(view.fit, "parametric"))) is None
    drift = view.fit.drift.model_copy(update={"back_test": ()})
    assert coverage(dataclasses.replace(view, fit=view.fit.model_copy(update={"drift": drift}))) is None
