"""Iso-FLOP lines: several budgets, and at each the same compute spent on several model sizes.

Approach 2 of Hoffmann et al. (2203.15556, section 3.2). All budgets share one ladder of shapes, so that fewer have to
be compiled; each budget takes the rungs around the size that is expected to be optimal there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from scaling.design.design import Design
from scaling.design.family import Family
from scaling.errors import UserError

__all__ = ["budgets_for", "isoflop_design"]


def budgets_for(total_flops: float, count: int, ratio: float, sizes_per_budget: int) -> tuple[float, ...]:
    """``count`` budgets, each ``ratio`` times the one before, whose lines cost ``total_flops`` together.

    Raises :class:`UserError` unless there are FLOPs to spend and the budgets grow.
    """
    if not (math.isfinite(total_flops) and total_flops > 0):
        raise UserError(f"budget.flops is {total_flops:g}: the sweep needs a finite number above 0, for example 1e13")
    if count < 1 or sizes_per_budget < 1 or not ratio > 1:
        raise UserError(
            f"design.budgets is {count}, design.sizes {sizes_per_budget} and design.ratio {ratio:g}: use at least one "
            "of each and a ratio above 1"
        )
    smallest = total_flops / sizes_per_budget / sum(ratio**power for power in range(count))
    return tuple(smallest * ratio**power for power in range(count))


def isoflop_design(
    family: Family,
    *,
    budgets: Sequence[float],
    sizes_per_budget: int,
    tokens_per_param_centre: float,
    size_step: float,
) -> Design:
    """Lay ``sizes_per_budget`` sizes around each budget's expected optimum, where D = ``tokens_per_param_centre`` * N.

    ``size_step`` is the ratio of neighbouring sizes. Raises :class:`UserError` where the ladder has no such sizes (the
    vocabulary alone is larger), where a budget's expected optimum lies below the smallest shape, so that its minimum
    could not be seen, or where a run would be shorter than 25 batches (its FLOPs could then miss the budget by 2%).
    """
    centres = [family.optimum(budget, tokens_per_param_centre) for budget in budgets]
    below = (sizes_per_budget - 1) / 2
    ladder = family.ladder(min(centres) / size_step**below, max(centres) * size_step**below, size_step)
    if len(ladder) < sizes_per_budget:
        raise UserError(
            f"design.sizes is {sizes_per_budget}, but between the budgets' smallest and largest size there are only "
            f"{len(ladder)} shapes with a vocabulary of {family.vocabulary}: use fewer sizes, a smaller vocabulary, "
            "more FLOPs"
        )
    points = []
    for budget, centre in zip(budgets, centres, strict=True):
        nearest = min(range(len(ladder)), key=lambda rung: abs(math.log(family.count(ladder[rung]).total / centre)))
        if centre < family.count(ladder[0]).total:
            raise UserError(
                f"a budget of {budget:.2e} FLOPs has its optimum near {centre:.3g} parameters, below the smallest "
                f"shape's {family.count(ladder[0]).total} with a vocabulary of {family.vocabulary}: use more FLOPs, a "
                "smaller vocabulary or fewer tokens a parameter (design.tokens_per_param)"
            )
        first = min(max(0, nearest - sizes_per_budget // 2), len(ladder) - sizes_per_budget)
        line = ladder[first : first + sizes_per_budget]
        points += [family.of(budget, shape) for shape in line]
    return Design(
        kind="isoflop",
        points=tuple(points),
        tokens_per_param_centre=tokens_per_param_centre,
        global_batch_tokens=family.global_batch_tokens,
    )
