"""What a table cannot say: why its exponents are not identified, and the runs that would identify them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scaling.fit import Cure
from scaling.fits.cures import cure_of, described
from scaling.laws.law import FloatArray
from scaling.table import budget_levels

__all__ = ["Refusal", "parametric_refusal"]

_FEWEST_LEVELS = 3
_SMALLEST_RANGE = 3.0
_ONE_HORIZON = 1.25
_LEVEL_TOLERANCE = 0.02
_MOST_SHORTAGES = 6

Runs = tuple[FloatArray, FloatArray]
"""Parameters and tokens of runs, (m,) each."""


@dataclass(frozen=True)
class Refusal:
    """Why the law can't be fitted, and runs with which it can."""

    reason: str
    """One line, the cure and its cost at its end."""
    cure: Cure


def parametric_refusal(
    params: FloatArray, tokens: FloatArray, flops_per_param_token: float = 6.0, *, constants: int = 5
) -> Refusal | None:
    """Why a law of ``constants`` can't be sought in these runs and what would cure it, or None if it can; arrays are
    (n,).

    With the runs of the cure the table is refused no more: one shortage often hides another.
    """
    first = _shortage(params, tokens, constants)
    if first is None:
        return None
    reason, (sizes, lengths) = first
    for _ in range(_MOST_SHORTAGES):
        more = _shortage(np.append(params, sizes), np.append(tokens, lengths), constants)
        if more is None:
            break
        sizes, lengths = np.append(sizes, more[1][0]), np.append(lengths, more[1][1])
    cure = cure_of(sizes, lengths, flops_per_param_token)
    return Refusal(f"{reason}: {described(cure)} would settle it", cure)


def _shortage(params: FloatArray, tokens: FloatArray, constants: int) -> tuple[str, Runs] | None:
    """The first thing these runs lack, in words, and the runs that would bring it."""
    if len(params) <= constants:
        reason = (
            f"{len(params)} usable runs can't carry the {constants} constants of the law; {constants + 1} is the "
            "least, 12 are better"
        )
        return reason, _grid(params, tokens)
    for name, values, others in (("sizes", params, tokens), ("token counts", tokens, params)):
        levels = int(budget_levels(values, _LEVEL_TOLERANCE).max()) + 1
        low, factor = float(values.min()), float(values.max() / values.min())
        if levels < _FEWEST_LEVELS:
            new = low / 3.0 ** np.arange(1, _FEWEST_LEVELS - levels + 1)
            reason = (
                f"the runs have {levels} distinct {name}; an exponent and the irreducible loss need at least "
                f"{_FEWEST_LEVELS}"
            )
        elif factor < _SMALLEST_RANGE:
            new = np.array([low / 10])
            reason = (
                f"{name} span only a factor {factor:.2g}, too little to see an exponent; it takes {_SMALLEST_RANGE:g} "
                "or more"
            )
        else:
            continue
        beside = np.geomspace(others.min(), others.max(), 3)
        crossed = np.repeat(new, len(beside)), np.tile(beside, len(new))
        return reason, (crossed if name == "sizes" else (crossed[1], crossed[0]))
    return _one_horizon(params, tokens)


def _grid(params: FloatArray, tokens: FloatArray) -> Runs:
    """Four sizes by three horizons, no larger than the runs there are."""
    ratio = float(np.median(tokens / params))
    largest = float(params.max())
    sizes = np.geomspace(min(float(params.min()), largest / 8), largest, 4)
    return np.tile(sizes, 3), np.concatenate([sizes * ratio * factor for factor in (0.25, 1.0, 4.0)])


def _one_horizon(params: FloatArray, tokens: FloatArray) -> tuple[str, Runs] | None:
    """Runs on a single line in (ln N, ln D) say how loss falls along it, not what is due to size and what to tokens."""
    horizons = tokens / params
    ratio = float(np.median(horizons))
    smallest = np.sort(np.unique(params))[:3]
    cure = np.concatenate((smallest, smallest)), np.concatenate((smallest * ratio / 4, smallest * ratio * 4))
    moves = f"runs at {ratio / 4:.3g} and {ratio * 4:.3g} tokens a parameter tell them apart"
    if horizons.max() / horizons.min() <= _ONE_HORIZON:
        reason = f"alpha and beta can't be told apart: every run has about {ratio:.3g} tokens a parameter; {moves}"
        return reason, cure
    points_N2 = np.column_stack((np.log(params), np.log(tokens)))
    points_N2 = points_N2 - points_N2.mean(axis=0)
    across_N = points_N2 @ np.linalg.svd(points_N2, full_matrices=False)[2][1]
    if float(np.ptp(across_N)) * np.sqrt(2) <= np.log(_ONE_HORIZON):
        reason = f"alpha and beta can't be told apart: tokens are a fixed power of parameters in these runs; {moves}"
        return reason, cure
    return None
