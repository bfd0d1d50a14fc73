"""Iso-FLOP lines: several budgets, and at each the same compute spent on several model sizes.

Approach 2 of Hoffmann et al. (2203.15556, section 3.2). All budgets share one ladder of shapes, so that fewer have to
be compiled; each budget takes the rungs around the size that is expected to be optimal there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from scaling import architectures
from scaling.errors import UserError
from scaling.record import Record
from scaling.shape import ModelShape, ParameterCounts

__all__ = ["DesignPoint", "IsoflopDesign", "budgets_for", "hold_out_point", "isoflop_design"]

FEWEST_STEPS = 25
"""Half a batch of rounding is then at most 2% of a run."""


class DesignPoint(Record):
    """One run to train: ``tokens`` are whole batches, ``flops`` are exact and within 2% of ``budget``."""

    budget: float
    shape: ModelShape
    params: ParameterCounts
    tokens: int
    flops: float


class IsoflopDesign(Record):
    """The points, the cheapest budget and the smallest size first, and what they were laid out by."""

    points: tuple[DesignPoint, ...]
    tokens_per_param_centre: float
    global_batch_tokens: int

    @property
    def flops(self) -> float:
        """What all points cost together."""
        return sum(point.flops for point in self.points)

    @property
    def shapes(self) -> tuple[ModelShape, ...]:
        """The distinct shapes, the smallest first."""
        sizes = {point.shape: point.params.total for point in self.points}
        return tuple(sorted(sizes, key=sizes.__getitem__))


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
    *,
    budgets: Sequence[float],
    sizes_per_budget: int,
    architecture: str,
    vocabulary: int,
    context: int,
    tied: bool,
    global_batch_tokens: int,
    tokens_per_param_centre: float,
    size_step: float,
) -> IsoflopDesign:
    """Lay ``sizes_per_budget`` sizes around each budget's expected optimum, where D = ``tokens_per_param_centre`` * N.

    ``size_step`` is the ratio of neighbouring sizes. Raises :class:`UserError` where the ladder has no such sizes (the
    vocabulary alone is larger), where a budget's expected optimum lies below the smallest shape, so that its minimum
    could not be seen, or where a run would be shorter than 25 batches (its FLOPs could then miss the budget by 2%).
    """
    model = _Family(architecture, vocabulary, context, tied)
    centres = [model.optimum(budget, tokens_per_param_centre) for budget in budgets]
    below = (sizes_per_budget - 1) / 2
    ladder = model.ladder(min(centres) / size_step**below, max(centres) * size_step**below, size_step)
    if len(ladder) < sizes_per_budget:
        raise UserError(
            f"design.sizes is {sizes_per_budget}, but between the budgets' smallest and largest size there are only "
            f"{len(ladder)} shapes with a vocabulary of {vocabulary}: use fewer sizes, a smaller vocabulary, more FLOPs"
        )
    points = []
    for budget, centre in zip(budgets, centres, strict=True):
        nearest = min(range(len(ladder)), key=lambda rung: abs(math.log(model.count(ladder[rung]).total / centre)))
        if centre < model.count(ladder[0]).total:
            raise UserError(
                f"a budget of {budget:.2e} FLOPs has its optimum near {centre:.3g} parameters, below the smallest "
                f"shape's {model.count(ladder[0]).total} with a vocabulary of {vocabulary}: use more FLOPs, a smaller "
                "vocabulary or fewer tokens a parameter (design.tokens_per_param)"
            )
        first = min(max(0, nearest - sizes_per_budget // 2), len(ladder) - sizes_per_budget)
        line = ladder[first : first + sizes_per_budget]
        points += [model.point(shape, budget, budget, global_batch_tokens) for shape in line]
    return IsoflopDesign(
        points=tuple(points), tokens_per_param_centre=tokens_per_param_centre, global_batch_tokens=global_batch_tokens
    )


def hold_out_point(design: IsoflopDesign, multiple: float) -> DesignPoint:
    """One run of ``multiple`` times the largest point's FLOPs, at the size expected to be optimal there."""
    example = design.points[-1].shape
    model = _Family(example.architecture, example.vocabulary, example.context, example.tied)
    # Rounded up to a whole batch, so that the promised multiple is reached and not just missed.
    flops = multiple * max(point.flops for point in design.points)
    shape = model.shape(model.optimum(flops, design.tokens_per_param_centre))
    return model.point(shape, flops, flops, design.global_batch_tokens, rounding=math.ceil)


class _Family:
    """One architecture with its vocabulary and context fixed: what varies is the size alone."""

    def __init__(self, architecture: str, vocabulary: int, context: int, tied: bool) -> None:
        self._model = architectures.get(architecture)
        self._vocabulary, self._context, self._tied = vocabulary, context, tied

    def shape(self, params_total: float) -> ModelShape:
        try:
            return self._model.shape_for(
                params_total, vocabulary=self._vocabulary, context=self._context, tied=self._tied
            )
        except ValueError as error:
            raise UserError(f"{error}") from None

    def _least(self) -> ModelShape:
        """The smallest shape: what the dial gives for the fewest parameters that it accepts."""
        params = 1e3
        while True:
            try:
                return self._model.shape_for(
                    params, vocabulary=self._vocabulary, context=self._context, tied=self._tied
                )
            except ValueError:
                params *= 1.2

    def count(self, shape: ModelShape) -> ParameterCounts:
        return self._model.count_parameters(shape)

    def optimum(self, flops: float, tokens_per_param: float) -> float:
        """N where D = tokens_per_param * N costs ``flops``: a fixed point, as exact FLOPs a token are not quite 6 N."""
        params = math.sqrt(flops / 6 / tokens_per_param)
        for _ in range(20):
            shape = self.shape(params)
            per_param = self._model.training_flops_per_token(shape) / self.count(shape).total
            params = math.sqrt(flops / per_param / tokens_per_param)
        return params

    def ladder(self, smallest: float, largest: float, step: float) -> list[ModelShape]:
        """Distinct shapes from ``smallest`` (at least the family's) to ``largest``, about ``step`` apart, ascending."""
        least = self.count(self._least()).total
        smallest = max(smallest, least)
        rungs = max(1, round(math.log(max(largest / smallest, 1.0)) / math.log(step)))
        shapes: list[ModelShape] = []
        for rung in range(rungs + 1):
            shape = self.shape(smallest * (largest / smallest) ** (rung / rungs))
            # The dial is coarse at the small end: a rung close to the one before would add a run and no information.
            if not shapes or self.count(shape).total > math.sqrt(step) * self.count(shapes[-1]).total:
                shapes.append(shape)
        return shapes

    def point(
        self, shape: ModelShape, budget: float, flops: float, batch: int, rounding: Callable[[float], int] = round
    ) -> DesignPoint:
        per_token = self._model.training_flops_per_token(shape)
        steps = rounding(flops / per_token / batch)
        if steps < FEWEST_STEPS:
            raise UserError(
                f"a budget of {budget:.2e} FLOPs gives {self.count(shape).total} parameters only {steps} batches of "
                f"{batch} tokens: use more FLOPs, smaller batches or fewer budgets"
            )
        tokens = steps * batch
        return DesignPoint(
            budget=budget, shape=shape, params=self.count(shape), tokens=tokens, flops=float(tokens) * per_token
        )
