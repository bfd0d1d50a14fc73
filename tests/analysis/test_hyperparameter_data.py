"""Valleys and laws as the figure and the table show them, from trials whose truth is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from analysis.figures.gallery import FIGURES
from analysis.figures.hyperparameters import draw
from analysis.hyperparameter_data import hyperparameters
from analysis.study_view import StudyView
from analysis.style import COLUMN_INCHES, PAGE_INCHES, settings
from analysis.tables.hyperparameters import hyperparameters as table
from scaling.fits.tuned_law import TunedTrial, fit_tuned_law
from scaling.hyperparameters import fixed_rate, tuned_rate

from ..scaling.fits.test_tuned_law import BATCH, RATE, best, trials
from .conftest import probed
from .test_figures import clipped


@pytest.fixture(scope="module")
def tuned(make_view: Callable[..., StudyView]) -> StudyView:
    pruned = TunedTrial(params=1e5, tokens=1e6, values={RATE: 0.05, BATCH: 300.0}, loss=None, state="pruned")
    return make_view(learning_rates=tuned_rate(fit_tuned_law([*trials(), pruned])))


def test_each_valley_is_seen_without_what_the_other_hyperparameters_cost(tuned: StudyView) -> None:
    data = hyperparameters(tuned)
    assert data is not None
    for panel in data.panels:
        for valley in panel.valleys:
            inside = (valley.values > valley.curve_values[0]) & (valley.values < valley.curve_values[-1])
            assert inside.sum() > 5
            on_curve = np.interp(np.log(valley.values), np.log(valley.curve_values), valley.curve_excess)
            assert valley.excess[inside] == pytest.approx(on_curve[inside], abs=2e-4)
    lost = np.concatenate([valley.lost for valley in data.panels[0].valleys])
    assert lost == pytest.approx([0.05]), "pruned, so without a loss"


def test_the_law_goes_through_the_bottoms_to_the_recommended_run(tuned: StudyView) -> None:
    data, made = hyperparameters(tuned), tuned.recommendation
    assert data is not None and made is not None
    rate, batch = data.panels
    for bottom, cell in zip(rate.bottoms, tuned.learning_rates.tuned.cells, strict=True):  # type: ignore[union-attr]
        assert bottom.value.estimate == pytest.approx(best(cell.params, cell.tokens)[0], rel=1e-4)
        assert bottom.trusted
    target = best(made.params.estimate, made.tokens.estimate)
    for panel, wanted in ((rate, target[0]), (batch, target[1])):
        assert panel.target is not None and panel.law is not None
        assert panel.target[1].estimate == pytest.approx(wanted, rel=1e-3)
        assert panel.law.estimate[-1] == pytest.approx(wanted, rel=1e-3), "it ends there"


def test_a_probe_shows_its_parabolas_and_a_rate_that_diverged_has_no_loss(view: StudyView) -> None:
    data = hyperparameters(view)
    assert data is not None
    (panel,) = data.panels
    small, large = panel.valleys
    assert small.curve_excess.min() == pytest.approx(0.0, abs=1e-4)
    assert large.lost == pytest.approx([0.04])
    assert panel.bottoms[0].value.estimate == pytest.approx(0.01, rel=1e-6)


def test_without_a_probe_there_is_no_figure_but_the_table_tells_the_rate(make_view: Callable[..., StudyView]) -> None:
    given = make_view(learning_rates=fixed_rate(0.004))
    assert hyperparameters(given) is None
    assert "0.004" in table(given).rows[0][1].text
    assert hyperparameters(make_view(learning_rates=None)) is None
    assert table(make_view(learning_rates=None)).rows == ()


def test_the_table_prices_a_wrong_guess(view: StudyView, tuned: StudyView) -> None:
    law = probed()
    (row,) = table(view).rows
    assert law.valleys[-1][1].costs(2.0) == pytest.approx(0.02 * np.log(2) ** 2)
    assert row[5].text == row[6].text == "+0.96%"
    texts = [cell.text for cell in table(tuned).rows[0]]
    assert "+0.45%" in texts and "+0.52%" in texts, "the valley is steeper above its bottom"


@pytest.mark.parametrize("width", [COLUMN_INCHES, PAGE_INCHES])
def test_many_hyperparameters_still_fit_the_page(tuned: StudyView, width: float) -> None:
    data = hyperparameters(tuned)
    assert data is not None
    more = tuple(dataclasses.replace(panel, title=f"{panel.title} of a long name") for panel in data.panels * 2)
    with settings(width):
        assert clipped(draw(dataclasses.replace(data, panels=more), width)) == []
    assert "hyperparameters" in [kind.name for kind in FIGURES]
