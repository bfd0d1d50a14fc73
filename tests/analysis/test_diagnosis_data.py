"""What the figures of diagnosis show agrees with the fit's own findings; a bare table can be drawn with any law."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.bare_table import view_of_table
from analysis.diagnosis_data import trend
from analysis.figures.gallery import FIGURES, rendered
from analysis.interactive import plots
from analysis.study_view import StudyView
from analysis.style import COLUMN_INCHES
from scaling.fits.together import fit_table
from scaling.simulation import IsoflopDesign, random_small_truth, simulate_isoflop
from scaling.table import Table, read_table

from .test_figure_data import refused
from .test_figures import clipped


@pytest.fixture(scope="module")
def table() -> Table:
    """35 runs, an empty row before them and a diverged run in row 18."""
    rng = np.random.default_rng(2)
    theta, flops = random_small_truth(rng)
    runs = simulate_isoflop(theta, IsoflopDesign(5, 7, flops), 0.003, rng)
    runs.loc[16, "loss"] *= 1.5
    return read_table(pd.concat([pd.DataFrame({name: [np.nan] for name in runs}), runs], ignore_index=True))


@pytest.fixture(scope="module")
def bare(table: Table) -> StudyView:
    return view_of_table(table, fit_table(table, bootstrap=100), "mine")


def test_the_runs_marked_are_those_that_the_fit_warns_of_by_row(bare: StudyView) -> None:
    data = bare.diagnosis
    assert data is not None
    assert data.rows[data.far].tolist() == [18]
    told = {note.code: note.message for note in bare.fit.diagnostics}
    assert told["far-from-law"].startswith("row 18 lies far from the law")


def test_relative_errors_are_predicted_over_actual(bare: StudyView) -> None:
    data = bare.diagnosis
    assert data is not None
    predicted = bare.fitted["loss_nats"].to_numpy(float) * (1 + data.relative_error)
    assert data.relative_error[data.far] == pytest.approx(1 / 1.5 - 1, abs=0.02)
    assert np.corrcoef(predicted[~data.far], bare.fitted["loss_nats"].to_numpy(float)[~data.far])[0, 1] > 0.99


def test_profiles_and_the_fits_own_intervals_are_of_one_size(bare: StudyView) -> None:
    data = bare.diagnosis
    assert data is not None
    for one in data.profiles:
        if one.name in data.intervals and one.low is not None and one.high is not None:
            stated = data.intervals[one.name]
            assert stated.low is not None and stated.high is not None
            assert 0.4 < (one.high - one.low) / (stated.high - stated.low) < 2.5, one.name


def test_rows_of_a_study_count_those_to_be_fitted(view: StudyView, make_view: Callable[..., StudyView]) -> None:
    assert view.fitted_rows.tolist() == list(range(1, 21))
    observations = view.observations.copy()
    observations.loc[2, "status"] = "diverged"
    assert make_view(observations=observations).fitted_rows.tolist() == [1, 2, *range(4, 21)]


def test_a_refused_law_has_nothing_to_diagnose(view: StudyView, make_view: Callable[..., StudyView]) -> None:
    neither = make_view(fit=refused(view.fit, "parametric", "isoflop"))
    assert neither.diagnosis is None
    assert {plot.kind for plot in plots(neither)} == {"loss_against_compute", "hyperparameters", "makespan"}


def test_the_trend_is_the_median_of_each_level_or_of_equal_groups() -> None:
    x, y = np.repeat([1.0, 10.0, 100.0], 3), np.array([0, 1, 5, 2, 2, 9, 3, 3, 3.0])
    assert trend(x, y)[0] == pytest.approx([1, 10, 100])
    assert trend(x, y)[1].tolist() == [1, 2, 3]
    smooth = np.geomspace(1, 1e6, 240)
    middle, median = trend(smooth, np.log(smooth))
    assert len(middle) == 12
    assert median == pytest.approx(np.log(middle), abs=0.05)
    assert trend(np.ones(5), np.arange(5.0))[0].size == 0


@pytest.mark.parametrize("law", ["chinchilla", "kaplan", "skaling", "over-trained"])
def test_a_bare_table_is_drawn_with_any_law(table: Table, law: str) -> None:
    view = view_of_table(table, fit_table(table, law=law, bootstrap=20), "mine")
    drawn = {kind.name: figure for kind, figure in rendered(view, COLUMN_INCHES)}
    of_studies = {"hyperparameters", "makespan"}
    assert set(drawn) == {kind.name for kind in FIGURES} - of_studies
    for name, figure in drawn.items():
        assert clipped(figure) == [], name
    assert {plot.kind for plot in plots(view)} == set(drawn)


@pytest.mark.shared
def test_epochs_points_are_drawn_without_clipping(shared_data: Path) -> None:
    table = read_table(shared_data / "published" / "epoch_chinchilla_245.csv")
    view = view_of_table(table, fit_table(table, bootstrap=20), "epoch")
    for kind, figure in rendered(view):
        assert clipped(figure) == [], kind.name
