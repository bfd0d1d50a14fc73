"""What one more FLOP of sweep is worth in the final run's loss, and when to stop sweeping.

The final run of C FLOPs is trained at the estimated N*. If a draw of the fit is the truth, that costs its regret: the
loss there above the draw's own optimum. The mean over draws r is what not knowing N* is expected to cost. To second
order r = ½·αβ·(L* − E)·Var(ln N*), and the variance falls as 1/runs: a sweep of S FLOPs that grows by one brings r/S
nats, where one more FLOP of the final run brings γ(L* − E)/C, γ = αβ/(α + β). Sweeping pays while

    r/S > γ·(L* − E)/C,    that is up to S* = sqrt(r·S·C/(γ·(L* − E)))

With candidate runs in hand the 1/runs rule gives way to what each of them would tell: the law, linearised, turns a run
into information about its constants and these into Var(ln N*).

Only uncertainty within the law counts here. A law that is wrong beyond its runs costs more, and is told by rungs
between the sweep and the final run, not by more of the same.

Shapes: K draws, P = 5 constants as (ln A, ln B, ln E, α, β), n candidate runs.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

import numpy as np

from scaling.allocation.surface import LossSurface, check_positive
from scaling.errors import UserError
from scaling.fit import Fit
from scaling.laws.chinchilla import CHINCHILLA
from scaling.laws.law import FloatArray
from scaling.quantity import format_count, format_flops
from scaling.record import Interval, Record

__all__ = ["FEWEST_DRAWS", "CandidateWorth", "SweepWorth", "candidate_worth", "regret", "sweep_worth"]

FEWEST_DRAWS = 50


class SweepWorth(Record):
    """Whether to go on sweeping before a final run of ``flops``; nats a token unless said otherwise."""

    flops: float
    sweep_flops: float
    level: float
    regret: float
    """Expected loss above the optimum, for N* is not known: the mean over draws."""
    regret_interval: Interval
    """Over the draws; the estimate is the mean."""
    regret_flops: float
    """Final-run FLOPs that would buy the same loss."""
    sweep_flop_worth: float
    """Final-run FLOPs that one more FLOP of sweep is worth: above 1, sweep on."""
    stop_at_flops: float
    """Sweep compute at which a sweep FLOP is worth one final-run FLOP."""
    sweep_on: bool

    def summary(self) -> str:
        """The verdict and what it rests on."""
        verdict = (
            f"sweep on, up to {format_flops(self.stop_at_flops)} in all"
            if self.sweep_on
            else f"stop sweeping ({format_flops(self.stop_at_flops)} would have been enough)"
        )
        said = (
            f"Not knowing N* costs {self.regret:.2g} nats in expectation, as much as "
            f"{format_flops(self.regret_flops)} of the final run. After {format_flops(self.sweep_flops)} of sweep one "
            "FLOP more of it is worth "
            f"{self.sweep_flop_worth:.3g} of the final run's: {verdict}."
        )
        return textwrap.fill(said, 100, subsequent_indent="  ")


class CandidateWorth(Record):
    """What one candidate run would bring, by itself."""

    params: float
    tokens: float
    flops: float
    regret_after: float
    """Expected regret with this run added, nats a token."""
    flop_worth: float
    """Final-run FLOPs that each of its FLOPs is worth."""
    inside: bool
    """Whether its size and tokens lie among the fitted runs', where the law is known to hold."""

    def summary(self) -> str:
        """One line."""
        return (
            f"{format_count(self.params)} on {format_count(self.tokens)} tokens, {format_flops(self.flops)}: regret "
            f"{self.regret_after:.2g}, each FLOP worth {self.flop_worth:.3g} of the final run's"
            f"{'' if self.inside else '; outside the fitted runs, where the law may not hold'}"
        )


def regret(fit: Fit | LossSurface, flops: float) -> FloatArray:
    """Loss above the optimum of each draw (K,) if the final run is trained at the estimated N* and D*.

    Raises :class:`UserError` where the fit has no law to use, or too few draws to say how uncertain N* is.
    """
    surface = _with_draws(fit)
    check_positive("flops", flops, "1e21")
    params, tokens = (float(value[0]) for value in surface.optimum(flops))
    return np.asarray((surface.loss(params, tokens) - surface.optimal_loss(flops))[1:])


