"""Which points share a trunk, and what each adds to the cost given the others."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from scaling.design.design import DesignPoint
from scaling.laws.law import IntArray

__all__ = ["priced", "trunk_numbers"]


def trunk_numbers(points: Sequence[DesignPoint]) -> IntArray:
    """A number for each point, (n,): branches of one trunk have the same, a run that stands alone one of its own."""
    numbers: dict[object, int] = {}
    keys = [(p.shape, p.replicate) if p.branched else place for place, p in enumerate(points)]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys])


def priced(
    points: Sequence[DesignPoint], cooldown: float, trained: Sequence[DesignPoint] = ()
) -> tuple[DesignPoint, ...]:
    """The points with what each adds: the longest of a trunk all of it, each other branch its ``cooldown``, a share of
    its tokens. A branch without another to share with is a run that stands alone.

    ``trained`` runs are there already: what carries one of their trunks further pays from where that trunk ends.
    """
    together = [*trained, *points]
    trunk_n, done = trunk_numbers(together), len(trained)
    size = Counter(trunk_n.tolist())
    longest: dict[int, int] = {}
    ends: dict[int, float] = defaultdict(float)
    for place, (trunk, point) in enumerate(zip(trunk_n.tolist(), together, strict=True)):
        if trunk not in longest or point.tokens > together[longest[trunk]].tokens:
            longest[trunk] = place
        if place < done:
            ends[trunk] = max(ends[trunk], (1 - cooldown) * point.flops)
    return tuple(
        point.model_copy(
            update={
                "cost_flops": point.flops - ends[trunk] if longest[trunk] == place else cooldown * point.flops,
                "branched": size[trunk] > 1,
            }
        )
        for place, (trunk, point) in enumerate(zip(trunk_n.tolist()[done:], points, strict=True), done)
    )
