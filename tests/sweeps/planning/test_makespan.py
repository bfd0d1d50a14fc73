"""The makespan is that of a longest-first schedule, in which branches wait for their trunk."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.planning.makespan import Job, makespan_seconds

SECONDS = st.floats(0.01, 1e4)


def test_the_longest_runs_go_first() -> None:
    assert makespan_seconds([Job(1), Job(1), Job(1), Job(3)], 2) == pytest.approx(3)


def test_a_branch_waits_until_its_carrier_is_past_its_step() -> None:
    assert makespan_seconds([Job(10), Job(2, carrier=0, carrier_seconds=4)], 2) == pytest.approx(10)
    assert makespan_seconds([Job(10), Job(2, carrier=0, carrier_seconds=9)], 2) == pytest.approx(11)
    assert makespan_seconds([Job(10), Job(2, carrier=0, carrier_seconds=9)], 1) == pytest.approx(12)


def test_a_circle_of_carriers_is_an_error() -> None:
    with pytest.raises(ValueError, match="can't start"):
        makespan_seconds([Job(1, carrier=1), Job(1, carrier=0)], 1)


@given(st.lists(SECONDS, min_size=1, max_size=20), st.integers(1, 8))
def test_it_lies_between_what_no_schedule_can_beat_and_twice_that(seconds: list[float], workers: int) -> None:
    found = makespan_seconds([Job(each) for each in seconds], workers)
    least = max(max(seconds), sum(seconds) / workers)
    assert least * (1 - 1e-9) <= found <= 2 * least


@given(st.lists(SECONDS, min_size=1, max_size=10), st.integers(1, 4), st.floats(0, 1))
def test_branches_add_no_more_than_waiting_for_the_whole_trunk(
    seconds: list[float], workers: int, share: float
) -> None:
    trunk = Job(100.0)
    found = makespan_seconds([trunk, *(Job(each, 0, 100 * share) for each in seconds)], workers)
    after = 100 + makespan_seconds([Job(each) for each in seconds], workers)
    assert 100 <= found <= after * (1 + 1e-9)
