"""All the ways to one loss: the curve of (N, D) pairs, what each costs beyond the cheapest, and for whom it is best.

A model on the curve is the cheapest of its loss for whoever serves T = 3·D·(αA·N^−α/(βB·D^−β) − 1) tokens with it (see
``inference_aware``): the compute optimum for none, smaller ones for more and more.
"""

from __future__ import annotations

import math

import numpy as np

from scaling.allocation.surface import LossSurface, check_positive
from scaling.errors import UserError
from scaling.fit import Fit
from scaling.laws.law import FloatArray
from scaling.quantity import format_count, format_flops, format_percent
from scaling.record import Interval, Record

__all__ = ["IsoLossCurve", "IsoLossPoint", "iso_loss"]

_LARGER, _SHARE_OF_REACH = 4.0, 0.85
"""The curve runs from four times the optimal N down to 85% of the way, in ln N, to where no data suffice."""


class IsoLossPoint(Record):
    """One model of the loss; bounds are None where a draw can't reach the loss with so few parameters."""

    params: float
    tokens: Interval
    flops: Interval
    extra_share: Interval
    """Compute over the cheapest of the same loss, less 1."""
    serve_tokens: float | None
    """Tokens served for which this size is the cheapest over its life; None above the compute optimum."""


class IsoLossCurve(Record):
    """Models of equal loss, the smallest first."""

    loss: float
    level: float
    points: tuple[IsoLossPoint, ...]

    def summary(self) -> str:
        """A table, one model a row."""
        rows = [
            f"loss {self.loss:.4f}: {'parameters':>10} {'tokens':>8}   FLOPs        more compute, best when serving"
        ]
        for point in self.points:
            best_for = "-" if point.serve_tokens is None else f"{format_count(point.serve_tokens)} tokens"
            rows.append(
                f"{'':13}{format_count(point.params):>11} {format_count(point.tokens.estimate):>8}   "
                f"{format_flops(point.flops.estimate)}  {format_percent(point.extra_share)}, {best_for}"
            )
        return "\n".join(rows)


def iso_loss(
    fit: Fit | LossSurface, *, flops: float | None = None, loss: float | None = None, points: int = 9
) -> IsoLossCurve:
    """``points`` models, spaced evenly in ln N, that reach ``loss``, or that of the compute-optimal run of ``flops``.

    The sizes are the estimate's; each draw has its own tokens for them and, given ``flops``, its own loss to reach.
    Raises :class:`UserError` where the fit has no law to use, or its law does not go down to the loss.
    """
    surface = fit if isinstance(fit, LossSurface) else LossSurface.of(fit)
    if (flops is None) == (loss is None):
        raise UserError("an iso-loss curve is of a loss, or of the compute-optimal run of flops: give exactly one")
    if points < 2:
        raise UserError(f"points is {points}: a curve has at least 2")
    if flops is not None:
        check_positive("flops", flops, "1e21")
        aim = surface.optimal_loss(flops)
    else:
        assert loss is not None
        check_positive("loss", loss, "2.1")
        aim = np.full(len(surface.theta_KP), loss)
    A, _, E, alpha, _ = (float(constant[0]) for constant in surface.constants)
    reducible = float(aim[0]) - E
    if reducible <= 0:
        raise UserError(f"loss is {aim[0]:g}: this law goes no lower than E = {E:.4g} nats")
    best_params, best_tokens = surface.cheapest(aim)
    smallest = math.log((A / reducible) ** (1 / alpha))
    best = math.log(best_params[0])
    sizes = np.exp(np.linspace(best - _SHARE_OF_REACH * (best - smallest), best + math.log(_LARGER), points))
    cheapest = surface.flops(best_params, best_tokens)
    return IsoLossCurve(
        loss=float(aim[0]),
        level=surface.level,
        points=tuple(_point(surface, aim, float(size), cheapest) for size in sizes),
    )


def _point(surface: LossSurface, aim: FloatArray, params: float, cheapest: FloatArray) -> IsoLossPoint:
    _, _, _, alpha, beta = surface.constants
    tokens = surface.tokens_for(aim, params)
    with np.errstate(invalid="ignore"):  # infinite tokens against an infinite cheapest run
        flops = surface.flops(params, tokens)
        extra = np.nan_to_num(flops / cheapest - 1, nan=np.inf, posinf=np.inf)
    imbalance = float(alpha[0] * surface.size_term(params)[0] / (beta[0] * surface.data_term(tokens)[0]))
    return IsoLossPoint(
        params=params,
        tokens=surface.interval(tokens),
        flops=surface.interval(flops),
        extra_share=surface.interval(extra),
        serve_tokens=3 * float(tokens[0]) * (imbalance - 1) if imbalance > 1 else None,
    )
