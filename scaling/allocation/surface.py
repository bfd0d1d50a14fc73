"""The loss over sizes and tokens as a fit knows it: its estimate and every draw, carried through together.

Each answer is a function of the law's constants. Evaluated on all rows at once it has an estimate (row 0) and draws
(the rest), from which its interval follows; a draw under which the answer does not exist counts as infinite, and an
interval that reaches there is open.

Shapes: K rows (the estimate, then the draws), P = 5 constants A, B, E, α, β.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from scaling.errors import UserError
from scaling.fit import Fit
from scaling.fits.irreducible import levels_off_too_early
from scaling.laws.chinchilla import CHINCHILLA
from scaling.laws.law import FloatArray
from scaling.record import Interval

__all__ = ["LossSurface", "bisect", "check_positive", "interval_of_rows"]

_HALVINGS = 80
"""Enough to bring any bracket in a logarithm down to rounding."""


@dataclass(frozen=True)
class LossSurface:
    """Chinchilla's law with its uncertainty; C = ``flops_per_param_token`` · N · D.

    Arguments and results are (K,) or scalars: one value a row.
    """

    theta_KP: FloatArray
    level: float
    flops_per_param_token: float = 6.0

    @classmethod
    def of(cls, fit: Fit, flops_per_param_token: float = 6.0) -> LossSurface:
        """The surface of ``fit``. Raises :class:`UserError` with the reason where there is a ``refusal``."""
        reason = cls.refusal(fit)
        if reason is not None:
            raise UserError(reason)
        parametric = fit.parametric
        estimate_P = [parametric.parameters[name].estimate for name in CHINCHILLA.NAMES]
        draws_KP = np.array(parametric.draws, dtype=np.float64).reshape(-1, len(estimate_P))
        return cls(np.vstack((estimate_P, draws_KP)), fit.level, flops_per_param_token)

    @staticmethod
    def refusal(fit: Fit) -> str | None:
        """Why the law of ``fit`` can't be used away from its runs, and the cure; None if it can."""
        parametric = fit.parametric
        if parametric.status != "ok":
            return f"this needs a law of the loss, and the fit has none: {parametric.reason}"
        if parametric.law != CHINCHILLA.name:
            return (
                f"the fit's law is {parametric.law}, and this is worked out for chinchilla: fit the same runs with "
                "--law chinchilla"
            )
        if levels_off_too_early(parametric, fit.drift):
            return (
                f"the law levels off at E = {parametric.parameters['E'].estimate:.2f} nats, above what larger models "
                "reach on text, so what it says away from its runs can't be used: train runs of more compute"
            )
        return None

    @property
    def constants(self) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
        """A, B, E, α and β, (K,) each."""
        A, B, E, alpha, beta = self.theta_KP.T
        return A, B, E, alpha, beta

    def size_term(self, params: ArrayLike) -> FloatArray:
        """A·N^−α (K,)."""
        A, _, _, alpha, _ = self.constants
        return np.asarray(A * np.asarray(params, np.float64) ** -alpha)

    def data_term(self, tokens: ArrayLike) -> FloatArray:
        """B·D^−β (K,)."""
        _, B, _, _, beta = self.constants
        return np.asarray(B * np.asarray(tokens, np.float64) ** -beta)

    def loss(self, params: ArrayLike, tokens: ArrayLike) -> FloatArray:
        """L(N, D), row by row (K,)."""
        return np.asarray(self.theta_KP[:, 2] + self.size_term(params) + self.data_term(tokens))

    def flops(self, params: ArrayLike, tokens: ArrayLike) -> FloatArray:
        """Training FLOPs of N and D."""
        product = np.asarray(params, np.float64) * np.asarray(tokens, np.float64)
        return np.asarray(self.flops_per_param_token * product)

    def optimum(self, flops: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """The compute-optimal N* and D*, (K,) each."""
        A, B, _, alpha, beta = self.constants
        ln_product = np.log(np.asarray(flops, np.float64) / self.flops_per_param_token)
        ln_params = (np.log(alpha * A) - np.log(beta * B) + beta * ln_product) / (alpha + beta)
        return np.exp(ln_params), np.exp(ln_product - ln_params)

    def optimal_loss(self, flops: ArrayLike) -> FloatArray:
        """L*(C): the loss of the compute-optimal run."""
        return self.loss(*self.optimum(flops))

    def tokens_for(self, loss: ArrayLike, params: ArrayLike) -> FloatArray:
        """D at which N reaches ``loss``; infinite where no amount of data does."""
        _, B, E, _, beta = self.constants
        left = np.asarray(loss, np.float64) - E - self.size_term(params)
        return _power(B, left, beta)

    def cheapest(self, loss: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """N and D that reach ``loss`` with the least compute; infinite where E lies above it.

        At the optimum αA·N^−α = βB·D^−β, so that the reducible loss splits as β : α between size and data.
        """
        A, B, E, alpha, beta = self.constants
        reducible = np.asarray(loss, np.float64) - E
        return _power(A, reducible * beta / (alpha + beta), alpha), _power(B, reducible * alpha / (alpha + beta), beta)

    def marginal_loss(self, flops: ArrayLike) -> FloatArray:
        """−dL*/dC, nats that one more FLOP of the compute-optimal run takes off: γ(L* − E)/C with γ = αβ/(α+β)."""
        _, _, E, alpha, beta = self.constants
        reducible = self.optimal_loss(flops) - E
        return np.asarray(alpha * beta / (alpha + beta) * reducible / np.asarray(flops, np.float64))

    def interval(self, values: ArrayLike) -> Interval:
        """The estimate (row 0) between the draws' quantiles at ``level``; a bound is None where it is infinite."""
        values_K = np.broadcast_to(np.asarray(values, dtype=np.float64), (len(self.theta_KP),))
        return interval_of_rows(values_K, self.level)


def interval_of_rows(values_K: FloatArray, level: float) -> Interval:
    """The estimate (row 0) between the quantiles of the draws (the rest); a bound is None where it is infinite."""
    estimate, draws_K = float(values_K[0]), values_K[1:]
    if not len(draws_K):
        return Interval(estimate=estimate, low=None, high=None)
    # Order statistics, for between two draws of which one is infinite there is nothing to interpolate.
    bounds = np.quantile(draws_K, [(1 - level) / 2, (1 + level) / 2], method="nearest")
    low, high = min(float(bounds[0]), estimate), max(float(bounds[1]), estimate)
    return Interval(
        estimate=estimate, low=low if math.isfinite(low) else None, high=high if math.isfinite(high) else None
    )


def _power(scale: FloatArray, term: FloatArray, exponent: FloatArray) -> FloatArray:
    """x with scale · x^−exponent = term; infinite where the term is not positive."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(term > 0, np.exp((np.log(scale) - np.log(term)) / exponent), np.inf)


def bisect(increasing: Callable[[FloatArray], FloatArray], low: FloatArray, high: FloatArray) -> FloatArray:
    """The root of each row's increasing function, bracketed by ``low`` and ``high``: (K,)."""
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        below = increasing(middle) < 0
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.asarray(0.5 * (low + high))


def check_positive(name: str, value: float, example: str) -> None:
    """Raises :class:`UserError` unless ``value`` is finite and above zero."""
    if not (math.isfinite(value) and value > 0):
        raise UserError(f"{name} is {value:g}: it must be a finite number above 0, for example {example}")
