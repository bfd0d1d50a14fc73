from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.allocation import LossSurface, limited_data_optimum, repetition_constants
from scaling.errors import UserError
from scaling.fit import Fit
from scaling.fits.huber import sum_of_huber
from scaling.laws.chinchilla import CHINCHILLA
from scaling.laws.effective_data import effective_params, effective_tokens, optimal_params_for

laws = st.tuples(
    st.floats(50, 5e3), st.floats(50, 5e3), st.floats(0.5, 3), st.floats(0.2, 0.7), st.floats(0.2, 0.7)
).map(lambda theta: LossSurface(np.array([theta]), 0.9))


def _loss(surface: LossSurface, params: float, tokens: float, unique: float, r_d: float, r_n: float) -> float:
    called_for = optimal_params_for(surface.theta_KP, unique)
    effective = effective_tokens(tokens, unique, r_d)
    return float(surface.loss(effective_params(params, called_for, r_n), effective)[0])


@given(laws, st.floats(18, 25), st.floats(-3, 1), st.sampled_from(["muennighoff", "datablations-minimum"]))
def test_no_other_split_of_the_compute_does_better(surface: LossSurface, log_c: float, log_u: float, key: str) -> None:
    flops, constants = 10**log_c, repetition_constants(key)
    unique = float(surface.optimum(flops)[1][0]) * 10**log_u
    found = limited_data_optimum(surface, flops, unique, constants)
    pair = constants.r_d, constants.r_n
    best = _loss(surface, found.params.estimate, found.tokens.estimate, unique, *pair)
    assert best == pytest.approx(found.loss.estimate)
    assert 6 * found.params.estimate * found.tokens.estimate == pytest.approx(flops)
    for factor in np.geomspace(1e-2, 1e2, 81):
        size = found.params.estimate * factor
        assert _loss(surface, size, flops / 6 / size, unique, *pair) >= best * (1 - 1e-10)


def test_enough_text_changes_nothing(lab_fit: Fit) -> None:
    found = limited_data_optimum(lab_fit, 1e22, 1e13)
    assert found.params.estimate == pytest.approx(found.unlimited_params.estimate)
    assert found.caveat is None
    assert found.loss_excess.estimate == pytest.approx(0, abs=1e-12)
    assert found.repeated_worth.estimate == 1
    assert "nothing need be repeated" in found.summary()


def test_scarce_text_is_seen_again_by_a_smaller_model_and_costs_loss_that_compute_can_not_buy_back(
    lab_fit: Fit,
) -> None:
    """Muennighoff et al.: with limited data epochs should grow faster than size."""
    found = limited_data_optimum(lab_fit, 1e23, 5e10)
    assert found.params.estimate < found.unlimited_params.estimate
    assert found.epochs.estimate > found.unlimited_tokens.estimate / 5e10
    assert 0 < found.last_token_worth.estimate < found.repeated_worth.estimate < 1
    assert found.loss.estimate > found.floor.estimate > lab_fit.parametric.parameters["E"].estimate
    assert limited_data_optimum(lab_fit, 1e27, 5e10).loss.estimate == pytest.approx(found.floor.estimate)
    assert found.caveat is not None and "weakly identified" in found.caveat


def test_intervals_hold_the_truth(lab_fit: Fit, lab_truth: np.ndarray) -> None:
    truth = limited_data_optimum(LossSurface(lab_truth[None, :], 0.9), 1e23, 5e10)
    found = limited_data_optimum(lab_fit, 1e23, 5e10)
    for name in ("params", "epochs", "loss", "loss_excess", "floor"):
        interval, true = getattr(found, name), getattr(truth, name).estimate
        assert interval.low <= true <= interval.high


def test_unknown_constants_and_impossible_amounts_are_refused(lab_fit: Fit) -> None:
    with pytest.raises(UserError, match="muennighoff, datablations-minimum"):
        repetition_constants("chinchilla")
    with pytest.raises(UserError, match="unique_tokens"):
        limited_data_optimum(lab_fit, 1e22, -1)


@pytest.mark.shared
def test_the_published_pair_is_not_the_minimum_of_its_own_objective(shared_data: Path) -> None:
    """Σ Huber 0.0158259 as published, 0.0158047 at R_D* 95.4 and R_N* 1.71: the pair is weakly identified."""
    runs = pd.read_csv(shared_data / "published" / "datablations_c4_fit182.csv")
    theta = np.array([np.exp(6.255414), np.exp(7.3049974), np.exp(0.6254804), 0.3526596, 0.3526596])
    unique = np.minimum(runs["unique_tokens"], runs["tokens"]).to_numpy(dtype=np.float64)
    objective = {}
    for key in ("muennighoff", "datablations-minimum"):
        pair = repetition_constants(key)
        called_for = optimal_params_for(theta, unique)
        params = effective_params(runs["n_params"], called_for, pair.r_n)
        predicted = CHINCHILLA.predict(theta, params, effective_tokens(runs["tokens"], unique, pair.r_d))
        objective[key] = float(sum_of_huber(np.log(predicted) - np.log(runs["loss"].to_numpy()), 1e-3))
    assert objective["muennighoff"] == pytest.approx(0.0158259366, rel=1e-6)
    assert objective["datablations-minimum"] == pytest.approx(0.01580466, rel=1e-5)
