"""What the figures show agrees with the fit, the forecast and the runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from analysis.figure_data import allocation, isoflop, loss_against_compute, predicted_actual
from analysis.study_view import StudyView, empty_curves
from scaling.errors import UserError
from scaling.fit import Fit, IsoflopFit, ParametricFit
from scaling.laws.chinchilla import CHINCHILLA
from scaling.prediction import predict

from .conftest import HOLD_OUT_FLOPS, TRUTH


def refused(fit: Fit, *estimators: str) -> Fit:
    changes = {
        "parametric": ParametricFit(status="refused", reason="every run has 20 tokens a parameter"),
        "isoflop": IsoflopFit(status="refused", reason="no budget has four sizes"),
    }
    return fit.model_copy(update={name: changes[name] for name in estimators})


def test_the_frontier_is_the_forecast_at_every_compute(view: StudyView) -> None:
    frontier = loss_against_compute(view).frontier
    assert frontier is not None
    for place in (0, 30, 59):
        told = predict(view.fit, flops=float(frontier.x[place]))
        assert frontier.estimate[place] == pytest.approx(told.loss.estimate, rel=1e-9)


def test_the_frontiers_band_holds_the_true_law(view: StudyView) -> None:
    frontier = loss_against_compute(view).frontier
    assert frontier is not None
    truth = CHINCHILLA.predict(TRUTH, *CHINCHILLA.optimum(TRUTH, frontier.x))
    inside = (truth >= frontier.low * 0.998) & (truth <= frontier.high * 1.002)
    assert inside.all()


def test_hold_out_runs_are_never_among_the_fitted_points(view: StudyView) -> None:
    data = loss_against_compute(view)
    assert data.flops.max() < HOLD_OUT_FLOPS / 4
    assert data.hold_out is not None
    assert data.hold_out.losses.size == 2
    assert data.hold_out.forecast == view.forecast.loss  # type: ignore[union-attr]


def test_every_run_has_a_curve_that_ends_at_its_loss(view: StudyView) -> None:
    curves = {curve.run_key: curve for curve in loss_against_compute(view).curves}
    for _, run in view.observations.iterrows():
        assert curves[run["run_key"]].loss[-1] == pytest.approx(run["loss_nats"])


def test_curves_without_held_out_losses_fall_back_to_training_loss(
    make_view: Callable[..., StudyView], view: StudyView
) -> None:
    curves = loss_against_compute(make_view(curves=view.curves.assign(held_out_loss=np.nan))).curves
    assert len(curves) == len(view.observations)
    assert all(curve.loss.size > 3 for curve in curves)


def test_a_study_without_curves_still_has_its_points(make_view: Callable[..., StudyView]) -> None:
    data = loss_against_compute(make_view(curves=empty_curves()))
    assert data.curves == ()
    assert data.flops.size == 20


def test_every_fitted_run_lies_on_the_line_of_its_budget(view: StudyView) -> None:
    data = isoflop(view)
    assert data is not None
    assert [line.params.size for line in data.lines] == [5, 5, 5, 5]
    for line in data.lines:
        if line.optimum.params is not None and line.optimum.loss is not None:
            at_minimum = np.interp(line.optimum.params.estimate, line.curve_params, line.curve_loss)
            assert at_minimum == pytest.approx(line.optimum.loss.estimate, rel=1e-3)


def test_parameters_times_tokens_is_the_compute(view: StudyView) -> None:
    data = allocation(view)
    assert data is not None
    for line in data.lines:
        product = 6 * line.params.estimate * line.tokens.estimate
        np.testing.assert_allclose(product, line.params.x, rtol=2e-3)


def test_both_estimators_and_the_published_laws_stand_side_by_side(view: StudyView) -> None:
    data = allocation(view)
    assert data is not None
    assert [line.kind for line in data.lines][:2] == ["parametric", "isoflop"]
    assert {"Hoffmann", "Besiroglu", "Kaplan"} <= {line.name for line in data.lines}
    assert data.lines[0].params.x[-1] >= view.target_flops  # type: ignore[operator]


def test_the_hold_outs_prediction_is_the_registered_one(view: StudyView, make_view: Callable[..., StudyView]) -> None:
    assert view.forecast is not None
    registered = view.forecast.model_copy(update={"loss": view.forecast.loss.model_copy(update={"estimate": 4.0})})
    data = predicted_actual(make_view(forecast=registered))
    assert data is not None
    assert (data.predicted[data.hold_out] == 4.0).all()
    assert np.isnan(data.low[~data.hold_out]).all()


def test_residuals_of_fitted_runs_are_as_large_as_their_noise(view: StudyView) -> None:
    data = predicted_actual(view)
    assert data is not None
    assert 0.001 < data.relative_error[~data.hold_out].std() < 0.008


def test_refused_estimators_leave_their_figures_out(view: StudyView) -> None:
    neither = dataclasses.replace(view, fit=refused(view.fit, "parametric", "isoflop"))
    assert predicted_actual(neither) is None
    assert isoflop(neither) is None
    assert allocation(neither) is None
    assert loss_against_compute(neither).frontier is None


def test_a_fit_without_resampling_still_has_the_forecasts_band(view: StudyView) -> None:
    bare = view.fit.model_copy(update={"parametric": view.fit.parametric.model_copy(update={"draws": ()})})
    frontier = loss_against_compute(dataclasses.replace(view, fit=bare)).frontier
    assert frontier is not None
    assert (frontier.low < frontier.estimate).all() and (frontier.estimate < frontier.high).all()


def test_a_table_that_lacks_columns_is_refused_by_name(make_view: Callable[..., StudyView], view: StudyView) -> None:
    with pytest.raises(UserError, match="observations lacks the columns loss_nats"):
        make_view(observations=view.observations.drop(columns="loss_nats"))
    with pytest.raises(UserError, match="curves lacks the columns flops"):
        make_view(curves=pd.DataFrame(columns=["run_key", "step", "tokens", "train_loss", "held_out_loss"]))
