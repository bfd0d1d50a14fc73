from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
from scipy import optimize

from scaling.errors import UserError
from scaling.fits.estimate import Estimate, draw, estimate
from scaling.fits.huber import solve_huber, sum_of_huber
from scaling.fits.parametric import fit_parametric
from scaling.laws.chinchilla import CHINCHILLA
from scaling.laws.law import Box
from scaling.simulation import IsoflopDesign, random_small_truth, simulate_isoflop
from scaling.table import read_table

BESIROGLU_SE = [124.522, 1293.284, 0.02566, 0.01540, 0.02060]


def _estimate(runs: pd.DataFrame) -> tuple[Estimate, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    data = tuple(runs[name].to_numpy() for name in ("n_params", "tokens", "loss"))
    return estimate(CHINCHILLA, data[:2], data[2], 1e-3), data  # type: ignore[return-value]


@pytest.mark.shared
def test_parametric_fit_reproduces_besiroglu(epoch: pd.DataFrame) -> None:
    """2404.10102's grid minimum, found by them from 4,500 starts in over a minute."""
    found, data = _estimate(epoch)
    assert len(data[0]) == 240
    assert found.objective <= 0.00101827403 + 1e-12
    assert found.theta[:2] == pytest.approx([477.84171, 2143.86379], rel=2e-3)
    assert found.theta[2:] == pytest.approx([1.81723550, 0.34731266, 0.36718262], abs=1e-3)
    assert found.at_bound == ()


@pytest.mark.shared
def test_point_bootstrap_reproduces_besiroglus_standard_errors_in_under_five_seconds(epoch: pd.DataFrame) -> None:
    """With their resamples (NumPy's legacy generator, seed 42, one choice of 240 rows each) the SEs agree to 0.5%."""
    found, (params, tokens, loss) = _estimate(epoch)
    generator = np.random.RandomState(42)
    weights = np.array([np.bincount(generator.choice(240, 240), minlength=240) for _ in range(4000)], dtype=float)
    box = Box(np.array([-15.0, -15, -8, 0.001, 0.001]), np.array([5.0, 5, 2, 4, 4]))
    started = time.process_time()
    starts = np.repeat(found.free[None], 4000, axis=0)
    centred = found.centred(params, tokens)
    free = solve_huber(CHINCHILLA, starts, centred, np.log(loss), weights, 1e-3, box).free_KP
    assert time.process_time() - started < 5
    draws = found.theta_of(free)
    assert draws.std(axis=0) == pytest.approx(BESIROGLU_SE, rel=5e-3)


@pytest.mark.shared
def test_our_point_bootstrap_agrees_with_besiroglus_within_its_own_noise(epoch: pd.DataFrame) -> None:
    """Over seeds the SE of B, whose tail is heavy, ranges within 12%; the others within 5%."""
    found, data = _estimate(epoch)
    draws = draw(found, data[:2], data[2], 1e-3, draws=4000, rng=np.random.default_rng(0), method="points")
    ratio = draws.std(axis=0) / BESIROGLU_SE
    assert ratio == pytest.approx(1, abs=0.15)
    assert ratio[[0, 2, 3, 4]] == pytest.approx(1, abs=0.07)


@pytest.mark.shared
def test_the_delta_of_the_huber_loss_moves_the_answer_as_measured(epoch: pd.DataFrame) -> None:
    """β 0.365, 0.367, 0.382 and 0.406 as δ goes from 1e-4 to 0.1."""
    data = tuple(epoch[name].to_numpy() for name in ("n_params", "tokens", "loss"))
    betas = [estimate(CHINCHILLA, data[:2], data[2], delta).theta[4] for delta in (1e-4, 1e-3, 1e-2, 0.1)]
    assert betas == pytest.approx([0.365, 0.367, 0.382, 0.406], abs=1.5e-3)


@pytest.mark.parametrize("seed", range(6))
def test_no_other_optimiser_goes_lower(seed: int) -> None:
    """SciPy's L-BFGS-B with our gradient from 30 random starts never beats the batched Newton by a thousandth."""
    rng = np.random.default_rng(seed)
    theta, flops = random_small_truth(rng)
    runs = simulate_isoflop(theta, IsoflopDesign(3, 5, flops), 0.008, rng)
    params, tokens, loss = (runs[name].to_numpy() for name in ("params", "tokens", "loss"))
    found = estimate(CHINCHILLA, (params, tokens), loss, 1e-3)
    centred = found.centred(params, tokens)

    def objective(logs: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = CHINCHILLA.response_and_gradient(logs, centred)
        residual = value - np.log(loss)
        return float(sum_of_huber(residual, 1e-3)) * 1e4, gradient.T @ np.clip(residual, -1e-3, 1e-3) * 1e4

    bounds = [(-12, 3), (-12, 3), (-6, np.log(loss.min()) + 0.05), (0.01, 3), (0.01, 3)]
    starts = rng.uniform([-2, -2, -0.5, 0.1, 0.1], [1, 1, 1, 0.9, 0.9], size=(30, 5))
    others = [optimize.minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds).fun for start in starts]
    assert found.objective * 1e4 <= min(others) * 1.001


def test_noiseless_runs_give_back_the_truth(laptop_study: tuple[np.ndarray, pd.DataFrame]) -> None:
    theta, runs = laptop_study
    loss = CHINCHILLA.predict(theta, runs["params"], runs["tokens"])
    found = estimate(CHINCHILLA, (runs["params"].to_numpy(), runs["tokens"].to_numpy()), loss, 1e-3)
    assert found.theta == pytest.approx(theta, rel=1e-4)


def test_intervals_hold_the_truth_of_a_study(laptop_study: tuple[np.ndarray, pd.DataFrame]) -> None:
    theta, runs = laptop_study
    fit, _ = fit_parametric(read_table(runs), bootstrap=300, level=0.95)
    for name, truth in zip(CHINCHILLA.NAMES, theta, strict=True):
        interval = fit.parameters[name]
        assert interval.low is not None and interval.high is not None
        assert interval.low <= truth <= interval.high, name
    assert fit.residual_sd == pytest.approx(0.005, rel=0.6)


def _refused(params: list[float], tokens: list[float]) -> str:
    loss = CHINCHILLA.predict([400, 400, 1.7, 0.34, 0.28], params, tokens)
    table = read_table(pd.DataFrame({"params": params, "tokens": tokens, "loss": loss}))
    fit, diagnostics = fit_parametric(table)
    assert fit.status == "refused"
    assert [note.severity for note in diagnostics] == ["refusal"]
    assert fit.reason is not None and "\n" not in fit.reason
    return fit.reason


def test_runs_of_one_horizon_are_refused_with_the_cure() -> None:
    sizes = [1e6 * 2**i for i in range(10)]
    reason = _refused(sizes, [20 * n * (1 + 0.02 * (-1) ** i) for i, n in enumerate(sizes)])
    assert "every run has about 20 tokens a parameter" in reason
    assert "runs at 5 and 80 tokens a parameter tell them apart: 6 runs of 1M to 4M parameters" in reason
    assert "FLOPs" in reason


def test_runs_on_any_one_line_are_refused() -> None:
    sizes = [1e6 * 2**i for i in range(10)]
    assert "tokens are a fixed power of parameters" in _refused(sizes, [3 * n**1.3 for n in sizes])


def test_too_few_runs_sizes_or_range_are_refused() -> None:
    assert "5 usable runs" in _refused([1e6, 2e6, 4e6, 8e6, 1e7], [1e8, 2e8, 1e8, 3e8, 1e8])
    assert "2 distinct sizes" in _refused([1e6, 4e6] * 4, [1e7 * 2**i for i in range(8)])
    assert "2 distinct token counts" in _refused([1e6 * 2**i for i in range(8)], [1e8, 4e8] * 4)
    assert "sizes span only a factor 2" in _refused([1e6, 1.5e6, 2e6] * 3, [1e7 * 2**i for i in range(9)])


def test_terms_that_the_runs_do_not_show_are_warned_of() -> None:
    """Data so plentiful that its term vanishes: β and B can't be found, and the fit says so."""
    rng = np.random.default_rng(1)
    params = np.repeat(np.geomspace(1e6, 1e7, 4), 4)
    tokens = np.tile(np.geomspace(1e13, 1e14, 4), 4)
    loss = CHINCHILLA.predict([400, 1e5, 1.7, 0.34, 0.9], params, tokens) * np.exp(0.003 * rng.standard_normal(16))
    fit, diagnostics = fit_parametric(read_table(pd.DataFrame({"params": params, "tokens": tokens, "loss": loss})))
    assert fit.status == "ok"
    assert {"at-bound", "wide-exponent"} & {note.code for note in diagnostics}


@pytest.mark.parametrize("method", ["residuals", "wild", "points", "size", "budget", "trunk"])
def test_every_resampling_gives_an_interval_around_the_estimate(method: str) -> None:
    rng = np.random.default_rng(3)
    theta, flops = random_small_truth(rng)
    runs = simulate_isoflop(theta, IsoflopDesign(4, 6, flops), 0.004, rng)
    runs["trunk_key"] = np.tile(list("abcdef"), 4)
    fit, _ = fit_parametric(read_table(runs), bootstrap=60, method=method, diagnose=False)  # type: ignore[arg-type]
    interval = fit.n_exponent
    assert interval is not None and interval.low is not None and interval.high is not None
    assert interval.low < interval.estimate < interval.high
    assert interval.high - interval.low > 0.005


def test_resampling_by_trunk_without_trunks_says_what_is_missing() -> None:
    rng = np.random.default_rng(3)
    theta, flops = random_small_truth(rng)
    runs = simulate_isoflop(theta, IsoflopDesign(4, 6, flops), 0.004, rng)
    with pytest.raises(UserError, match="no column trunk_key"):
        fit_parametric(read_table(runs), bootstrap=60, method="trunk")
