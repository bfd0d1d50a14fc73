"""Which points share a trunk, and what each adds to the cost given the others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from scaling.design.design import DesignPoint
from scaling.laws.law import IntArray

__all__ = ["branch_tokens", "priced", "trunk_numbers", "trunks_of"]


def trunk_numbers(points: Sequence[DesignPoint]) -> IntArray:
    """A number for each point, (n,): branches of one trunk have the same, a run that stands alone one of its own."""
    numbers: dict[object, int] = {}
    keys = [(p.shape, p.replicate) if p.branched else place for place, p in enumerate(points)]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys])


def trunks_of(points: Sequence[DesignPoint]) -> dict[int, list[int]]:
    """Positions of the points by their trunk: that of the longest, which carries it, to those of all its branches,
    itself among them. A point that stands alone is in no trunk."""
    together: dict[int, list[int]] = defaultdict(list)
    for at, trunk in enumerate(trunk_numbers(points).tolist()):
        together[trunk].append(at)
    return {max(ats, key=lambda at: points[at].tokens): ats for ats in together.values() if len(ats) > 1}


def branch_tokens(points: Sequence[DesignPoint]) -> dict[int, list[int]]:
    """Of each position in a trunk, the tokens of all the trunk's branches."""
    return {at: [points[each].tokens for each in ats] for ats in trunks_of(points).values() for at in ats}


def priced(
    points: Sequence[DesignPoint], cooldown: float, trained: Sequence[DesignPoint] = ()
) -> tuple[DesignPoint, ...]:
    """The points with what each adds: the longest of a trunk all of it, each other branch its ``cooldown``, a share of
    its tokens. A branch without another to share with is a run that stands alone.

    ``trained`` runs are there already: what carries one of their trunks further pays from where that trunk ends.
    """
    together, done = [*trained, *points], len(trained)
    carrier_of = {at: carrier for carrier, ats in trunks_of(together).items() for at in ats}
    ends: dict[int, float] = defaultdict(float)
    for at in range(done):
        if at in carrier_of:
            ends[carrier_of[at]] = max(ends[carrier_of[at]], (1 - cooldown) * together[at].flops)
    return tuple(
        point.model_copy(
            update={
                "cost_flops": cooldown * point.flops if carrier_of.get(at, at) != at else point.flops - ends[at],
                "branched": at in carrier_of,
            }
        )
        for at, point in enumerate(points, done)
    )
