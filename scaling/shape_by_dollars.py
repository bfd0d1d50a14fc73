"""The shape that reaches a loss for the fewest dollars, beside the one that takes the least compute.

At one loss a model's dollars go as its FLOPs over the share of the peak that it reaches, and wider models reach more
(``scaling.cost.mfu.width_share``). So sizes in the flat region, and shapes wider or deeper than the dial's, are priced
at the loss of the compute optimum, by the law alone.

The law says nothing of width against depth. What is known of that is Kaplan et al. (2001.08361, figure 5): at 1.5B
parameters 6 layers of 4,288 come within 3% of the loss of 48 of 1,600, and between those two, 21 times apart in width
over depth, "a wide range of architectures achieve similar performance". Where in that range loss is least is not
given. So a shape whose ratio is f times another's may lose up to 3% ln f / ln 21 of loss, as much of it as its part of
the range; a saving counts as settled where the compute that makes up for so much is less than it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from scaling import architectures
from scaling.accounting import Accounting
from scaling.allocation.surface import LossSurface
from scaling.cluster import ClusterEstimate
from scaling.cluster_wanted import ClusterWanted
from scaling.cost.mfu import narrowest_measured, width_gain, width_share
from scaling.hardware import accelerator
from scaling.record import Interval, Record
from scaling.shape import ModelShape

__all__ = ["PricedShape", "ShapesByDollars", "shapes_by_dollars"]

RATIO = 2.0
"""How much wider or deeper than the dial's a shape may be."""
_WORTH_SAYING = 0.005
"""Share of the dollars from which another shape is named: less is the grid of sizes."""
_KAPLAN_LOSS, _KAPLAN_RANGE = 0.03, (4288 / 6) / (1600 / 48)
_SAME_SIZE = 0.03
"""Of a size that something else has fixed: as near as shapes come."""


class PricedShape(Record):
    """A shape, and what it takes to reach the loss: tokens, FLOPs as the fit counts them, dollars of training alone."""

    shape: ModelShape
    params: float
    """As the fit counts them."""
    tokens: float
    flops: float
    mfu: float
    usd: float


class ShapesByDollars(Record):
    """Both shapes at one loss. ``cheapest`` is ``compute_optimal`` where nothing else is worth saying."""

    compute_optimal: PricedShape
    cheapest: PricedShape
    saved_share: Interval
    """Of the dollars; between what the width is worth on A100 and on H100, open where both were not measured."""
    loss_open: float
    """Share of the loss by which the two may differ, for all that is known of width against depth."""
    flops_open: float
    """Share of the compute that makes up for it."""
    settled: bool
    """The cheapest is cheaper whatever of that is true."""
    taken: bool
    """The cheapest is what is recommended."""
    why_same: str | None
    """Where it is one shape."""


def shapes_by_dollars(
    surface: LossSurface,
    shape: ModelShape,
    tokens: float,
    accounting: Accounting,
    wanted: ClusterWanted,
    cluster: ClusterEstimate,
    *,
    sizes: tuple[float, float] | None,
    most: float = math.inf,
    fresh_share: float = 1.0,
    take: bool = False,
) -> ShapesByDollars:
    """``shape`` on ``tokens``, and the cheapest of the shapes around it that reach the same loss on ``cluster``.

    sizes: total parameters to look among, up to ``most``; None keeps to that of ``shape``. fresh_share: what a
    token seen is worth in fresh ones. take: the cheapest even where that is not settled. Shapes that the layout's
    tensor degree does not divide are left out.
    """
    A, B, E, alpha, beta = (float(constant[0]) for constant in surface.constants)
    params = accounting.params_of(shape)
    size_term, data_term = A * params**-alpha, B * (tokens * fresh_share) ** -beta
    loss = E + size_term + data_term
    moves = wanted.mfu is None and accelerator(cluster.accelerator).kind != "cpu"

    def priced(one: ModelShape) -> tuple[float, float, float] | None:
        """Tokens, FLOPs and the FLOPs that a model of full width would do in the same time."""
        left = loss - E - A * accounting.params_of(one) ** -alpha
        if left <= 0:
            return None
        needed = (B / left) ** (1 / beta) / fresh_share
        flops = accounting.flops_per_token_of(one) * needed
        return needed, flops, flops / width_share(one.width)

    def record(one: ModelShape) -> PricedShape:
        found = priced(one)
        assert found is not None
        reached = wanted.model_copy(update={"gpus": cluster.gpus}).estimate(found[1], one.width)
        return PricedShape(
            shape=one,
            params=accounting.params_of(one),
            tokens=found[0],
            flops=found[1],
            mfu=reached.mfu.estimate,
            usd=reached.usd.estimate,
        )

    best, ours = shape, priced(shape)
    assert ours is not None
    cost = ours[2] * (1 - _WORTH_SAYING)
    for one in _candidates(shape, sizes, most, cluster) if moves else ():
        found = priced(one)
        if found is not None and found[2] < cost:
            best, cost = one, found[2]
    optimal = record(shape)
    cheapest = optimal if best == shape else record(best)
    gain = width_gain(shape.width, best.width)
    fewer = cheapest.flops / optimal.flops
    saved = Interval(
        estimate=1 - fewer / gain.estimate,
        low=None if gain.low is None else 1 - fewer / gain.low,
        high=None if gain.high is None else 1 - fewer / gain.high,
    )
    apart = abs(math.log(_aspect(best) / _aspect(shape)))
    loss_open = _KAPLAN_LOSS * apart / math.log(_KAPLAN_RANGE)
    # dL*/dC = -gamma (L - E)/C with gamma = alpha beta/(alpha + beta).
    flops_open = loss_open * loss / (alpha * beta / (alpha + beta) * (size_term + data_term))
    settled = best != shape and saved.low is not None and saved.low > flops_open
    return ShapesByDollars(
        compute_optimal=optimal,
        cheapest=cheapest,
        saved_share=saved,
        loss_open=loss_open,
        flops_open=flops_open,
        settled=settled,
        taken=best != shape and (take or settled),
        why_same=_why_same(shape, wanted, moves) if best == shape else None,
    )


def _candidates(
    shape: ModelShape, sizes: tuple[float, float] | None, most: float, cluster: ClusterEstimate
) -> Iterator[ModelShape]:
    own = architectures.total_params(shape)
    # A size that something holds below the optimum would gain by growing, whatever its shape.
    least, largest = sizes or (own * (1 - _SAME_SIZE), own)
    tensor = 1 if cluster.plan is None else cluster.plan.tensor
    for one in architectures.shapes_around(shape, least, min(largest, most), RATIO):
        if one.heads % tensor == 0 and one.ffn_width % tensor == 0:
            yield one


def _aspect(shape: ModelShape) -> float:
    return shape.width / shape.layers


def _why_same(shape: ModelShape, wanted: ClusterWanted, moves: bool) -> str:
    if wanted.mfu is not None:
        return "the MFU that was given is taken for every shape's"
    if not moves:
        return "a processor is full at small products, so that no shape reaches more of its peak"
    if width_share(shape.width) == 1:
        return f"wider ones than {shape.width:,} are not known to reach more of the peak"
    if shape.width < narrowest_measured():
        return "no shape of about this size is cheaper"
    return f"no shape within a factor {RATIO:g} of its width over depth saves {_WORTH_SAYING:.1%} of the dollars"
