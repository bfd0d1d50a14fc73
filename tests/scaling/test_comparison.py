"""Two recipes are told apart by what their sweeps can tell, in losses and in compute."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest

from scaling.comparison import Arm, compare
from scaling.errors import UserError
from scaling.fit import Fit
from scaling.fits.together import fit_table
from scaling.laws.chinchilla import CHINCHILLA
from scaling.simulation import IsoflopDesign, simulate_isoflop

TRUTH = np.array([400.0, 1100.0, 1.8, 0.34, 0.33])
DESIGN = IsoflopDesign(budgets=5, sizes=7, middle_flops=1e18)
TARGET = 1e20


def better_by(multiplier: float) -> np.ndarray:
    """A law that reaches with C what ``TRUTH`` reaches with ``multiplier`` times C, at every C."""
    theta = TRUTH.copy()
    theta[:2] *= multiplier ** (-TRUTH[3] * TRUTH[4] / (TRUTH[3] + TRUTH[4]))
    return theta


@cache
def swept(multiplier: float, seed: int, bootstrap: int = 400) -> Fit:
    table = simulate_isoflop(better_by(multiplier), DESIGN, 0.003, np.random.default_rng(seed))
    return fit_table(table, methods=("parametric",), bootstrap=bootstrap, seed=seed)


def optimal_loss(theta: np.ndarray, flops: float) -> float:
    return float(CHINCHILLA.predict(theta, *CHINCHILLA.optimum(theta, flops)))


def test_the_multiplier_and_the_losses_of_a_known_truth_lie_in_their_intervals() -> None:
    told = compare(Arm("plain", swept(1.0, 1)), Arm("better", swept(1.5, 2)), TARGET)
    multiplier, gain = told.compute_multiplier, told.loss_difference
    assert multiplier.low is not None and multiplier.high is not None
    assert multiplier.low < 1.5 < multiplier.high and multiplier.low > 1
    assert gain.low is not None and gain.high is not None
    assert gain.low < optimal_loss(better_by(1.5), TARGET) - optimal_loss(TRUTH, TARGET) < gain.high < 0
    assert told.decided and "better is better than plain" in told.summary()
    assert told.beyond_orders == pytest.approx(math.log10(TARGET / 1.6e19), abs=0.1)


def test_the_other_way_round_is_the_inverse() -> None:
    one, other = Arm("plain", swept(1.0, 1)), Arm("better", swept(1.5, 2))
    there, back = compare(one, other, TARGET), compare(other, one, TARGET)
    assert there.loss_difference.estimate == pytest.approx(-back.loss_difference.estimate)
    assert there.compute_multiplier.estimate == pytest.approx(1 / back.compute_multiplier.estimate, rel=0.03)


def test_recipes_that_are_alike_are_not_decided() -> None:
    told = compare(Arm("plain", swept(1.0, 1)), Arm("again", swept(1.0, 2)), TARGET)
    assert not told.decided and "not decided" in told.summary()
    multiplier = told.compute_multiplier
    assert multiplier.low is not None and multiplier.high is not None and multiplier.low < 1 < multiplier.high


def test_drift_widens_what_the_laws_alone_say() -> None:
    told = compare(Arm("plain", swept(1.0, 1)), Arm("better", swept(1.5, 2)), 100 * TARGET)
    wide, narrow = told.compute_multiplier, told.multiplier_if_laws_hold
    assert narrow.low is not None and narrow.high is not None and wide.low is not None
    assert math.log((wide.high or math.inf) / wide.low) > math.log(narrow.high / narrow.low)
    assert "orders of magnitude beyond the runs" in told.summary()


def test_other_tokenizers_are_compared_in_bits_a_byte_or_not_at_all() -> None:
    fit = swept(1.0, 1)
    with pytest.raises(UserError, match="how many bytes a token of small"):
        compare(Arm("small", fit, "a"), Arm("large", fit, "b", 4.4), TARGET)
    told = compare(Arm("small", fit, "a", 4.0), Arm("large", fit, "b", 5.0), TARGET)
    assert told.unit == "bits a byte"
    assert told.loss_second.estimate == pytest.approx(told.loss_first.estimate * 4 / 5)
    assert told.loss_first.estimate == pytest.approx(optimal_loss(TRUTH, TARGET) / 4 / math.log(2), rel=0.01)


def test_fits_that_count_in_two_ways_are_refused() -> None:
    table = simulate_isoflop(TRUTH, DESIGN, 0.003, np.random.default_rng(0))
    other = fit_table(table, methods=("parametric",), bootstrap=100, params_convention="nonembedding")
    with pytest.raises(UserError, match="params_convention is total in a and nonembedding in b"):
        compare(Arm("a", swept(1.0, 1, bootstrap=100)), Arm("b", other), TARGET)


@pytest.mark.slow
def test_ninety_percent_intervals_hold_the_truth_nine_times_of_ten() -> None:
    inside, trials = 0, 60
    for trial in range(trials):
        one, other = swept(1.0, 2 * trial, bootstrap=200), swept(1.3, 2 * trial + 1, bootstrap=200)
        told = compare(Arm("one", one), Arm("other", other), TARGET).multiplier_if_laws_hold
        inside += (told.low or 0.0) <= 1.3 <= (told.high or math.inf)
    # Two binomial SDs to both sides.
    assert 0.82 <= inside / trials <= 0.98
