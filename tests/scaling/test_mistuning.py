from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scaling.errors import UserError
from scaling.hyperparameters import LearningRateLaw, Valley, fit_valley
from scaling.mistuning import correct_mistuning, tuned_losses
from scaling.record import Interval
from scaling.simulation import IsoflopDesign, simulate_isoflop

TRUTH = np.array([482.01, 2085.43, 1.81686, 0.34781, 0.36585])
EXPONENT = 0.36585 / (0.34781 + 0.36585)
CURVATURE = 0.0095


def _best(params: np.ndarray | float) -> np.ndarray:
    """The true best rate: 2e-3 at 300M parameters, falling as N^(-1/3)."""
    return np.asarray(2e-3 * (np.asarray(params) / 3e8) ** (-1 / 3))


def _valley(params: float, noise: float, rng: np.random.Generator) -> Valley:
    rates = float(_best(params)) * 1.2 * 2.0 ** np.arange(-2, 3)
    losses = 3.0 * (1 + CURVATURE * np.log(rates / _best(params)) ** 2) * np.exp(noise * rng.standard_normal(5))
    return fit_valley(list(rates), list(losses))


def _mistuned(noise: float, seed: int, rate: float = 1.4e-3) -> tuple[pd.DataFrame, list[tuple[float, Valley]]]:
    """35 iso-FLOP runs, all at one learning rate, and probes of three sizes."""
    rng = np.random.default_rng(seed)
    runs = simulate_isoflop(TRUTH, IsoflopDesign(5, 7, 1e19), noise, rng)
    runs["learning_rate"] = rate
    runs["loss"] *= 1 + CURVATURE * np.log(rate / _best(runs["params"].to_numpy())) ** 2
    return runs, [(size, _valley(size, noise / 2, rng)) for size in (5e7, 2e8, 8e8)]


KNOWN = LearningRateLaw(
    rate_at=Interval(estimate=2e-3, low=2e-3, high=2e-3),
    params_at=3e8,
    exponent=Interval(estimate=1 / 3, low=1 / 3, high=1 / 3),
    basis="the truth",
)


def test_with_the_true_rates_the_true_losses_come_back() -> None:
    runs, valleys = _mistuned(0.0, 0)
    tuned, left_out = tuned_losses(runs, valleys, rate_law=KNOWN)
    clean = simulate_isoflop(TRUTH, IsoflopDesign(5, 7, 1e19), 0.0, np.random.default_rng(0))
    assert tuned["loss"].to_numpy() == pytest.approx(clean.loc[tuned.index, "loss"].to_numpy(), rel=1e-6)
    assert len(tuned) + len(left_out) == 35
    assert (tuned["tuning_excess"] >= 0).all() and tuned["tuning_excess"].max() > 0.01


def test_one_rate_for_all_sizes_bends_the_exponent_and_the_correction_brings_it_back() -> None:
    runs, valleys = _mistuned(0.0, 0)
    found = correct_mistuning(runs, valleys, rate_law=KNOWN, flops=1e23, bootstrap=0)
    law, lines = found.shifts
    assert (law.estimator, lines.estimator) == ("parametric", "isoflop")
    assert abs(law.exponent_before.estimate - EXPONENT) > 0.01
    assert law.exponent_after.estimate == pytest.approx(EXPONENT, abs=1e-3)
    assert law.shift.estimate == pytest.approx(law.exponent_after.estimate - law.exponent_before.estimate)
    for one in found.shifts:
        # What remains unknown is the curvature alone, and more of it means more correction.
        assert one.shift.low is not None and one.shift.high is not None
        assert one.shift.low < one.shift.estimate < one.shift.high
        assert abs(one.exponent_after.estimate - EXPONENT) < abs(one.exponent_before.estimate - EXPONENT)
    assert law.params_after is not None and law.params_before is not None
    assert found.before.observations.used == found.after.observations.used == found.used


