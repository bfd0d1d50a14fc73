"""What it costs that the branches of a trunk share one learning rate, which suits the middle of their lengths.

At a fixed size the best rate moves with the tokens as D^±s: it rises by Step Law (2503.04715, s = 0.307) and falls by
Bjorck et al. (2409.19913). In a valley of curvature q, a share of loss (``scaling.mistuning``), a branch of D tokens
whose trunk's rate is best at D₀ has lost

    L/L* − 1 = q·(s·ln(D/D₀))²

whichever way the rate moves.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from scaling.design.design import DesignPoint
from scaling.design.trunks import branch_tokens
from scaling.laws.step_law import STEP_LAW
from scaling.mistuning import CURVATURE

__all__ = ["shared_rate_costs"]


def shared_rate_costs(points: Sequence[DesignPoint], curvature: float = CURVATURE) -> list[float]:
    """Share of the loss that each point loses since it shares its trunk's rate, (n,); 0 for a run that stands alone.

    ``curvature`` is that of Step Law's valleys, as long as none was measured.
    """
    assert STEP_LAW.published is not None
    costs, exponent = [0.0] * len(points), STEP_LAW.published[2]
    for at, lengths in branch_tokens(points).items():
        middle = statistics.fmean(map(math.log, lengths))
        costs[at] = curvature * (exponent * (math.log(points[at].tokens) - middle)) ** 2
    return costs
