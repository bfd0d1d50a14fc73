"""Win rates: intervals that hold, length taken out where it is a bias, and swapping sides gives one less the rate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from scaling.errors import UserError
from scaling.preference.intervals import wilson
from scaling.preference.win_rate import combine_orders, length_controlled_win_rate, win_rate


def judged(
    rng: np.random.Generator, prompts: int, skill: float, verbosity: float, bias: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Wins and lengths: the judge's logit is ``skill`` and ``bias`` times tanh of the length difference in SDs."""
    base = rng.lognormal(5, 0.5, prompts)
    length = base * rng.lognormal(verbosity, 0.5, prompts)
    difference = length - base
    chance = expit(skill + bias * np.tanh(difference / difference.std()))
    return (rng.random(prompts) < chance).astype(float), length, base


def test_counts_ties_as_halves_and_averages_within_a_prompt() -> None:
    told = win_rate([1, 0, 0.5, 1], prompt=["a", "a", "b", "c"])
    assert told.rate.estimate == pytest.approx((0.5 + 0.5 + 1) / 3)
    assert (told.comparisons, told.prompts, told.wins, told.ties, told.losses) == (4, 3, 2, 1, 1)


def test_a_model_that_wins_always_is_not_certain_to() -> None:
    rate = win_rate(np.ones(40)).rate
    assert rate.estimate == rate.high == 1
    assert rate.low == pytest.approx(40 / (40 + 1.6449**2), abs=1e-4)


def test_length_controlled_rate_removes_a_judges_liking_for_length() -> None:
    """No skill, twice as long, a judge that likes length: raw far above one half, controlled at it."""
    preference, length, base = judged(np.random.default_rng(0), 4000, 0.0, 0.7, 1.5)
    told = length_controlled_win_rate(preference, length, base, bootstrap=200)
    assert told.raw.estimate > 0.6
    assert told.rate.estimate == pytest.approx(0.5, abs=0.04)
    assert told.length_effect.estimate == pytest.approx(1.5, abs=0.25)
    assert told.mean_length > 1.8 * told.baseline_mean_length


@given(seed=st.integers(0, 2**32 - 1), skill=st.floats(-1, 1), bias=st.floats(-1, 2))
@settings(max_examples=25)
def test_swapping_model_and_baseline_gives_one_less_the_rate(seed: int, skill: float, bias: float) -> None:
    preference, length, base = judged(np.random.default_rng(seed), 120, skill, 0.3, bias)
    one = length_controlled_win_rate(preference, length, base, bootstrap=0).rate.estimate
    other = length_controlled_win_rate(1 - preference, base, length, bootstrap=0).rate.estimate
    assert one + other == pytest.approx(1, abs=1e-9)


def test_without_a_length_effect_it_is_the_raw_rate_nearly() -> None:
    preference, length, base = judged(np.random.default_rng(1), 5000, 0.6, 0.4, 0.0)
    told = length_controlled_win_rate(preference, length, base, bootstrap=0)
    assert told.rate.estimate == pytest.approx(told.raw.estimate, abs=0.01)


def test_a_covariate_of_difficulty_is_used() -> None:
    """Half of the instructions are hard for the baseline; it is by chance that they have long answers too."""
    rng = np.random.default_rng(2)
    hard = np.repeat([-1.0, 1.0], 2000)
    base = np.full(4000, 100.0)
    length = base + 40 * hard + 30 * rng.standard_normal(4000)
    preference = (rng.random(4000) < expit(1.2 * hard)).astype(float)
    without = length_controlled_win_rate(preference, length, base, bootstrap=100)
    told = length_controlled_win_rate(preference, length, base, difficulty=hard, bootstrap=100)
    assert without.length_effect.estimate > 1
    assert told.length_effect.estimate == pytest.approx(0, abs=0.3)


def test_separation_stays_finite() -> None:
    length = np.arange(30.0)
    told = length_controlled_win_rate((length > 15).astype(float), length, np.full(30, 15.5), bootstrap=100)
    assert np.isfinite([told.rate.low, told.rate.high, told.length_effect.high]).all()  # type: ignore[list-item]


@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """90% nominal over 300 studies of 200 prompts: the raw rate (with two verdicts a prompt) and the controlled one."""
    rng, hits = np.random.default_rng(3), []
    truth = float(expit(0.4))
    for study in range(300):
        preference, length, base = judged(rng, 200, 0.4, 0.5, 1.0)
        rate = length_controlled_win_rate(preference, length, base, bootstrap=300, seed=study).rate
        chance = rng.beta(3, 2, 200)
        twice = (rng.random((200, 2)) < chance[:, None]).astype(float)
        raw = win_rate(twice.ravel(), np.repeat(np.arange(200), 2), bootstrap=300, seed=study).rate
        hits.append([rate.low <= truth <= rate.high, raw.low <= 0.6 <= raw.high])  # type: ignore[operator]
    assert np.mean(hits, axis=0) == pytest.approx(0.9, abs=0.045)


def test_a_judge_that_likes_a_place_says_a_tie() -> None:
    assert combine_orders([1, 1, 0], [0, 1, 0]) == pytest.approx([0.5, 1, 0])


def test_wilsons_interval_is_the_textbooks() -> None:
    """Newcombe 1998, 81 of 263 at 95%."""
    told = wilson(81, 263, 0.95)
    assert (told.low, told.high) == (pytest.approx(0.2553, abs=5e-5), pytest.approx(0.3662, abs=5e-5))
    assert wilson(0, 10).low == 0 and wilson(10, 10).high == 1


def test_what_is_wrong_is_one_line() -> None:
    with pytest.raises(UserError, match=r"row 2: preference is 1.5; it must be from 0 to 1"):
        win_rate([1, 1.5])
    with pytest.raises(UserError, match="the same in every row"):
        length_controlled_win_rate([1, 0], [5, 6], [5, 6])
    with pytest.raises(UserError, match="baseline_length has 1 rows where 2"):
        length_controlled_win_rate([1, 0], [5, 6], [5])
