"""What a table cannot say: why its exponents are not identified, and the runs that would identify them."""

from __future__ import annotations

import numpy as np

from scaling.compute import flops_6nd
from scaling.laws.law import FloatArray
from scaling.table import budget_levels

__all__ = ["parametric_refusal"]

_FEWEST_POINTS = 6
_FEWEST_LEVELS = 3
_SMALLEST_RANGE = 3.0
_ONE_HORIZON = 1.25
_LEVEL_TOLERANCE = 0.02


def _cost(params: FloatArray, tokens: FloatArray) -> str:
    return f"{float(flops_6nd(params, tokens).sum()):.2g} FLOPs"


def _one_horizon(params: FloatArray, tokens: FloatArray) -> str | None:
    """Runs on a single line in (ln N, ln D) say how loss falls along it, not what is due to size and what to tokens."""
    ratio = float(np.median(tokens / params))
    smallest = np.sort(np.unique(params))[:3]
    cure_params = np.concatenate((smallest, smallest))
    cure_tokens = np.concatenate((smallest * ratio / 4, smallest * ratio * 4))
    cure = (
        f"Six runs at {ratio / 4:.3g} and {ratio * 4:.3g} tokens a parameter, sizes {smallest[0]:.3g} to "
        f"{smallest[-1]:.3g} ({_cost(cure_params, cure_tokens)}), would settle it"
    )
    horizons = tokens / params
    if horizons.max() / horizons.min() <= _ONE_HORIZON:
        return f"alpha and beta can't be told apart: every run has about {ratio:.3g} tokens a parameter. {cure}"
    points_N2 = np.column_stack((np.log(params), np.log(tokens)))
    points_N2 = points_N2 - points_N2.mean(axis=0)
    across_N = points_N2 @ np.linalg.svd(points_N2, full_matrices=False)[2][1]
    if float(np.ptp(across_N)) * np.sqrt(2) <= np.log(_ONE_HORIZON):
        return f"alpha and beta can't be told apart: tokens are a fixed power of parameters in these runs. {cure}"
    return None


def parametric_refusal(params: FloatArray, tokens: FloatArray) -> str | None:
    """The reason and the cure in one line, or None if five parameters can be sought in these runs; arrays are (n,)."""
    points = len(params)
    if points < _FEWEST_POINTS:
        return (
            f"{points} usable runs can't carry five parameters: give at least {_FEWEST_POINTS}, better 12 or more over "
            "four sizes and three budgets"
        )
    for name, one, values in (("sizes", "parameters", params), ("token counts", "tokens", tokens)):
        levels = int(budget_levels(values, _LEVEL_TOLERANCE).max()) + 1
        if levels < _FEWEST_LEVELS:
            return (
                f"the runs have {levels} distinct {name}; an exponent and the irreducible loss need at least "
                f"{_FEWEST_LEVELS}: add runs with {values.max() * 3:.3g} or {values.min() / 3:.3g} {one}"
            )
        factor = float(values.max() / values.min())
        if factor < _SMALLEST_RANGE:
            return (
                f"{name} span only a factor {factor:.2g}, too little to see an exponent: add runs so that they span "
                f"{_SMALLEST_RANGE:g} or more, for example at {values.min() * 10:.3g} {one}"
            )
    return _one_horizon(params, tokens)
