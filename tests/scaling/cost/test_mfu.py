from __future__ import annotations

import itertools

import pytest

from scaling.cost.mfu import achieved_mfu, width_gain, width_share


def test_narrow_models_reach_less_and_wide_ones_all_of_it() -> None:
    widths = [64, 256, 768, 900, 1024, 1536, 2048, 2560, 4096, 16384]
    shares = [width_share(width) for width in widths]
    assert all(narrow <= wide for narrow, wide in itertools.pairwise(shares))
    assert shares[-1] == shares[-2] == 1
    assert width_share(384) == pytest.approx(width_share(768) / 2)


def test_shares_between_the_measured_widths_are_those_measured_there() -> None:
    # llm-foundry on A100: 44.8% at 768 and 64.2% at 4,096.
    assert width_share(768) == pytest.approx(44.8 / 64.2, abs=0.01)
    assert width_share(768) < width_share(900) < width_share(1024)


def test_the_range_narrows_with_the_model_and_says_what_it_rests_on() -> None:
    wide, _ = achieved_mfu(8, 8192)
    narrow, source = achieved_mfu(8, 768)
    assert wide == achieved_mfu(8)[0]
    assert narrow.estimate == pytest.approx(0.7 * wide.estimate)
    assert "llm-foundry" in source and "768" in source


def test_what_a_width_gains_lies_between_the_accelerators_that_were_measured() -> None:
    gain = width_gain(1536, 4096)
    assert gain.low == pytest.approx(1 / 0.89) and gain.high == pytest.approx(1 / 0.79)
    assert gain.estimate == pytest.approx(1 / 0.83)
    # On A100 alone, and under 768 on none.
    for narrow in (1024, 256):
        open_ended = width_gain(narrow, 4096)
        assert open_ended.estimate > 1 and (open_ended.low, open_ended.high) == (None, None)
    assert width_gain(4096, 16_384).estimate == 1
