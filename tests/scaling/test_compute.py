from __future__ import annotations

import numpy as np
import pytest

from scaling.compute import flops_6nd, mfu
from scaling.errors import UserError


def test_6nd_of_a_frontier_run_does_not_overflow() -> None:
    assert flops_6nd(np.array([405_000_000_000]), np.array([15_600_000_000_000]))[0] == pytest.approx(3.79e25, rel=1e-3)


def test_6nd_of_two_numbers_is_a_number() -> None:
    assert flops_6nd(1_000, 2_000) == 1.2e7
    assert type(flops_6nd(1_000, 2_000)) is float


def test_mfu_of_palm_540b() -> None:
    """2204.02311, table 3 and section 4.1: 238.3k tokens a second on 6144 TPU v4 of 275 TFLOP/s is 46.2%."""
    per_token = 6 * 540.35e9 + 12 * 118 * 48 * 256 * 2048
    assert mfu(238.3e3 * per_token, 1.0, 6144, 275e12) == pytest.approx(0.462, abs=0.003)


def test_mfu_refuses_no_time() -> None:
    with pytest.raises(UserError, match="seconds is 0"):
        mfu(1e20, 0, 8, 1e15)
