from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.allocation import LossSurface, inference_optimum
from scaling.errors import UserError
from scaling.fit import Fit
from scaling.laws.effective_data import optimal_params_for

laws = st.tuples(
    st.floats(50, 5e3), st.floats(50, 5e3), st.floats(0.5, 3), st.floats(0.2, 0.7), st.floats(0.2, 0.7)
).map(lambda theta: LossSurface(np.array([theta]), 0.9))


def test_sardanas_example_seven_instead_of_thirteen_billion_for_two_trillion_served_tokens(
    hoffmann: LossSurface,
) -> None:
    """2401.00448, figure 1: a 7B model saves 1.7e22 FLOPs, 17%, over the compute-optimal 13B."""
    _, flops = _optimal_for(hoffmann, 13e9)
    found = inference_optimum(hoffmann, serve_tokens=2e12, flops=flops)
    assert found.compute_optimal_params.estimate == pytest.approx(13e9, rel=1e-6)
    assert found.params.estimate == pytest.approx(7e9, rel=0.02)
    assert found.saved_flops.estimate == pytest.approx(1.7e22, rel=0.02)
    assert found.saved_share.estimate == pytest.approx(0.17, abs=0.005)


def _optimal_for(surface: LossSurface, params: float) -> tuple[float, float]:
    """Tokens and FLOPs of the compute-optimal run of ``params``."""
    low, high = 1e8, 1e15
    for _ in range(200):
        tokens = (low * high) ** 0.5
        too_many = float(optimal_params_for(surface.theta_KP, tokens)[0]) > params
        low, high = (low, tokens) if too_many else (tokens, high)
    return tokens, 6 * params * tokens


@given(laws, st.floats(18, 25), st.floats(-2, 3))
def test_no_other_size_of_the_same_loss_is_cheaper_over_its_life(
    surface: LossSurface, log_c: float, log_ratio: float
) -> None:
    flops = 10**log_c
    params, tokens = surface.optimum(flops)
    served = float(tokens[0]) * 10**log_ratio
    found = inference_optimum(surface, serve_tokens=served, flops=flops)
    aim = surface.optimal_loss(flops)

    def life(size: float) -> float:
        return float(surface.flops(size, surface.tokens_for(aim, size))[0]) + 2 * size * served

    best = life(found.params.estimate)
    assert best == pytest.approx(found.training_flops.estimate + found.serving_flops.estimate, rel=1e-6)
    assert best <= life(float(params[0])) * (1 + 1e-9)
    assert found.saved_flops.estimate == pytest.approx(life(float(params[0])) - best, rel=1e-3, abs=1e-7 * best)
    for factor in np.geomspace(0.5, 2, 21):
        assert life(found.params.estimate * factor) >= best * (1 - 1e-9)


@given(laws, st.floats(18, 25), st.floats(-2, 2))
def test_a_lifes_budget_is_spent_and_no_other_size_makes_more_of_it(
    surface: LossSurface, log_c: float, log_ratio: float
) -> None:
    budget = 10**log_c
    served = float(surface.optimum(budget)[1][0]) * 10**log_ratio
    found = inference_optimum(surface, serve_tokens=served, lifetime_flops=budget)
    assert found.training_flops.estimate + found.serving_flops.estimate == pytest.approx(budget, rel=1e-6)
    for factor in np.geomspace(0.5, 2, 21):
        size = found.params.estimate * factor
        tokens = (budget - 2 * size * served) / (6 * size)
        if tokens > 0:
            assert float(surface.loss(size, tokens)[0]) >= found.loss.estimate * (1 - 1e-12)


def test_who_serves_little_trains_the_compute_optimum(lab_fit: Fit) -> None:
    found = inference_optimum(lab_fit, serve_tokens=1e3, flops=1e22)
    assert found.params.estimate == pytest.approx(found.compute_optimal_params.estimate, rel=1e-3)
    assert found.saved_share.estimate == pytest.approx(0, abs=1e-6)


def test_the_more_is_served_the_smaller_and_the_longer(lab_fit: Fit) -> None:
    found = [inference_optimum(lab_fit, serve_tokens=served, flops=1e22) for served in (1e11, 1e12, 1e13)]
    sizes, tokens = [f.params.estimate for f in found], [f.tokens.estimate for f in found]
    assert sizes == sorted(sizes, reverse=True)
    assert tokens == sorted(tokens)


def test_intervals_hold_the_truth(lab_fit: Fit, lab_truth: np.ndarray) -> None:
    truth = inference_optimum(LossSurface(lab_truth[None, :], 0.9), serve_tokens=1e13, flops=1e22)
    found = inference_optimum(lab_fit, serve_tokens=1e13, flops=1e22)
    for name in ("params", "tokens", "saved_share", "training_flops"):
        interval, true = getattr(found, name), getattr(truth, name).estimate
        assert interval.low <= true <= interval.high
    assert "saves" in found.summary()


def test_what_can_not_be_asked_is_refused(lab_fit: Fit) -> None:
    with pytest.raises(UserError, match="no lower than E"):
        inference_optimum(lab_fit, serve_tokens=1e12, loss=1.5)
    with pytest.raises(UserError, match="one of flops, loss"):
        inference_optimum(lab_fit, serve_tokens=1e12, loss=2.5, flops=1e21)
    with pytest.raises(UserError, match="serve_tokens"):
        inference_optimum(lab_fit, serve_tokens=0, flops=1e21)
    with pytest.raises(UserError, match="lifetime_flops"):
        inference_optimum(lab_fit, serve_tokens=1e12, lifetime_flops=1e11)
