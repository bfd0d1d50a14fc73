from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scaling.allocation import LossSurface, candidate_worth, regret, sweep_worth
from scaling.errors import UserError
from scaling.fit import Fit
from scaling.fits.together import fit_table
from scaling.laws.chinchilla import CHINCHILLA
from scaling.simulation import IsoflopDesign, simulate_isoflop

NOISE = 0.003
RUNS = simulate_isoflop(
    np.array([482.01, 2085.43, 1.81686, 0.34781, 0.36585]), IsoflopDesign(5, 7, 1e19), NOISE, np.random.default_rng(0)
)


def _jacobian(logs: np.ndarray, params: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    return CHINCHILLA.response_and_gradient(logs, np.log([params, tokens]))[1]


def _with_gaussian_draws(fit: Fit, covariance: np.ndarray, draws: int) -> Fit:
    """``fit`` with draws from a normal around its estimate, in (ln A, ln B, ln E, α, β)."""
    drawn = np.random.default_rng(1).multivariate_normal(_logs(fit), covariance, size=draws)
    part = fit.parametric.model_copy(update={"draws": tuple(map(tuple, CHINCHILLA.theta_of(drawn).tolist()))})
    return fit.model_copy(update={"parametric": part})


def _logs(fit: Fit) -> np.ndarray:
    return CHINCHILLA.free_of([fit.parametric.parameters[name].estimate for name in CHINCHILLA.NAMES])


def test_the_expected_regret_is_half_alpha_beta_reducible_loss_times_the_variance_of_ln_n(lab_fit: Fit) -> None:
    surface = LossSurface.of(lab_fit)
    _, _, E, alpha, beta = (float(constant[0]) for constant in surface.constants)
    variance = float(np.log(surface.optimum(1e23)[0][1:] / surface.optimum(1e23)[0][0]).__pow__(2).mean())
    second_order = 0.5 * alpha * beta * (float(surface.optimal_loss(1e23)[0]) - E) * variance
    assert float(regret(lab_fit, 1e23).mean()) == pytest.approx(second_order, rel=0.1)
    assert (regret(lab_fit, 1e23) >= 0).all()


def test_at_the_stopping_point_a_sweep_flop_is_worth_one_final_run_flop(lab_fit: Fit) -> None:
    found = sweep_worth(lab_fit, 1e25, 1.5e21)
    assert found.sweep_on == (found.sweep_flop_worth > 1) == (found.stop_at_flops > found.sweep_flops)
    # With the regret falling as 1/S, the worth falls as 1/S².
    at_stop = found.sweep_flop_worth * (found.sweep_flops / found.stop_at_flops) ** 2
    assert at_stop == pytest.approx(1)
    surface = LossSurface.of(lab_fit)
    bought = float((surface.optimal_loss(1e25) - surface.optimal_loss(1e25 + found.regret_flops))[0])
    assert bought == pytest.approx(found.regret, rel=0.01)


def test_stopping_there_leaves_the_lowest_loss_for_both_together(lab_fit: Fit) -> None:
    """Of one budget for sweep and final run, no other split does better."""
    surface, found = LossSurface.of(lab_fit), sweep_worth(lab_fit, 1e25, 1.5e21)

    def loss_after(sweep: float) -> float:
        final = 1e25 - (sweep - found.stop_at_flops)
        return float(surface.optimal_loss(final)[0]) + found.regret * found.sweep_flops / sweep

    losses = [loss_after(found.stop_at_flops * factor) for factor in np.geomspace(0.3, 3, 21)]
    assert int(np.argmin(losses)) == 10


def test_the_larger_the_final_run_the_more_sweep_is_worth(lab_fit: Fit) -> None:
    worths = [sweep_worth(lab_fit, flops, 1.5e21) for flops in (1e21, 1e23, 1e25)]
    assert [w.sweep_flop_worth for w in worths] == sorted(w.sweep_flop_worth for w in worths)
    assert not worths[0].sweep_on and worths[-1].sweep_on
    assert "stop sweeping" in worths[0].summary() and "sweep on" in worths[-1].summary()


def test_a_candidates_worth_is_what_the_regret_falls_by_when_it_is_added(lab_fit: Fit) -> None:
    """Exact in the linear Gaussian model: the covariance of the runs, and of the runs with the candidate."""
    logs, flops = _logs(lab_fit), 1e23
    rows = _jacobian(logs, RUNS["params"].to_numpy(), RUNS["tokens"].to_numpy()) / NOISE
    information = rows.T @ rows
    candidates = [(3e7, 3e9), (3e9, 6e9), (5e8, 2e10)]
    before = _with_gaussian_draws(lab_fit, np.linalg.inv(information), 4000)
    found = candidate_worth(before, flops, candidates, noise=NOISE)
    assert len(found) == 3
    assert [one.flop_worth for one in found] == sorted((one.flop_worth for one in found), reverse=True)
    for one in found:
        row = _jacobian(logs, np.array([one.params]), np.array([one.tokens])) / NOISE
        after = _with_gaussian_draws(lab_fit, np.linalg.inv(information + row.T @ row), 4000)
        assert one.regret_after == pytest.approx(float(regret(after, flops).mean()), rel=0.05)


def test_a_candidate_outside_the_fitted_runs_is_marked(lab_fit: Fit) -> None:
    inside, outside = (candidate_worth(lab_fit, 1e23, [run])[0] for run in ((5e8, 5e9), (1e5, 1e9)))
    assert inside.inside and not outside.inside
    assert "outside the fitted runs" in outside.summary()


def test_what_says_nothing_of_uncertainty_is_refused(lab_fit: Fit) -> None:
    blunt = lab_fit.model_copy(update={"parametric": lab_fit.parametric.model_copy(update={"draws": ()})})
    with pytest.raises(UserError, match="--bootstrap"):
        sweep_worth(blunt, 1e23, 1e21)
    with pytest.raises(UserError, match="sweep_flops"):
        sweep_worth(lab_fit, 1e23, 0)
    with pytest.raises(UserError, match="candidates is empty"):
        candidate_worth(lab_fit, 1e23, [])


@pytest.mark.slow
@pytest.mark.parametrize("copies", [1, 4])
def test_the_expected_regret_is_the_actual_one_on_average_and_falls_as_one_over_runs(copies: int) -> None:
    """24 studies of 35 or 140 runs, noise 0.4%, final run of 1e24 FLOPs."""
    truth = np.array([482.01, 2085.43, 1.81686, 0.34781, 0.36585])
    surface = LossSurface(truth[None, :], 0.9)
    actual, expected = [], []
    for seed in range(24):
        rng = np.random.default_rng([seed, copies])
        runs = pd.concat([simulate_isoflop(truth, IsoflopDesign(5, 7, 1e19), 0.004, rng) for _ in range(copies)])
        fit = fit_table(runs, methods=("parametric",), bootstrap=100)
        expected.append(float(regret(fit, 1e24).mean()))
        params, tokens = (float(value[0]) for value in LossSurface.of(fit).optimum(1e24))
        actual.append(float((surface.loss(params, tokens) - surface.optimal_loss(1e24))[0]))
    error = float(np.std(actual)) / np.sqrt(len(actual))
    assert abs(float(np.mean(actual)) - float(np.mean(expected))) < 2.5 * error
    assert copies * float(np.mean(expected)) == pytest.approx(1.4e-4, rel=0.2)
