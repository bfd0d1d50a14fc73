"""One architecture with its vocabulary, context and batch fixed: the sizes and runs that a design may choose among."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from scaling import architectures
from scaling.design.design import Design, DesignPoint
from scaling.errors import UserError
from scaling.shape import ModelShape, ParameterCounts

__all__ = ["FEWEST_STEPS", "Family", "family_of", "hold_out_point"]

FEWEST_STEPS = 25
"""Half a batch of rounding is then at most 2% of a run."""


@dataclass(frozen=True)
class Family:
    """What varies is the size alone, along the architecture's dial."""

    architecture: str
    vocabulary: int
    context: int
    tied: bool
    global_batch_tokens: int

    @property
    def _model(self) -> architectures.Architecture:
        return architectures.get(self.architecture)

    def shape(self, params_total: float) -> ModelShape:
        """The shape of about ``params_total`` parameters. Raises :class:`UserError` where there is none so small."""
        try:
            return self._model.shape_for(params_total, vocabulary=self.vocabulary, context=self.context, tied=self.tied)
        except ValueError as error:
            raise UserError(f"{error}") from None

    def least(self) -> ModelShape:
        """The smallest shape: what the dial gives for the fewest parameters that it accepts."""
        params = 1e3
        while True:
            try:
                return self._model.shape_for(params, vocabulary=self.vocabulary, context=self.context, tied=self.tied)
            except ValueError:
                params *= 1.2

    def count(self, shape: ModelShape) -> ParameterCounts:
        return self._model.count_parameters(shape)

    def flops_per_token(self, shape: ModelShape) -> int:
        return self._model.training_flops_per_token(shape)

    def optimum(self, flops: float, tokens_per_param: float) -> float:
        """N where D = tokens_per_param * N costs ``flops``: a fixed point, as exact FLOPs a token are not quite 6 N."""
        params = math.sqrt(flops / 6 / tokens_per_param)
        for _ in range(20):
            shape = self.shape(params)
            per_param = self.flops_per_token(shape) / self.count(shape).total
            params = math.sqrt(flops / per_param / tokens_per_param)
        return params

    def ladder(self, smallest: float, largest: float, step: float) -> list[ModelShape]:
        """Distinct shapes from ``smallest`` (at least the family's) to ``largest``, about ``step`` apart, ascending."""
        least = self.count(self.least()).total
        smallest = max(smallest, least)
        rungs = max(1, round(math.log(max(largest / smallest, 1.0)) / math.log(step)))
        shapes: list[ModelShape] = []
        for rung in range(rungs + 1):
            shape = self.shape(smallest * (largest / smallest) ** (rung / rungs))
            # The dial is coarse at the small end: a rung close to the one before would add a run and no information.
            if not shapes or self.count(shape).total > math.sqrt(step) * self.count(shapes[-1]).total:
                shapes.append(shape)
        return shapes

    def run(
        self,
        shape: ModelShape,
        tokens: float,
        *,
        budget: float | None = None,
        cost_share: float = 1.0,
        branched: bool = False,
        replicate: int = 0,
        rounding: Callable[[float], int] = round,
    ) -> DesignPoint:
        """A run of about ``tokens``, in whole batches; ``cost_share`` of it is trained for this run alone.

        Raises :class:`UserError` where that is fewer than 25 batches.
        """
        batch = self.global_batch_tokens
        steps = rounding(tokens / batch)
        if steps < FEWEST_STEPS:
            raise UserError(
                f"a run of {self.count(shape).total} parameters would get only {steps} batches of {batch} tokens: use "
                "more FLOPs, smaller batches (hyperparameters.global_batch_tokens) or fewer runs"
            )
        flops = float(steps * batch) * self.flops_per_token(shape)
        return DesignPoint(
            budget=budget,
            shape=shape,
            params=self.count(shape),
            tokens=steps * batch,
            flops=flops,
            cost_flops=flops * cost_share,
            branched=branched,
            replicate=replicate,
        )

    def of(self, flops: float, shape: ModelShape) -> DesignPoint:
        """The run of ``shape`` on an iso-FLOP line of ``flops``."""
        return self.run(shape, flops / self.flops_per_token(shape), budget=flops)


def family_of(point: DesignPoint, global_batch_tokens: int) -> Family:
    shape = point.shape
    return Family(shape.architecture, shape.vocabulary, shape.context, shape.tied, global_batch_tokens)


def hold_out_point(design: Design, multiple: float) -> DesignPoint:
    """One run of ``multiple`` times the largest point's FLOPs, at the size expected to be optimal there."""
    family = family_of(design.points[-1], design.global_batch_tokens)
    flops = multiple * max(point.flops for point in design.points)
    shape = family.shape(family.optimum(flops, design.tokens_per_param_centre))
    # Rounded up to a whole batch, so that the promised multiple is reached and not just missed.
    return family.run(shape, flops / family.flops_per_token(shape), rounding=math.ceil)
