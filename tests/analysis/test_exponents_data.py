"""The cloud of exponents is the fit's own resamples, its outline holds what it says, published laws stand beside."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from matplotlib.path import Path as Outline

from analysis.exponents_data import Exponents, exponents, published_exponents
from analysis.figures.exponents import rays
from analysis.study_view import StudyView

from .test_figure_data import refused


@pytest.fixture(scope="module")
def data(view: StudyView) -> Exponents:
    made = exponents(view)
    assert made is not None
    return made


def test_the_cloud_is_the_fits_resamples(view: StudyView, data: Exponents) -> None:
    assert data.cloud is not None
    kept = {(alpha, beta) for *_, alpha, beta in view.fit.parametric.draws}
    assert {(float(alpha), float(beta)) for alpha, beta in data.cloud.draws} <= kept
    assert data.cloud.estimate[0] == view.fit.parametric.parameters["alpha"].estimate


def test_the_outline_holds_nine_resamples_of_ten(data: Exponents) -> None:
    assert data.cloud is not None
    inside = np.zeros(len(data.cloud.draws), dtype=bool)
    for line in data.cloud.outlines:
        inside |= Outline(line).contains_points(data.cloud.draws)
    assert inside.mean() == pytest.approx(data.level, abs=0.02)


def test_each_estimators_exponent_is_the_fits_with_its_interval(view: StudyView, data: Exponents) -> None:
    assert [each.kind for each in data.estimators] == ["parametric", "isoflop"]
    for each, part in zip(data.estimators, (view.fit.parametric, view.fit.isoflop), strict=True):
        assert each.interval == part.n_exponent
        peak = each.values[np.argmax(each.density)]
        assert part.n_exponent.low < peak < part.n_exponent.high  # type: ignore[operator,union-attr]


def test_published_exponents_are_those_of_their_papers() -> None:
    told = {law.key: law for law in published_exponents()}
    assert told["hoffmann"].n_exponent == pytest.approx(0.2849 / (0.3392 + 0.2849), abs=1e-3)
    assert told["twenty"].n_exponent == pytest.approx(0.5)
    assert told["kaplan"].n_exponent == pytest.approx(0.73, abs=0.02)
    assert told["porian"].n_exponent == 0.5185 and told["porian"].alpha_beta is None
    assert told["besiroglu"].alpha_beta == pytest.approx((0.3478, 0.3658))


def test_along_a_ray_the_exponent_is_what_it_says(data: Exponents) -> None:
    assert data.cloud is not None
    for a, alpha, beta in rays(data.cloud):
        assert beta / (alpha + beta) == pytest.approx(a)


def test_lines_without_a_law_have_exponents_and_no_cloud(view: StudyView) -> None:
    data = exponents(dataclasses.replace(view, fit=refused(view.fit, "parametric")))
    assert data is not None and data.cloud is None
    assert [each.kind for each in data.estimators] == ["isoflop"]
    assert exponents(dataclasses.replace(view, fit=refused(view.fit, "parametric", "isoflop"))) is None


def test_a_fit_without_resamples_has_points_and_no_densities(view: StudyView) -> None:
    bare = view.fit.model_copy(
        update={
            "parametric": view.fit.parametric.model_copy(update={"draws": ()}),
            "isoflop": view.fit.isoflop.model_copy(update={"draws": ()}),
        }
    )
    data = exponents(dataclasses.replace(view, fit=bare))
    assert data is not None and data.cloud is None
    assert all(each.values.size == 0 for each in data.estimators)
