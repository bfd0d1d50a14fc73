"""Which runs would settle what a table can't say, and what they cost.

Every set stays as cheap as it can: sizes and token counts are extended downwards, and no run takes more than a quarter
of the largest budget, but where only more compute can tell.

Arrays are (n,), the runs of the table.
"""

from __future__ import annotations

import numpy as np

from scaling.fit import Cure, ProposedRun
from scaling.laws.law import FloatArray
from scaling.quantity import format_count, format_flops

__all__ = ["again", "beyond", "cure_of", "described", "separating"]

_SHARE_OF_LARGEST = 0.25
_RUNS_A_TERM = 4


def cure_of(params: FloatArray, tokens: FloatArray, flops_per_param_token: float) -> Cure:
    """The runs of ``params`` and ``tokens`` (each (m,)) as a cure, rounded to three digits."""
    sizes, lengths = (np.array([float(f"{x:.3g}") for x in np.maximum(values, 1.0)]) for values in (params, tokens))
    runs = tuple(ProposedRun(params=size, tokens=length) for size, length in zip(sizes, lengths, strict=True))
    return Cure(runs=runs, flops=float((flops_per_param_token * sizes * lengths).sum()))


def described(cure: Cure) -> str:
    """ "6 runs of 1M to 4M parameters on 20M to 320M tokens (1.5e16 FLOPs)"."""
    count = len(cure.runs)
    sizes = _span([run.params for run in cure.runs])
    lengths = _span([run.tokens for run in cure.runs])
    noun = "run" if count == 1 else "runs"
    return f"{count} {noun} of {sizes} parameters on {lengths} tokens ({format_flops(cure.flops)})"


def _span(values: list[float]) -> str:
    low, high = format_count(min(values)), format_count(max(values))
    return low if low == high else f"{low} to {high}"


def separating(params: FloatArray, tokens: FloatArray, flops_per_param_token: float, *, size: bool, data: bool) -> Cure:
    """Runs that show what size and what data do, each with the other out of the way.

    For ``size``, sizes down to a quarter of the smallest with the most tokens; for ``data``, token counts down to a
    quarter of the fewest, or to two a parameter, with the largest model.
    """
    product = float((params * tokens).max()) * _SHARE_OF_LARGEST
    most_params, most_tokens = float(params.max()), float(tokens.max())
    chosen: list[tuple[float, float]] = []
    if size:
        low = min(float(params.min()) / 4, most_tokens / 1000)
        small = [float(one) for one in np.geomspace(low, most_params, _RUNS_A_TERM + 1)[:-1]]
        chosen += [(one, min(most_tokens, product / one)) for one in small]
    if data:
        low = min(float(tokens.min()) / 4, 2 * most_params)
        short = [float(one) for one in np.geomspace(low, most_tokens, _RUNS_A_TERM + 1)[:-1]]
        chosen += [(min(most_params, product / one), one) for one in short]
    sizes, lengths = np.array(chosen).T
    return cure_of(sizes, lengths, flops_per_param_token)


def beyond(best_params: float, best_tokens: float, flops_per_param_token: float) -> Cure:
    """Three runs around the optimum of more compute than any so far: nothing less shows where the loss levels off."""
    spread = np.array([0.5, 1.0, 2.0])
    return cure_of(best_params * spread, best_tokens / spread, flops_per_param_token)


def again(params: FloatArray, tokens: FloatArray, flops_per_param_token: float) -> Cure:
    """The same runs once more, with another seed."""
    return cure_of(params, tokens, flops_per_param_token)
