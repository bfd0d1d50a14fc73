from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.quantity import format_count, format_duration, format_flops, format_interval, format_usd
from scaling.record import Interval

_SIZES = {"k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}


@pytest.mark.parametrize(
    ("value", "shown"),
    [(7.2e10, "72B"), (2.2e12, "2.2T"), (28_123, "28.1k"), (640, "640"), (999.9e9, "1T"), (999_999, "1M"), (0, "0")],
)
def test_counts_are_written_as_people_say_them(value: float, shown: str) -> None:
    assert format_count(value) == shown


@given(st.floats(min_value=1e-3, max_value=9e14))
def test_a_count_read_back_is_the_value_to_three_digits(value: float) -> None:
    shown = format_count(value)
    number = float(shown[:-1]) * _SIZES[shown[-1]] if shown[-1] in _SIZES else float(shown)
    assert math.isclose(number, value, rel_tol=5.01e-3)


@given(st.floats(min_value=1.0, max_value=9e14))
def test_a_count_never_shows_more_than_three_digits_before_its_suffix(value: float) -> None:
    assert abs(float(format_count(value).rstrip("kMBT"))) < 1000


def test_flops_are_scientific_without_padding() -> None:
    assert format_flops(9.43e23) == "9.4e23 FLOPs"
    assert format_flops(6.6e8) == "6.6e8 FLOPs"


def test_an_interval_stands_in_brackets_and_an_open_side_is_a_question_mark() -> None:
    assert format_interval(Interval(estimate=7.2e10, low=5.7e10, high=9.1e10)) == "72B [57B, 91B]"
    assert format_interval(Interval(estimate=7.2e10, low=None, high=None)) == "72B [?, ?]"


def test_dollars() -> None:
    assert format_usd(1.33e6) == "$1.33M"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(8, "8 s"), (59.7, "1 min 0 s"), (220, "3 min 40 s"), (7500, "2 h 5 min"), (27 * 86_400, "27.0 days")],
)
def test_durations_use_the_two_units_that_matter(seconds: float, shown: str) -> None:
    assert format_duration(seconds) == shown
