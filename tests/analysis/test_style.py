"""Ticks, labels and colours that can be read."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from analysis.style import log_ticks, ordered_colours, power_label, powers_of_ten, spread

_POSITIVE = st.floats(1e-3, 1e26)


def _luminance(colour: str) -> float:
    """Relative luminance of WCAG 2."""
    channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@given(low=_POSITIVE, ratio=st.floats(1.02, 1e15), most=st.integers(4, 8))
def test_ticks_lie_inside_rise_and_are_few(low: float, ratio: float, most: int) -> None:
    ticks = log_ticks(low, low * ratio, most)
    assert 1 <= len(ticks) <= most
    assert (np.diff(ticks) > 0).all()
    assert ticks[0] >= low * 0.998 and ticks[-1] <= low * ratio * 1.002


def test_ticks_are_the_values_a_person_would_choose() -> None:
    assert log_ticks(4.1, 7.3, 5).tolist() == [5.0, 6.0, 7.0]
    assert log_ticks(2.3e4, 7e5).tolist() == [5e4, 1e5, 2e5, 5e5]
    assert log_ticks(1e11, 1e24, 5).tolist() == [1e12, 1e15, 1e18, 1e21, 1e24]


@given(st.lists(st.floats(0, 500), min_size=1, max_size=30), st.floats(1, 30))
def test_spread_labels_never_meet_and_keep_their_order(positions: list[float], gap: float) -> None:
    placed = spread(positions, gap)
    order = np.argsort(positions, kind="stable")
    assert (np.diff(placed[order]) >= gap - 1e-6).all()


@given(st.lists(st.integers(0, 20), min_size=1, max_size=12, unique=True))
def test_labels_that_are_apart_stay_where_they_are(places: list[int]) -> None:
    positions = np.array(places) * 20.0
    np.testing.assert_allclose(spread(positions, 12.0), positions, atol=1e-9)


@given(st.integers(1, 12))
def test_ordered_colours_can_be_told_from_the_page_and_rise_in_grey(count: int) -> None:
    for colour_map in ("viridis", "cividis"):
        light = [_luminance(c) for c in ordered_colours(np.geomspace(1e4, 1e6, count), colour_map)]
        assert (np.diff(light) > 0).all()
        assert max(light) < 0.55  # contrast with white of at least 1.7 for the palest mark
        dark = [_luminance(c) for c in ordered_colours(np.geomspace(1e4, 1e6, count), colour_map, dark_page=True)]
        assert min(dark) > 0.08


def test_powers_are_written_as_powers() -> None:
    assert powers_of_ten(1e11) == "10<sup>11</sup>"
    assert powers_of_ten(8e10) == "8×10<sup>10</sup>"
    assert power_label(1e22) == "$10^{22}$"
