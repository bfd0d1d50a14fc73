"""Agreement: published examples, and what must hold of any ratings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling.errors import UserError
from scaling.preference.agreement import agreement, cohen_kappa, order_consistency

N = np.nan
KRIPPENDORFF = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, N, N, N],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, N, 3],
        [N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, N],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, N],
    ]
).T


@pytest.mark.parametrize(("scale", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_is_krippendorffs_on_his_example(scale: str, alpha: float) -> None:
    """Four observers, twelve units, some missing (Krippendorff 2011, section D)."""
    told = agreement(KRIPPENDORFF, scale=scale, bootstrap=50)  # type: ignore[arg-type]
    assert told.krippendorff_alpha is not None
    assert told.krippendorff_alpha.estimate == pytest.approx(alpha, abs=6e-4)
    assert (told.items, told.annotators) == (11, 4)


def test_kappa_of_a_two_by_two_table() -> None:
    """20 both yes, 15 both no, 5 and 10 apart: p_o 0.7, p_e 0.5, κ 0.4."""
    first = np.repeat([1, 1, 0, 0], [20, 5, 10, 15])
    second = np.repeat([1, 0, 1, 0], [20, 5, 10, 15])
    told = cohen_kappa(first, second)
    assert told.estimate == pytest.approx(0.4)
    assert told.low is not None and told.high is not None
    assert told.high - told.low == pytest.approx(2 * 1.645 * 0.1265, rel=0.15)  # the large-sample error


@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from(["nominal", "ordinal", "interval"]))
@settings(max_examples=30)
def test_order_of_items_and_annotators_says_nothing_and_full_agreement_is_one(seed: int, scale: str) -> None:
    rng = np.random.default_rng(seed)
    ratings = rng.integers(0, 4, (20, 3)).astype(float)
    ratings[rng.random((20, 3)) < 0.2] = np.nan
    ratings[0], ratings[1] = 0, 1
    shuffled = ratings[rng.permutation(20)][:, rng.permutation(3)]
    one, other = (agreement(r, scale=scale, bootstrap=0).krippendorff_alpha for r in (ratings, shuffled))  # type: ignore[arg-type]
    assert one is not None and other is not None and one.estimate == pytest.approx(other.estimate)
    agreed = agreement(np.repeat(rng.integers(0, 2, (20, 1)), 3, axis=1) + np.eye(20)[:, :1] * 0, bootstrap=0)
    assert agreed.percent.estimate == 1
    assert agreed.krippendorff_alpha is None or agreed.krippendorff_alpha.estimate == pytest.approx(1)


@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """90% nominal over 300 studies: two annotators of balanced categories who tell the truth four times in five."""
    rng, hits = np.random.default_rng(0), []
    for study in range(300):
        truth = rng.integers(0, 2, 150)
        ratings = np.where(rng.random((150, 2)) < 0.8, truth[:, None], 1 - truth[:, None])
        kappa = cohen_kappa(ratings[:, 0], ratings[:, 1], bootstrap=300, seed=study)
        alpha = agreement(ratings, bootstrap=300, seed=study).krippendorff_alpha
        assert alpha is not None
        hits.append([told.low <= 0.36 <= told.high for told in (kappa, alpha)])  # type: ignore[operator]
    assert np.mean(hits, axis=0) == pytest.approx(0.9, abs=0.05)


def test_a_judge_that_always_takes_the_first_is_found_out() -> None:
    told = order_consistency(np.ones(50), np.zeros(50))
    assert told.consistent.estimate == 0 and told.first_preferred.estimate == 1
    fair = order_consistency([1, 1, 0, 0.5], [1, 1, 0, 0.5])
    assert fair.consistent.estimate == 1 and fair.first_preferred.estimate == 0.5


def test_what_is_wrong_is_one_line() -> None:
    with pytest.raises(UserError, match="no item has two ratings"):
        agreement([[1, np.nan], [np.nan, 2]])
    with pytest.raises(UserError, match="kappa needs two categories"):
        cohen_kappa([1, 1], [1, 1])
