"""The runs with which iso-FLOP lines that have no minimum, or too few of them, would have two."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from scaling.fit import Cure
from scaling.fits.cures import cure_of
from scaling.fits.isoflop.line import Line, Status

__all__ = ["completing"]

_SIZES = 5
_STEP = math.log(2.0)
_NEXT_BUDGET = 4.0
"""Factor of compute to a line that has no fellow."""


def completing(lines: Sequence[tuple[Line, Status]], fewest: int, flops_per_param_token: float) -> Cure:
    """Runs that give two lines a minimum, the cheapest lines first.

    A line whose lowest run is its last gets three sizes beyond it, a factor of two apart; one of too few sizes is
    filled up to ``fewest`` + 1, at least five, around its lowest run; one that does not curve upwards is run again,
    wider. Where there is only one line, a second is laid at four times its compute.
    """
    wanting = [(line, status) for line, status in sorted(lines, key=lambda one: one[0].flops) if status != "ok"]
    usable = len(lines) - len(wanting)
    ln_params: list[float] = []
    ln_tokens: list[float] = []
    for line, status in wanting[: max(0, 2 - usable)]:
        new = np.array(_sizes(line, status, max(_SIZES, fewest + 1)))
        ln_params.extend(new)
        ln_tokens.extend(line.tokens_at(new))
    if len(lines) == 1:
        (line, _), count = lines[0], max(_SIZES, fewest + 1)
        middle = line.ln_params[line.lowest] + 0.5 * math.log(_NEXT_BUDGET)
        new = middle + _STEP * (np.arange(count) - (count - 1) / 2)
        ln_params.extend(new)
        ln_tokens.extend(line.tokens_at(new) + math.log(_NEXT_BUDGET))
    return cure_of(np.exp(ln_params), np.exp(ln_tokens), flops_per_param_token)


def _sizes(line: Line, status: Status, count: int) -> list[float]:
    """ln N of the runs that this line lacks."""
    first, last, lowest = (float(line.ln_params[at]) for at in (0, -1, line.lowest))
    if status == "edge":
        outwards = -1.0 if lowest - first < last - lowest else 1.0
        return [(first if outwards < 0 else last) + outwards * _STEP * step for step in (1, 2, 3)]
    if status == "curvature":
        return [first - _STEP, lowest, last + _STEP]
    around = lowest + _STEP * (np.arange(count) - (count - 1) / 2)
    return [float(one) for one in around if np.abs(line.ln_params - one).min() > 0.5 * _STEP]
