from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling import architectures
from scaling.design.design import Design
from scaling.design.family import Family, hold_out_point
from scaling.design.isoflop import budgets_for, isoflop_design
from scaling.errors import UserError


def _design(total_flops: float = 1e13, count: int = 4, **changed: Any) -> Design:
    family = {"architecture": "llama", "vocabulary": 1024, "context": 128, "tied": True, "global_batch_tokens": 512}
    family |= {key: changed.pop(key) for key in family.keys() & changed.keys()}
    settings: dict[str, Any] = {"sizes_per_budget": 5, "tokens_per_param_centre": 9.0, "size_step": 1.7} | changed
    budgets = budgets_for(total_flops, count, 2.2, settings["sizes_per_budget"])
    return isoflop_design(Family(**family), budgets=budgets, **settings)


@pytest.fixture(scope="module")
def quickstart() -> Design:
    return _design()


@pytest.fixture(scope="module")
def cluster_sized() -> Design:
    """A design as a lab would run it: large vocabulary, long context, untied head."""
    return _design(
        1e21, vocabulary=128_256, context=8192, tied=False, global_batch_tokens=524_288, tokens_per_param_centre=20.0
    )


@given(
    total=st.floats(min_value=1e6, max_value=1e26),
    count=st.integers(min_value=1, max_value=9),
    ratio=st.floats(min_value=1.3, max_value=30),
    sizes=st.integers(min_value=1, max_value=12),
)
def test_budgets_are_geometric_and_their_lines_cost_the_total(
    total: float, count: int, ratio: float, sizes: int
) -> None:
    budgets = budgets_for(total, count, ratio, sizes)
    assert sum(budgets) * sizes == pytest.approx(total)
    assert [later / earlier for earlier, later in itertools.pairwise(budgets)] == pytest.approx([ratio] * (count - 1))


@settings(max_examples=8)
@given(
    total=st.floats(min_value=1e13, max_value=1e18),
    step=st.floats(min_value=1.3, max_value=2.5),
    per_param=st.floats(min_value=4, max_value=20),
)
def test_every_run_of_a_line_costs_its_budget_within_two_percent(total: float, step: float, per_param: float) -> None:
    design = _design(total, size_step=step, tokens_per_param_centre=per_param)
    for point in design.points:
        assert point.flops == pytest.approx(point.budget, rel=0.02)
        assert point.tokens % design.global_batch_tokens == 0
    assert design.flops == pytest.approx(total, rel=0.02)


@pytest.mark.parametrize("name", ["quickstart", "cluster_sized"])
def test_points_are_counted_exactly_and_no_two_of_a_line_are_alike(name: str, request: pytest.FixtureRequest) -> None:
    design: Design = request.getfixturevalue(name)
    for point in design.points:
        model = architectures.get(point.shape.architecture)
        assert point.params == model.count_parameters(point.shape)
        assert point.flops == point.tokens * model.training_flops_per_token(point.shape)
    assert len({(point.budget, point.shape) for point in design.points}) == len(design.points) == 20


@pytest.mark.parametrize("name", ["quickstart", "cluster_sized"])
def test_budgets_share_one_ladder_whose_rungs_are_apart(name: str, request: pytest.FixtureRequest) -> None:
    design: Design = request.getfixturevalue(name)
    sizes = sorted({point.params.total for point in design.points})
    assert len(sizes) == len(design.shapes) <= 8
    assert all(later / earlier > 1.3 for earlier, later in itertools.pairwise(sizes))


def test_each_line_has_sizes_on_both_sides_of_its_expected_optimum(cluster_sized: Design) -> None:
    for budget in {point.budget for point in cluster_sized.points}:
        ratios = [p.tokens / p.params.total for p in cluster_sized.points if p.budget == budget]
        assert sum(ratio > 20 for ratio in ratios) >= 2
        assert sum(ratio < 20 for ratio in ratios) >= 2


@pytest.mark.parametrize("multiple", [4.0, 4.2, 25.0])
def test_the_hold_out_costs_at_least_the_promised_multiple_at_the_expected_ratio(
    cluster_sized: Design, multiple: float
) -> None:
    point = hold_out_point(cluster_sized, multiple)
    largest = max(fitted.flops for fitted in cluster_sized.points)
    assert multiple <= point.flops / largest < multiple * 1.02
    assert point.tokens / point.params.total == pytest.approx(20, rel=0.3)


@pytest.mark.parametrize(
    ("changed", "advice"),
    [
        ({"vocabulary": 128_256}, "vocabulary"),
        ({"tokens_per_param_centre": 60.0}, "vocabulary"),
        ({"global_batch_tokens": 262_144}, "batches"),
        ({"total_flops": -1.0}, "budget.flops"),
        ({"total_flops": 1e12}, "design.sizes"),
    ],
)
def test_a_ladder_out_of_reach_is_one_line_of_advice(changed: dict[str, Any], advice: str) -> None:
    with pytest.raises(UserError, match=advice) as caught:
        _design(**changed)
    assert "\n" not in str(caught.value)
