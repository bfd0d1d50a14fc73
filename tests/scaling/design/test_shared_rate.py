"""What sharing a learning rate costs is what the valley says, and nothing where nothing is shared."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.design.design import DesignPoint
from scaling.design.family import Family
from scaling.design.shared_rate import shared_rate_costs
from scaling.hyperparameters import fit_valley
from scaling.laws.step_law import STEP_LAW

FAMILY = Family("llama", 256, 128, True, 512)


def branches(*tokens: int) -> list[DesignPoint]:
    shape = FAMILY.shape(50_000)
    return [FAMILY.run(shape, each).model_copy(update={"branched": True}) for each in tokens]


def test_a_run_alone_pays_nothing_and_the_ends_of_a_trunk_pay_alike() -> None:
    alone = FAMILY.run(FAMILY.shape(50_000), 512 * 900)
    short, middle, long, apart = shared_rate_costs([*branches(512 * 1000, 512 * 4000, 512 * 16_000), alone])
    assert short == pytest.approx(long)
    assert short == pytest.approx(0.0095 * (0.307 * math.log(4)) ** 2)
    assert middle == pytest.approx(0.0, abs=1e-12)
    assert apart == 0.0


@given(times=st.floats(1.5, 4.0), curvature=st.floats(0.002, 0.05))
def test_it_is_what_a_valley_costs_whose_bottom_lies_where_step_law_says(times: float, curvature: float) -> None:
    middle = 512 * 2**24  # within the law's range, and so are the branches
    tokens = [round(middle / 512 / times) * 512, round(middle / 512 * times) * 512]
    shared = STEP_LAW.at(1e8, math.sqrt(tokens[0] * tokens[1]))
    for cost, length in zip(shared_rate_costs(branches(*tokens), curvature), tokens, strict=True):
        best = STEP_LAW.at(1e8, length)
        rates = [best * 2.0**step for step in (-2, -1, 0, 1, 2)]
        valley = fit_valley(rates, [3.0 * (1 + curvature * math.log(rate / best) ** 2) for rate in rates])
        assert cost == pytest.approx(valley.costs(shared / best), rel=1e-6)
