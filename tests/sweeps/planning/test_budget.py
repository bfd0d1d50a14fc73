"""A budget in any unit gives the largest design that it pays for, and never more."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.errors import UserError
from sweeps.planning.budget import Budget, Cost, largest_within


@dataclass(frozen=True)
class Laid:
    flops: float


def in_steps(step: float):
    """Designs that come in sizes a factor of ``step`` apart, none below 1e9 FLOPs."""

    def lay_out(flops: float) -> Laid:
        if flops < 1e9:
            raise UserError("too small")
        at = 1e9
        while at * step <= flops:
            at *= step
        return Laid(at)

    return lay_out


def cost(design: Laid) -> Cost:
    return Cost(
        flops=design.flops, makespan_seconds=design.flops / 1e10, gpu_seconds=design.flops / 2e9, usd_per_hour=2
    )


@given(
    unit=st.sampled_from(["minutes", "hours", "gpu_hours", "usd"]),
    amount=st.floats(0.5, 1e4),
    guess=st.floats(1e6, 1e18),
    step=st.floats(1.001, 1.02),
)
def test_the_design_fits_and_uses_nearly_all_of_it(unit: str, amount: float, guess: float, step: float) -> None:
    budget = Budget.model_validate({unit: amount})
    design = largest_within(budget, in_steps(step), cost, guess)
    assert 0.9 * amount < cost(design).of(budget) <= amount


def test_flops_need_no_search() -> None:
    assert largest_within(Budget(flops=3e12), Laid, cost, 1.0) == Laid(3e12)


def test_a_budget_below_the_least_design_is_one_line_that_says_so() -> None:
    with pytest.raises(UserError, match=r"budget\.minutes is 0\.0001: no design of this kind is that cheap") as caught:
        largest_within(Budget(minutes=1e-4), in_steps(1.01), cost, 1e12)
    assert "\n" not in str(caught.value)


def test_what_this_machine_has_not_is_refused_with_a_remedy() -> None:
    plain = Cost(flops=1e12, makespan_seconds=60)
    with pytest.raises(UserError, match="this machine has no GPU"):
        plain.of(Budget(gpu_hours=1))
    with pytest.raises(UserError, match=r"set execute\.usd_per_hour"):
        plain.of(Budget(usd=5))
    assert plain.of(Budget(hours=1)) == pytest.approx(1 / 60)


def test_dollars_are_of_gpus_where_there_are_some_and_of_the_machine_where_not() -> None:
    assert Cost(flops=1, makespan_seconds=3600, usd_per_hour=0.5).usd == 0.5
    assert Cost(flops=1, makespan_seconds=3600, gpu_seconds=8 * 3600, usd_per_hour=2).usd == 16


@pytest.mark.parametrize("given_units", [{}, {"flops": 1e12, "hours": 1}])
def test_a_budget_is_given_once(given_units: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="exactly one of"):
        Budget.model_validate(given_units)
