from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.batch_rule import BatchRule, whole_sequences


@given(batch=st.floats(1, 1e9), context=st.sampled_from([32, 128, 4096]), even=st.booleans())
def test_sequences_are_whole_near_what_is_wanted_and_shared_evenly(batch: float, context: int, even: bool) -> None:
    sequences, rest = divmod(whole_sequences(batch, context, even=even), context)
    assert rest == 0 and sequences >= 1
    wanted = max(batch / context, 1.0)
    # Half a step of an eighth to a quarter of it, or of one (two) sequences where there are few.
    assert abs(sequences - wanted) <= max(wanted / 8, 1.0 if even else 0.5) + 1e-9
    assert sequences >> max(0, sequences.bit_length() - 4) << max(0, sequences.bit_length() - 4) == sequences
    assert sequences == 1 or not even or sequences % 2 == 0


@given(tokens=st.floats(1e4, 1e14), longer=st.floats(1, 1e6), exponent=st.floats(0, 1))
def test_the_batch_never_shrinks_with_the_length_and_is_the_studys_at_its_own(
    tokens: float, longer: float, exponent: float
) -> None:
    rule = BatchRule(batch_tokens=512, at_tokens=1e6, exponent=exponent)
    assert rule.at(tokens * longer) >= rule.at(tokens) * (1 - 1e-12)
    assert rule.trained(tokens * longer, 128) >= rule.trained(tokens, 128)
    assert rule.at(1e6) == rule.trained(1e6, 128) == 512


def test_one_batch_for_all_is_trained_as_it_is_given() -> None:
    assert BatchRule(batch_tokens=128 * 29, at_tokens=1e6, exponent=0).trained(7e9, 128) == 128 * 29


def test_ten_times_the_tokens_get_power_lines_factor() -> None:
    rule = BatchRule(batch_tokens=512, at_tokens=1e6, exponent=0.383)
    assert math.log10(rule.at(1e7) / 512) == pytest.approx(0.383)
