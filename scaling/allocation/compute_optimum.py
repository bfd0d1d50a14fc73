"""Where a fit would put a given compute: N and D with intervals, and how flat the ground around them is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from scaling import laws
from scaling.errors import UserError
from scaling.fit import Fit
from scaling.fits.bootstrap import interval_of
from scaling.fits.irreducible import levels_off_too_early
from scaling.prediction import predict
from scaling.record import Interval, Record

__all__ = ["ESTIMATORS", "FLAT_SHARE", "Allocation", "Estimator", "allocate", "flat_region", "preferred_estimator"]

Estimator = Literal["parametric", "isoflop"]
ESTIMATORS: tuple[Estimator, ...] = ("parametric", "isoflop")
FlopsPerToken = Callable[[float], float]

FLAT_SHARE = 0.003
"""Sizes that cost less than this share of the loss are as good as the best: no sweep tells them apart."""


class Allocation(Record):
    """The compute-optimal run at ``flops`` by one estimator; intervals at the fit's level, N as the fit counts it."""

    flops: float
    params: Interval
    tokens: Interval
    tokens_per_param: Interval
    loss: Interval | None
    estimator: Estimator


def six_n(params: float) -> float:
    """Training FLOPs a token by C = 6 N D (Kaplan et al. 2001.08361, section 2.1)."""
    return 6.0 * params


def preferred_estimator(fit: Fit) -> Estimator | None:
    """By which ``allocate`` places compute where none is asked for; None where both were refused."""
    lines = fit.isoflop.status == "ok"
    # A law that mistakes the lines' bends for the frontier's has exponents to match.
    if fit.parametric.status == "ok" and not (lines and levels_off_too_early(fit.parametric, fit.drift)):
        return "parametric"
    return "isoflop" if lines else None


def allocate(
    fit: Fit, flops: float, estimator: Estimator | None = None, *, flops_per_token: FlopsPerToken = six_n
) -> Allocation:
    """Optimal N and D at ``flops``: by the law where there is one that can be extrapolated, else by the iso-FLOP lines.

    ``flops_per_token`` is what a training token costs as a function of N: 6 N, or the exact cost along a family of
    shapes (``scaling.accounting``), not the fitted runs' own ratio, which small models' embeddings and attention lift.
    The iso-FLOP lines give N* as a power of C and D* as what ``flops`` then buys. Raises :class:`UserError` with the
    fit's reasons if the estimator, or both, were refused.
    """
    estimator = estimator or preferred_estimator(fit)
    if estimator != "isoflop" and fit.parametric.status == "ok":
        forecast = predict(fit, flops=flops, flops_per_token=flops_per_token)
        params, loss, by = forecast.params, forecast.loss, "parametric"
    elif estimator != "parametric" and fit.isoflop.status == "ok":
        params, loss, by = _isoflop_params(fit, flops), None, "isoflop"
    else:
        reasons = "; ".join(
            f"{name}: {part.reason}"
            for name, part in (("parametric", fit.parametric), ("iso-FLOP", fit.isoflop))
            if part.status == "refused"
        )
        raise UserError(f"this fit can't say where compute should go. {reasons}")

    def tokens(size: float | None) -> float | None:
        return None if size is None else flops / flops_per_token(size)

    def ratio(size: float | None) -> float | None:
        return None if size is None else flops / flops_per_token(size) / size

    best = params.estimate
    if loss is None and fit.parametric.status == "ok":
        loss = predict(fit, params=best, tokens=tokens(best), flops=flops).loss
    return Allocation(
        flops=flops,
        params=params,
        tokens=Interval(estimate=flops / flops_per_token(best), low=tokens(params.high), high=tokens(params.low)),
        tokens_per_param=Interval(
            estimate=flops / flops_per_token(best) / best, low=ratio(params.high), high=ratio(params.low)
        ),
        loss=loss,
        estimator="parametric" if by == "parametric" else "isoflop",
    )


def _isoflop_params(fit: Fit, flops: float) -> Interval:
    """N* = k C^a with the interval of the draws of (ln k, a)."""
    coefficient, exponent = fit.isoflop.n_coefficient, fit.isoflop.n_exponent
    assert coefficient is not None
    assert exponent is not None
    draws_K2 = np.array(fit.isoflop.draws, dtype=np.float64).reshape(-1, 2)
    sizes_K = np.exp(draws_K2[:, 0] + draws_K2[:, 1] * np.log(flops))
    return interval_of(coefficient.estimate * flops**exponent.estimate, sizes_K, fit.level)


def flat_region(
    fit: Fit, flops: float, share: float = FLAT_SHARE, *, flops_per_token: FlopsPerToken = six_n
) -> tuple[float, float] | None:
    """Smallest and largest N whose loss at ``flops`` is within ``share`` of the best.

    None without a law, or with one that levels off too early to say.
    """
    if fit.parametric.status != "ok" or levels_off_too_early(fit.parametric, fit.drift):
        return None
    law = laws.get_loss_law(fit.parametric.law)
    theta = np.array([fit.parametric.parameters[name].estimate for name in law.NAMES])
    best, _ = law.optimum(theta, flops)
    sizes = float(best) * np.geomspace(1e-4, 1e4, 4001)
    tokens = flops / np.array([flops_per_token(float(size)) for size in sizes])
    losses = law.predict(theta, sizes, tokens)
    inside = sizes[losses <= (1 + share) * losses.min()]
    return float(inside[0]), float(inside[-1])
