from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling import architectures
from scaling.design.design import Design
from scaling.design.expected import expected_interval
from scaling.design.family import Family
from scaling.design.information import Limits, information_design
from scaling.design.law_prior import LawPrior
from scaling.errors import UserError
from scaling.shape import ModelShape

BUDGET, TARGET = 4e14, 1e17
PRIOR = LawPrior.plausible(3e12, truths=6)


def _design(budget: float = BUDGET, **changed: Any) -> Design:
    settings: dict[str, Any] = {"target_flops": TARGET, "prior": PRIOR, "noise": 0.004} | changed
    return information_design(Family("llama", 256, 128, True, 512), budget, **settings)


@pytest.fixture(scope="module")
def separate() -> Design:
    return _design()


@pytest.fixture(scope="module")
def branched() -> Design:
    return _design(cooldown=0.15)


@settings(max_examples=8)
@given(
    budget=st.floats(min_value=1e14, max_value=1e16),
    cooldown=st.sampled_from([None, 0.1, 0.3]),
    most=st.integers(min_value=10, max_value=30),
)
def test_no_design_costs_more_than_its_budget_or_breaks_its_limits(
    budget: float, cooldown: float | None, most: int
) -> None:
    limits = Limits(most_runs=most, largest_share=0.15, smallest_params=20_000, fewest_steps=100, ratio_reach=6)
    design = _design(budget=budget, cooldown=cooldown, limits=limits)
    centre = PRIOR.tokens_per_param(TARGET)
    assert 0.5 * budget < design.flops <= budget * (1 + 1e-9)
    assert len(design.points) <= most
    for point in design.points:
        assert point.tokens % 512 == 0
        assert point.tokens >= 100 * 512
        assert point.flops <= 0.15 * budget
        assert point.params.total >= 20_000
        assert centre / 6 <= point.tokens / point.params.total <= 6 * centre
        assert point.flops == architectures.training_flops(point.shape, point.tokens)


def test_a_trunk_is_paid_once_and_each_of_its_branches_costs_its_cooldown(branched: Design) -> None:
    trunks = defaultdict(list)
    for point in branched.points:
        if point.branched:
            trunks[point.shape, point.replicate].append(point)
        else:
            assert point.cost_flops == point.flops
    assert trunks
    for points in trunks.values():
        assert len(points) > 1
        longest = max(points, key=lambda point: point.tokens)
        assert longest.cost_flops == longest.flops
        for point in points:
            if point is not longest:
                assert point.cost_flops == pytest.approx(0.15 * point.flops)


@pytest.mark.parametrize("name", ["separate", "branched"])
def test_no_two_runs_are_the_same_run(name: str, request: pytest.FixtureRequest) -> None:
    design: Design = request.getfixturevalue(name)
    runs = Counter((point.shape, point.tokens, point.replicate) for point in design.points)
    assert set(runs.values()) == {1}


def test_some_runs_repeat_others_with_another_seed(separate: Design) -> None:
    alike = Counter((point.shape, point.tokens) for point in separate.points)
    assert sum(count - 1 for count in alike.values()) >= 3


def test_a_design_is_the_same_whenever_it_is_made(separate: Design, branched: Design) -> None:
    assert _design() == separate
    assert _design(cooldown=0.15) == branched


def test_what_a_machine_cannot_train_is_not_planned() -> None:
    def fits(shape: ModelShape, tokens: int) -> bool:
        return shape.width <= 64 and tokens <= 5_000_000

    design = _design(limits=Limits(admissible=fits))
    assert all(fits(point.shape, point.tokens) for point in design.points)


def test_a_budget_may_be_seconds(separate: Design) -> None:
    design = _design(budget=4e4, cost=lambda shape, tokens: architectures.training_flops(shape, tokens) / 1e10)
    assert design.points == separate.points


@pytest.mark.parametrize("cooldown", [None, 0.15])
@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)])
def test_more_budget_never_widens_what_is_asked_for(weights: tuple[float, float], cooldown: float | None) -> None:
    widths = []
    for budget in (2e14, 8e14, 3.2e15):
        design = _design(budget=budget, cooldown=cooldown, weights=weights)
        told = expected_interval(design, PRIOR, TARGET, 0.004)
        widths.append(weights[0] * math.log(told.loss) + weights[1] * math.log(math.log(told.params)))
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize(
    ("changed", "advice"),
    [({"budget": -1.0}, "budget"), ({"noise": 0.0}, "noise"), ({"budget": 1e9}, "vocabulary")],
)
def test_what_can_not_be_planned_is_one_line_of_advice(changed: dict[str, Any], advice: str) -> None:
    with pytest.raises(UserError, match=advice) as caught:
        _design(**changed)
    assert "\n" not in str(caught.value)
