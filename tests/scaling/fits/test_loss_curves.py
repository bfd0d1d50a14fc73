"""A schedule law through loss curves: known truths found again, and the curves that Luo et al. published."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scaling.errors import UserError
from scaling.fits.loss_curves import LossCurve, LossCurvesFit, fit_loss_curves
from scaling.laws.multi_power import MULTI_POWER
from scaling.laws.schedule import ScheduleLaw
from scaling.laws.tissue import TISSUE

MPL_25M = np.array([3.04045406, 0.52468604, 0.50786857, 363.78751622, 2.06560812, 0.58279013, 0.64142257])
TISSUE_THETA = np.array([3.04, 0.52, 0.51, 0.9, 0.99])
FITTED = ("cosine_24000", "constant_24000", "wsdcon_9")
"""The authors' training curves (their src/config.py); the other six are their test."""


def schedule(name: str, warmup: int = 2160, peak: float = 3e-4, end: float = 3e-5) -> np.ndarray:
    """The schedules of Luo et al. by the name of their curve."""
    kind, *numbers = name.split("_")
    rise = np.linspace(0, peak, warmup)
    if kind == "wsdcon":
        return np.concatenate((rise, np.full(8000 - warmup, peak), np.full(8000, int(numbers[0]) * 1e-5)))
    *stable, total = map(int, numbers)
    if kind == "constant":
        return np.concatenate((rise, np.full(total - warmup, peak)))
    begin = stable[0] if stable else warmup
    x = np.arange(total - begin) / (total - begin)
    fall = {
        "cosine": end + 0.5 * (peak - end) * (1 + np.cos(np.pi * x)),
        "wsd": peak ** (1 - x) * end**x,
        "wsdld": peak + (end - peak) * x,
    }[kind]
    return np.concatenate((rise, np.full(begin - warmup, peak), fall))


def simulated(law: ScheduleLaw, theta: np.ndarray, noise: float = 0.0, seed: int = 0) -> list[LossCurve]:
    rng, curves = np.random.default_rng(seed), []
    rise = np.linspace(0, 3e-4, 200)
    falls = {
        "constant": np.full(3800, 3e-4),
        "cosine": 3e-5 + 1.35e-4 * (1 + np.cos(np.pi * np.arange(3800) / 3800)),
        "step": np.concatenate((np.full(1300, 3e-4), np.full(2500, 9e-5))),
        "low step": np.concatenate((np.full(1300, 3e-4), np.full(2500, 3e-5))),
    }
    for name, fall in falls.items():
        lr, at = np.concatenate((rise, fall)), np.arange(250, 4000, 50)
        loss = law.predict_curve(theta, lr, at) * np.exp(noise * rng.standard_normal(len(at)))
        curves.append(LossCurve(name, lr, at, loss))
    return curves


@pytest.mark.parametrize(("law", "theta"), [(MULTI_POWER, MPL_25M), (TISSUE, TISSUE_THETA)], ids=["mpl", "tissue"])
def test_noiseless_curves_give_their_constants_back(law: ScheduleLaw, theta: np.ndarray) -> None:
    fit = fit_loss_curves(simulated(law, theta), law)
    assert fit.theta == pytest.approx(theta, rel=1e-3)
    assert fit.residual_sd < 1e-6
    assert len(fit.left_out) == 4 and max(fit.left_out) < 1e-4


def test_the_interval_of_a_schedule_nobody_ran_holds_its_true_loss() -> None:
    """Noise of 0.2% a point, 10 studies: a cooldown at 90% is held 7 times or more (6 or fewer: p = 0.01)."""
    lr = np.concatenate((np.linspace(0, 3e-4, 200), np.full(4000, 3e-4), np.linspace(3e-4, 0, 800)))
    truth = TISSUE.predict_curve(TISSUE_THETA, lr, [4999])
    inside = 0
    for seed in range(10):
        fit = fit_loss_curves(simulated(TISSUE, TISSUE_THETA, 0.002, seed), TISSUE)
        said = fit.predict_curve(lr, [4999])
        assert said.low is not None and said.high is not None
        inside += bool((said.low <= truth).all() and (truth <= said.high).all())
    assert inside >= 7


def test_constants_that_are_held_have_no_width() -> None:
    fit = fit_loss_curves(simulated(TISSUE, TISSUE_THETA, 0.002), TISSUE, fixed={"lambda": 0.999})
    held = fit.parameters["lambda"]
    assert held.low == pytest.approx(0.999) and held.high == pytest.approx(0.999)
    free = fit.parameters["alpha"]
    assert free.low is not None and free.high is not None and free.low < free.estimate < free.high


def test_curves_without_a_fall_are_refused_and_say_what_to_run() -> None:
    constant = simulated(TISSUE, TISSUE_THETA)[:1]
    with pytest.raises(UserError, match="tissue needs a curve whose learning rate falls"):
        fit_loss_curves(constant, TISSUE)


def test_two_curves_are_fitted_but_nothing_says_how_far_off_they_are() -> None:
    fit = fit_loss_curves(simulated(TISSUE, TISSUE_THETA, 0.001)[:2], TISSUE)
    assert fit.left_out == ()
    said = fit.predict_curve(np.full(500, 3e-4), [100, 400])
    assert len(said.loss) == 2 and said.low is None and said.high is None
    assert fit.residual_sd == pytest.approx(0.001, rel=0.3)


