"""What a token costs along a family of shapes, and how its sizes count under a fit's conventions.

A fit knows N under one convention and C under another; a shape has exact counts of both. At the large end exact FLOPs
are not 6 N: over a context of 8,192 a Llama of 70B parameters costs 12% more, so that a budget buys fewer tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from scaling import architectures
from scaling.errors import UserError
from scaling.fit import Fit
from scaling.laws.law import FloatArray
from scaling.observation import ParamsConvention
from scaling.shape import ModelShape, ParameterCounts

__all__ = ["Accounting", "counted"]

_SIZES = 49
_REACH = 1e4
"""The family is sampled this factor to both sides; beyond it FLOPs a token grow in proportion to N."""


def counted(counts: ParameterCounts, convention: ParamsConvention) -> int:
    """N under ``convention``."""
    by_name = {"total": counts.total, "nonembedding": counts.nonembedding, "with-head": counts.with_head}
    return by_name[convention]


class Accounting:
    """The family ``shape_of(total parameters)`` around one size, counted as ``fit`` counts.

    Raises :class:`UserError` where the family has no shape of that size.
    """

    def __init__(self, fit: Fit, shape_of: Callable[[float], ModelShape], around: float) -> None:
        self._convention, self._exact = fit.params_convention, fit.flops_convention == "exact"
        rows: dict[int, tuple[float, float]] = {}
        for total in np.geomspace(max(around / _REACH, 1e3), around * _REACH, _SIZES):
            try:
                shape = shape_of(float(total))
            except ValueError:
                continue  # below the smallest shape of the family
            counts = architectures.get(shape.architecture).count_parameters(shape)
            rows[counted(counts, self._convention)] = (float(counts.total), self.flops_per_token_of(shape))
        if not rows:
            raise UserError(
                f"no shape of this family comes near {around:.3g} parameters: give more compute, or use a smaller "
                "vocabulary"
            )
        sizes = sorted(rows)
        self._ln_size: FloatArray = np.log(np.array(sizes, dtype=np.float64))
        self._ln_total: FloatArray = np.log([rows[size][0] for size in sizes])
        self._ln_cost: FloatArray = np.log([rows[size][1] for size in sizes])

    def flops_per_token_of(self, shape: ModelShape) -> float:
        """Training FLOPs a token of ``shape``: exact, or 6 N where the fit counts so."""
        model = architectures.get(shape.architecture)
        if self._exact:
            return float(model.training_flops_per_token(shape))
        return 6.0 * counted(model.count_parameters(shape), self._convention)

    def params_of(self, shape: ModelShape) -> int:
        """N of ``shape`` as the fit counts it."""
        return counted(architectures.get(shape.architecture).count_parameters(shape), self._convention)

    def flops_per_token(self, params: float) -> float:
        """Training FLOPs a token at N = ``params`` under the fit's convention."""
        return self._along(self._ln_cost, params) if self._exact else 6.0 * params

    def total(self, params: float) -> float:
        """Total parameters of the model that the fit counts as ``params``."""
        return params if self._convention == "total" else self._along(self._ln_total, params)

    def _along(self, ln_values: FloatArray, params: float) -> float:
        """Interpolated in logs; in proportion to N beyond the sampled sizes."""
        x = math.log(params)
        inside = min(max(x, float(self._ln_size[0])), float(self._ln_size[-1]))
        return math.exp(float(np.interp(inside, self._ln_size, ln_values)) + x - inside)
