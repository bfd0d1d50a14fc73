"""Calibration and accuracy of a reward model, by simulation of ones that are and are not what they say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import binom

from scaling.errors import UserError
from scaling.preference.calibration import calibration, pair_accuracy


def margins(count: int, seed: int, sharpness: float = 1.0) -> np.ndarray:
    """Δr of pairs whose true logit of preference is Δr/``sharpness``."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(0, 1.5, count)
    return np.where(rng.random(count) < expit(logit), logit, -logit) * sharpness


def test_a_calibrated_model_errs_as_chance_does_and_one_too_sure_does_not() -> None:
    told = calibration(margins(5000, 0))
    assert told.expected_calibration_error == pytest.approx(told.expected_error_if_calibrated, rel=0.6)
    assert told.p_value > 0.05
    sure = calibration(margins(5000, 0, sharpness=3))
    assert sure.p_value < 0.01 and sure.expected_calibration_error > 5 * sure.expected_error_if_calibrated
    assert sure.brier > told.brier and sure.log_loss > told.log_loss
    assert all(each.mean_confidence > each.accuracy.high for each in sure.bins[3:])  # type: ignore[operator]


@pytest.mark.slow
def test_the_p_value_is_uniform_where_a_model_is_calibrated() -> None:
    p = np.array([calibration(margins(300, seed), chances=200, seed=seed).p_value for seed in range(300)])
    assert np.mean(p <= 0.1) == pytest.approx(0.1, abs=0.05)
    assert np.mean(p <= 0.5) == pytest.approx(0.5, abs=0.08)


def test_bins_hold_all_pairs_and_a_model_that_knows_nothing_has_the_known_scores() -> None:
    told = calibration(margins(103, 1), bins=10)
    assert sum(each.pairs for each in told.bins) == 103
    assert {each.pairs for each in told.bins} <= {10, 11}
    nothing = calibration(np.zeros(50), bins=1)
    assert (nothing.brier, nothing.log_loss) == (0.25, pytest.approx(np.log(2)))
    assert nothing.expected_calibration_error == 0


def test_mcnemar_counts_only_pairs_that_one_of_the_two_has_right() -> None:
    """Model right alone 14 times, length alone 4 times: twice the tail of 18 fair coins."""
    margin = np.repeat([1.0, 1.0, -1.0, -1.0], [30, 14, 4, 5])
    longer = np.repeat([1.0, -1.0, 1.0, -1.0], [30, 14, 4, 5])
    told = pair_accuracy(margin, 100 + longer, np.full(53, 100.0))
    assert (told.only_model_right, told.only_length_right) == (14, 4)
    assert told.p_value == pytest.approx(2 * binom.cdf(4, 18, 0.5))
    assert told.accuracy.estimate == pytest.approx(44 / 53)
    assert told.longer_accuracy is not None and told.longer_accuracy.estimate == pytest.approx(34 / 53)


def test_ties_are_halves() -> None:
    told = pair_accuracy([0.0, 1.0, -1.0, 0.0])
    assert (told.ties, told.accuracy.estimate, told.p_value) == (2, 0.5, None)


def test_what_is_wrong_is_one_line() -> None:
    with pytest.raises(UserError, match="bins is 5: choose 1 to the 2 pairs"):
        calibration([1.0, 2.0], bins=5)
    with pytest.raises(UserError, match="row 1: margin is nan"):
        calibration([np.nan])