def sweep_worth(fit: Fit | LossSurface, flops: float, sweep_flops: float) -> SweepWorth:
    """What a FLOP more of a sweep like the one so far, which took ``sweep_flops``, is worth to a run of ``flops``.

    Raises :class:`UserError` as ``regret`` does.
    """
    surface = _with_draws(fit)
    check_positive("sweep_flops", sweep_flops, "1e20")
    regret_K = regret(surface, flops)
    expected = float(regret_K.mean())
    marginal = float(surface.marginal_loss(flops)[0])
    low, high = np.quantile(regret_K, [(1 - surface.level) / 2, (1 + surface.level) / 2])
    worth = expected / sweep_flops / marginal
    return SweepWorth(
        flops=flops,
        sweep_flops=sweep_flops,
        level=surface.level,
        regret=expected,
        regret_interval=Interval(estimate=expected, low=min(float(low), expected), high=max(float(high), expected)),
        regret_flops=expected / marginal,
        sweep_flop_worth=worth,
        stop_at_flops=sweep_flops * math.sqrt(worth),
        sweep_on=worth > 1,
    )


def candidate_worth(
    fit: Fit,
    flops: float,
    candidates: Sequence[tuple[float, float]],
    *,
    noise: float | None = None,
) -> tuple[CandidateWorth, ...]:
    """Each candidate run (N, D) by what it would tell of N* at ``flops``, the most worth a FLOP first.

    ``noise`` is the SD of log loss between a run and the law; by default the fit's own. Raises :class:`UserError` as
    ``regret`` does, without candidates, or where the noise is not known.
    """
    surface = _with_draws(fit)
    noise = fit.parametric.residual_sd if noise is None else noise
    if not candidates:
        raise UserError("candidates is empty: give at least one run as (params, tokens)")
    if noise is None or not noise > 0:
        raise UserError(f"noise is {noise}: give the SD of log loss between runs and the law, for example 0.004")
    now = float(regret(surface, flops).mean())
    marginal = float(surface.marginal_loss(flops)[0])
    sizes, horizons = np.array(candidates, dtype=np.float64).T
    free_KP = CHINCHILLA.free_of(surface.theta_KP)
    covariance_PP = np.cov(free_KP[1:], rowvar=False)
    _, gradient_nP = CHINCHILLA.response_and_gradient(free_KP[0], np.log([sizes, horizons]))
    toward_P = covariance_PP @ _ln_size_gradient(surface, flops)
    variance = float(_ln_size_gradient(surface, flops) @ toward_P)
    # One run more, by Sherman and Morrison: Var − (gᵀΣv)²/(σ² + gᵀΣg).
    spread_n = np.einsum("np,pq,nq->n", gradient_nP, covariance_PP, gradient_nP)
    left_n = 1 - (gradient_nP @ toward_P) ** 2 / (noise**2 + spread_n) / variance
    (least, most), (shortest, longest) = fit.fitted_range.params, fit.fitted_range.tokens
    inside_n = (least <= sizes) & (sizes <= most) & (shortest <= horizons) & (horizons <= longest)
    cost_n = surface.flops_per_param_token * sizes * horizons
    worth_n = now * (1 - left_n) / cost_n / marginal
    return tuple(
        CandidateWorth(
            params=float(sizes[i]),
            tokens=float(horizons[i]),
            flops=float(cost_n[i]),
            regret_after=float(now * left_n[i]),
            flop_worth=float(worth_n[i]),
            inside=bool(inside_n[i]),
        )
        for i in np.argsort(-worth_n, kind="stable")
    )


def _ln_size_gradient(surface: LossSurface, flops: float) -> FloatArray:
    """∂ ln N*/∂(ln A, ln B, ln E, α, β) at the estimate (P,).

    ln N* = (ln αA − ln βB + β·ln(C/c))/(α + β).
    """
    _, _, _, alpha, beta = (float(constant[0]) for constant in surface.constants)
    params, _ = surface.optimum(flops)
    ln_product, both = math.log(flops / surface.flops_per_param_token), alpha + beta
    ln_params = math.log(params[0])
    by_alpha = (1 / alpha - ln_params) / both
    by_beta = (-1 / beta + ln_product - ln_params) / both
    return np.array([1 / both, -1 / both, 0.0, by_alpha, by_beta])


def _with_draws(fit: Fit | LossSurface) -> LossSurface:
    surface = fit if isinstance(fit, LossSurface) else LossSurface.of(fit)
    draws = len(surface.theta_KP) - 1
    if draws < FEWEST_DRAWS:
        raise UserError(
            f"the fit has {draws} bootstrap draws, and how uncertain N* is takes {FEWEST_DRAWS} or more: fit again "
            "with --bootstrap 1000"
        )
    return surface
