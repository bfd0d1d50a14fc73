"""Length beside preference: known slopes come back, and real pairs have the published shares."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from scaling.preference.length import length_bias
from scaling.preference.pairs import read_pairs


def pairs(slope: float, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Chosen and rejected lengths; the longer is preferred with a logit of ``slope`` for each SD of difference."""
    rng = np.random.default_rng(seed)
    one, other = rng.normal(200, 60, (2, count))
    scaled = (one - other) / np.sqrt(((one - other) ** 2).mean())
    won = rng.random(count) < expit(slope * scaled)
    return np.where(won, one, other), np.where(won, other, one)


@pytest.mark.parametrize("slope", [-0.5, 0.0, 1.2])
def test_a_known_slope_comes_back(slope: float) -> None:
    told = length_bias(*pairs(slope, 8000), bootstrap=100)
    assert told.logistic_slope is not None
    assert told.logistic_slope.estimate == pytest.approx(slope, abs=0.08)
    if slope:
        assert told.point_biserial.estimate * slope > 0.05


def test_the_correlation_is_that_of_length_and_label() -> None:
    chosen, rejected = pairs(0.8, 300)
    label = np.repeat([1.0, 0.0], 300)
    expected = np.corrcoef(np.concatenate((chosen, rejected)), label)[0, 1]
    assert length_bias(chosen, rejected, bootstrap=0).point_biserial.estimate == pytest.approx(expected)


@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    hits = []
    for seed in range(300):
        told = length_bias(*pairs(0.7, 150, seed), bootstrap=300, seed=seed)
        assert told.logistic_slope is not None
        hits.append(told.logistic_slope.low <= 0.7 <= told.logistic_slope.high)  # type: ignore[operator]
    assert np.mean(hits) == pytest.approx(0.9, abs=0.05)


def test_equal_lengths_are_told_apart_and_one_sided_pairs_have_no_slope() -> None:
    told = length_bias([5, 5, 9, 4], [5, 7, 2, 4], bootstrap=0)
    assert told.equally_long == 2 and told.chosen_longer.estimate == 0.25
    assert told.longer_of_unequal is not None and told.longer_of_unequal.estimate == 0.5
    assert length_bias([5, 6], [1, 2], bootstrap=0).logistic_slope is None
    same = length_bias([3, 3], [3, 3])
    assert same.point_biserial is None and same.logistic_slope is None and same.longer_of_unequal is None


@pytest.mark.shared
@pytest.mark.parametrize(("name", "share"), [("hh_harmless_base_test", 0.44), ("alpaca_eval_model_pairs_NC", 0.81)])
def test_real_pairs_have_the_known_share(shared_data: Path, name: str, share: float) -> None:
    read = read_pairs(shared_data / "corpora" / "pref" / f"{name}.jsonl.xz")
    told = length_bias(read["chosen"].str.len(), read["rejected"].str.len(), bootstrap=0)
    assert told.chosen_longer.estimate == pytest.approx(share, abs=0.005)