def test_noisy_runs_and_probes_are_corrected_within_what_is_known() -> None:
    runs, valleys = _mistuned(0.002, 1)
    found = correct_mistuning(runs, valleys, bootstrap=200)
    law = found.shifts[0]
    after, shift = law.exponent_after, law.shift
    assert after.low is not None and after.high is not None and shift.low is not None and shift.high is not None
    noise, valley = (after.high - after.low) / 2, (shift.high - shift.low) / 2
    assert abs(after.estimate - EXPONENT) < np.hypot(noise, valley)
    assert "as trained" in found.summary()


def test_well_tuned_runs_are_left_alone() -> None:
    runs, valleys = _mistuned(0.002, 2)
    rates = _best(runs["params"].to_numpy())
    runs["loss"] /= 1 + CURVATURE * np.log(runs["learning_rate"].to_numpy() / rates) ** 2
    runs["learning_rate"] = rates
    found = correct_mistuning(runs, valleys, rate_law=KNOWN, bootstrap=0)
    assert found.largest_excess == pytest.approx(0, abs=1e-12)
    assert [shift.shift.estimate for shift in found.shifts] == pytest.approx([0, 0], abs=1e-9)


def test_runs_too_far_from_the_best_rate_are_left_out_by_number_not_corrected() -> None:
    runs, valleys = _mistuned(0.0, 0)
    runs.loc[3, "learning_rate"] = 1.0
    runs.loc[5, "learning_rate"] = np.nan
    tuned, left_out = tuned_losses(runs, valleys, rate_law=KNOWN)
    reasons = {row.row: row.reason for row in left_out}
    assert "times above the best" in reasons[4]
    assert reasons[6] == "no learning rate or size"
    assert 3 not in tuned.index and 5 not in tuned.index


def test_without_a_bottom_or_a_rate_there_is_no_correction() -> None:
    runs, _ = _mistuned(0.0, 0)
    slope = fit_valley([1e-3, 2e-3, 4e-3], [3.0, 2.9, 2.8])
    with pytest.raises(UserError, match="the best rate is the highest tried"):
        tuned_losses(runs, [(1e8, slope)])
    _, valleys = _mistuned(0.0, 0)
    with pytest.raises(UserError, match="learning_rate is missing"):
        tuned_losses(runs.drop(columns="learning_rate"), valleys)


@pytest.mark.shared
def test_on_step_laws_grid_probes_of_the_smallest_and_largest_size_correct_those_between(shared_data: Path) -> None:
    """2503.04715, batch fixed: rms of loss above each run's own best, as trained and as tuned, within a factor of 4."""
    runs = pd.read_csv(shared_data / "published" / "steplaw_dense_lr_bs_loss.csv")
    # The grid's rates are powers of sqrt 2, written with three digits or four.
    runs["learning_rate"] = [float(f"{2 ** (round(2 * np.log2(rate)) / 2):.4g}") for rate in runs["lr"]]
    runs = runs.rename(columns={"N": "params", "smooth loss": "smooth"})
    trained, tuned = [], []
    for batch in (128, 192, 256, 352, 512):
        line = runs[runs["bs"] == batch].groupby(["params", "D", "learning_rate"], as_index=False)["smooth"].min()
        ends = line["params"].isin([line["params"].min(), line["params"].max()])
        valleys = [
            (float(key[0]), fit_valley(list(part["learning_rate"]), list(part["smooth"])))
            for key, part in line[ends].groupby(["params", "D"])
            if len(part) > 3
        ]
        between = line[~ends].reset_index(drop=True)
        after, _ = tuned_losses(between, valleys, columns={"loss": "smooth"})
        best = between.groupby(["params", "D"])["smooth"].transform("min").loc[after.index]
        trained.append(between.loc[after.index, "smooth"] / best - 1)
        tuned.append(after["smooth"] / best - 1)
    before, later = (float(np.sqrt((np.concatenate(part) ** 2).mean())) for part in (trained, tuned))
    assert before == pytest.approx(0.0085, abs=0.0005)
    assert later < 0.6 * before
