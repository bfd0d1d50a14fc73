"""Best-of-n: the mean over every subset, ties by chance, and the divergence, against enumeration."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling.errors import UserError
from scaling.preference.best_of_n import best_of_n_curve, expected_best, kl_best_of_n, kl_of_tied_rewards


def by_enumeration(proxy: np.ndarray, gold: np.ndarray, n: int) -> float:
    """The mean over all subsets, and over the answers that tie for best in each."""
    means = []
    for subset in combinations(range(len(proxy)), n):
        chosen = np.array(subset)
        best = chosen[proxy[chosen] == proxy[chosen].max()]
        means.append(gold[best].mean())
    return float(np.mean(means))


@given(seed=st.integers(0, 2**32 - 1), answers=st.integers(1, 8), levels=st.integers(1, 9), data=st.data())
@settings(max_examples=60)
def test_it_is_the_mean_over_all_subsets_with_ties_broken_by_chance(
    seed: int, answers: int, levels: int, data: st.DataObject
) -> None:
    n = data.draw(st.integers(1, answers))
    rng = np.random.default_rng(seed)
    proxy, gold = rng.integers(0, levels, (3, answers)), rng.standard_normal((3, answers))
    expected = [by_enumeration(proxy[row], gold[row], n) for row in range(3)]
    assert expected_best(proxy, gold, n) == pytest.approx(expected, abs=1e-12)


def test_one_answer_is_the_mean_and_all_of_them_the_best() -> None:
    rng = np.random.default_rng(0)
    proxy, gold = rng.standard_normal((5, 64)), rng.standard_normal((5, 64))
    assert expected_best(proxy, gold, 1) == pytest.approx(gold.mean(axis=1))
    best = np.argmax(proxy, axis=1)
    assert expected_best(proxy, gold, 64) == pytest.approx(gold[np.arange(5), best])


def test_it_is_unbiased_for_fresh_answers() -> None:
    """Proxy standard normal, gold the proxy: the expected maximum of 4 is 1.02938."""
    scores = np.random.default_rng(1).standard_normal((20_000, 16))
    estimate = expected_best(scores, scores, 4)
    error = estimate.std() / math.sqrt(len(estimate))
    assert estimate.mean() == pytest.approx(1.029375, abs=4 * error)
    one_draw = scores[:, :4].max(axis=1)
    assert estimate.std() < 0.75 * one_draw.std()


def test_thousands_of_answers_keep_their_precision() -> None:
    gold = np.ones((1, 5000))
    assert expected_best(np.arange(5000.0)[None], gold, 2500)[0] == pytest.approx(1, abs=1e-12)
    assert expected_best(np.zeros((1, 5000)), np.arange(5000.0)[None], 37)[0] == pytest.approx(2499.5)


def test_the_divergence_is_ln_n_less_n_minus_one_over_n() -> None:
    assert kl_best_of_n(1) == 0
    assert kl_best_of_n([2, 4, 64]) == pytest.approx([0.193147, 0.636294, 3.174508], abs=1e-6)


def test_rewards_that_tie_lie_below_the_bound_and_two_values_have_their_closed_form() -> None:
    """A reward of 1 for a share p of answers: the best of n has it with 1 − (1 − p)^n."""
    proxy = np.repeat([[0.0, 1.0]], [75, 25], axis=1)
    q = 1 - 0.75**8
    exact = q * math.log(q / 0.25) + (1 - q) * math.log((1 - q) / 0.75)
    assert kl_of_tied_rewards(proxy, 8) == pytest.approx([exact])
    assert exact < kl_best_of_n(8)
    assert kl_of_tied_rewards(np.zeros((2, 10)), 8) == pytest.approx([0, 0])


@given(seed=st.integers(0, 2**32 - 1), levels=st.integers(1, 2000), n=st.integers(1, 64))
@settings(max_examples=40)
def test_no_reward_lies_above_the_bound(seed: int, levels: int, n: int) -> None:
    proxy = np.random.default_rng(seed).integers(0, levels, (2, 500))
    told = kl_of_tied_rewards(proxy, n)
    assert (told >= -1e-12).all() and (told <= kl_best_of_n(n) + 1e-12).all()


def test_without_ties_and_with_many_answers_it_nears_the_bound() -> None:
    proxy = np.random.default_rng(2).standard_normal((1, 100_000))
    assert kl_of_tied_rewards(proxy, 16)[0] == pytest.approx(float(kl_best_of_n(16)), rel=1e-3)


def test_a_curve_has_a_row_an_n() -> None:
    rng = np.random.default_rng(3)
    proxy = rng.standard_normal((200, 32))
    gold = 0.5 * proxy + rng.standard_normal((200, 32))
    curve = best_of_n_curve(proxy, gold, (1, 4, 32))
    assert list(curve["n"]) == [1, 4, 32]
    assert curve["proxy"].is_monotonic_increasing
    assert curve["gold"][2] == pytest.approx(0.5 * curve["proxy"][2], abs=4 * curve["gold_sem"][2])


@pytest.mark.parametrize(
    ("proxy", "gold", "n", "says"),
    [
        ([[1.0, 2.0]], [[1.0, 2.0]], 3, "n is 3: it is a whole number from 1 to the 2 answers"),
        ([[1.0, 2.0]], [[1.0, 2.0]], 0, "n is 0"),
        ([[1.0, 2.0]], [[1.0]], 1, "gold has shape"),
        ([[1.0, math.nan]], [[1.0, 2.0]], 1, "proxy of prompt 1, answer 2 is nan"),
        ([1.0, 2.0], [1.0, 2.0], 1, r"proxy has shape \(2,\)"),
    ],
)
def test_what_is_wrong_is_one_line(proxy: list, gold: list, n: int, says: str) -> None:
    with pytest.raises(UserError, match=says):
        expected_best(proxy, gold, n)
