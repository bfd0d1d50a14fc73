from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.cost.failures import checkpoint_interval, failure_account, goodput
from scaling.errors import UserError


@pytest.mark.parametrize(
    ("between", "every", "checkpoint", "restart"), [(10.0, 2.0, 0.1, 0.5), (3.0, 1.0, 0.3, 1.0), (100.0, 5.0, 0.2, 2.0)]
)
def test_goodput_is_what_simulated_failures_leave(
    between: float, every: float, checkpoint: float, restart: float
) -> None:
    """Runs of many segments, with failures that may strike in training, in checkpoints and in restarts."""
    rng = np.random.default_rng(7)
    segments, wall = 40_000, 0.0
    for _ in range(segments):
        needed = every + checkpoint
        while True:
            until = rng.exponential(between)
            if until >= needed:
                wall += needed
                break
            wall += until
            needed = every + checkpoint
            while (struck := rng.exponential(between)) < restart:
                wall += struck
            wall += restart
    assert segments * every / wall == pytest.approx(goodput(between, every, checkpoint, restart), rel=0.02)


@given(between=st.floats(0.5, 1e4), share=st.floats(1e-4, 0.5))
def test_dalys_interval_loses_hardly_more_than_the_best_one(between: float, share: float) -> None:
    takes = share * between
    chosen = goodput(between, checkpoint_interval(between, takes), takes, 0.1 * between)
    tried = np.geomspace(takes / 100, 10 * between, 400)
    best = max(goodput(between, float(every), takes, 0.1 * between) for every in tried)
    assert chosen == pytest.approx(best, rel=0.01)


def test_rare_failures_give_youngs_interval() -> None:
    assert checkpoint_interval(1e6, 1.0) == pytest.approx(math.sqrt(2e6), rel=0.01)


def test_llama_3_s_interruptions_and_effective_time() -> None:
    """419 unexpected interruptions in 54 days on 16,384 GPUs, and over 90% effective time (2407.21783)."""
    account = failure_account(405e9, 16_384)
    assert 54 * 86_400 / account.mean_time_between.estimate == pytest.approx(419, rel=0.01)
    assert 0.90 < account.goodput.estimate < 0.95
    assert account.goodput.low is not None and account.goodput.high is not None
    assert account.goodput.low < account.goodput.estimate < account.goodput.high < 1


def test_one_device_hardly_fails_and_more_fail_more_often() -> None:
    shares = [failure_account(1e9, gpus).goodput.estimate for gpus in (1, 64, 4096, 65_536)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.999
    with pytest.raises(UserError, match="gpus is 0"):
        failure_account(1e9, 0)
    with pytest.raises(UserError, match=r"gpus is 1,000,000,000: .* no run gets ahead"):
        failure_account(1e9, 10**9)