def test_a_curve_with_a_loss_that_is_none_is_named() -> None:
    with pytest.raises(UserError, match="curve mine: loss must be one positive number"):
        LossCurve("mine", np.full(10, 1e-3), np.array([3, 5]), np.array([3.0, np.nan]))
    with pytest.raises(UserError, match=r"curve mine: .*whole schedule"):
        LossCurve("mine", np.full(10, 1e-3), np.array([3, 15]), np.array([3.0, 2.0]))


@pytest.fixture(scope="module")
def published_curves(shared_data: Path) -> dict[str, LossCurve]:
    table = pd.read_csv(shared_data / "published" / "multipowerlaw_25m_curves.csv")
    return {
        str(name): LossCurve(str(name), schedule(str(name)), run["step"].to_numpy(), run["loss"].to_numpy())
        for name, run in table.groupby("schedule")
    }


def _scores(law: ScheduleLaw, theta: np.ndarray, curves: list[LossCurve]) -> tuple[float, float, float]:
    """R², mean absolute and root mean square error of loss, each the mean over curves as the authors report them."""
    rows = []
    for curve in curves:
        miss = law.predict_curve(theta, curve.lr, curve.points.at_steps) - curve.loss
        spread = curve.loss - curve.loss.mean()
        rows.append((1 - miss @ miss / (spread @ spread), np.abs(miss).mean(), np.sqrt((miss**2).mean())))
    r2, mae, rmse = np.mean(rows, axis=0)
    return float(r2), float(mae), float(rmse)


@pytest.mark.shared
def test_the_schedules_are_those_recorded_with_the_curves(shared_data: Path) -> None:
    table = pd.read_csv(shared_data / "published" / "multipowerlaw_25m_curves.csv")
    for name, run in table.groupby("schedule"):
        assert schedule(str(name))[run["step"]] == pytest.approx(run["lr"].to_numpy(), rel=1e-9)


@pytest.mark.shared
def test_the_published_constants_give_the_published_test_errors(published_curves: dict[str, LossCurve]) -> None:
    """Luo et al., 25M: R² 0.9988, MAE 0.00376, RMSE 0.00465 over the six curves that were not fitted."""
    test = [curve for name, curve in published_curves.items() if name not in FITTED]
    r2, mae, rmse = _scores(MULTI_POWER, MPL_25M, test)
    assert (r2, mae, rmse) == (
        pytest.approx(0.9988, abs=5e-5),
        pytest.approx(0.00376, abs=5e-6),
        pytest.approx(0.00465, abs=7e-6),
    )


@pytest.fixture(scope="module")
def multi_power_fit(published_curves: dict[str, LossCurve]) -> LossCurvesFit:
    return fit_loss_curves([published_curves[name] for name in FITTED])


@pytest.mark.shared
@pytest.mark.slow
def test_the_minimum_lies_far_below_the_published_optimum(
    multi_power_fit: LossCurvesFit, published_curves: dict[str, LossCurve]
) -> None:
    """Half the objective of the 200 Adam steps that were published, β and γ hardly identified: predictions of unseen
    schedules are no better for it (RMSE 0.0054 against 0.0047)."""
    curves = [published_curves[name] for name in FITTED]
    residuals = np.concatenate(
        [np.log(c.loss / MULTI_POWER.predict_curve(MPL_25M, c.lr, c.points.at_steps)) for c in curves]
    )
    size = np.abs(residuals)
    published = np.where(size < 1e-3, size**2 / 2, 1e-3 * (size - 5e-4)).sum()
    assert published == pytest.approx(2.912e-4, rel=1e-3)
    assert multi_power_fit.objective == pytest.approx(1.384e-4, rel=1e-2)
    beta = multi_power_fit.parameters["beta"]
    assert beta.low == 0.0 and beta.high is not None and beta.high > 0.25
    test = [curve for name, curve in published_curves.items() if name not in FITTED]
    r2, _, rmse = _scores(MULTI_POWER, multi_power_fit.theta, test)
    assert r2 > 0.9975 and rmse < 0.0056


@pytest.mark.shared
@pytest.mark.parametrize(("law", "rmse"), [(TISSUE, 0.0062), (MULTI_POWER, 0.0049)], ids=["tissue", "mpl"])
def test_unseen_schedules_are_predicted_within_their_intervals(
    law: ScheduleLaw, rmse: float, published_curves: dict[str, LossCurve]
) -> None:
    """The six test curves, one of them three times as long as any fitted, at 90%; the multi-power law with its two
    weak exponents held at what is published for all three model sizes."""
    held = {"beta": 0.59, "gamma": 0.64} if law is MULTI_POWER else None
    fit = fit_loss_curves([published_curves[name] for name in FITTED], law, fixed=held)
    test = [curve for name, curve in published_curves.items() if name not in FITTED]
    assert _scores(law, fit.theta, test)[2] < rmse
    inside = []
    for curve in test:
        said = fit.predict_curve(curve.lr, curve.points.at_steps)
        assert said.low is not None and said.high is not None
        inside.append(((said.low <= curve.loss) & (curve.loss <= said.high)).mean())
        assert (said.high / said.loss - 1).max() < 0.007
    assert np.mean(inside) >= 0.9
