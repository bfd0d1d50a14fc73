"""What repeated tokens and parameters beyond the data are worth: Muennighoff et al. (2305.16264).

With U unique tokens of D trained on, R_D = D/U − 1 repetitions count as

    D' = U + U·R_D*·(1 − exp(−R_D/R_D*))

unique ones; parameters beyond U_N, the size that U unique tokens would call for, decay likewise with R_N = N/U_N − 1.
Both equal their argument up to the threshold, with slope 1 across it, and level off at U·(1 + R_D*) and U_N·(1 + R_N*).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from scaling.laws.law import FloatArray

__all__ = ["effective_params", "effective_tokens", "optimal_params_for", "worth_of_a_repeat"]


def effective_tokens(tokens: ArrayLike, unique: ArrayLike, r_d: ArrayLike) -> FloatArray:
    """D': the unique tokens that ``tokens`` seen out of ``unique`` are worth; arguments broadcast.

    ``r_d`` is R_D*, the repetitions after which a further one is worth 1/e of a fresh token; infinite means that
    repeats cost nothing. Below ``unique`` tokens nothing is repeated and D' = D.
    """
    return _saturating(tokens, unique, r_d)


def effective_params(params: ArrayLike, unique_optimal_params: ArrayLike, r_n: ArrayLike) -> FloatArray:
    """N': what ``params`` are worth where the unique tokens call for ``unique_optimal_params``; arguments broadcast."""
    return _saturating(params, unique_optimal_params, r_n)


def worth_of_a_repeat(tokens: ArrayLike, unique: ArrayLike, r_d: ArrayLike) -> FloatArray:
    """dD'/dD = exp(−R_D/R_D*): what the next token is worth, in fresh ones, after ``tokens`` out of ``unique``."""
    repeats = np.maximum(np.asarray(tokens, np.float64) / np.asarray(unique, np.float64) - 1.0, 0.0)
    return np.asarray(np.exp(-repeats / np.asarray(r_d, np.float64)))


def optimal_params_for(theta: ArrayLike, tokens: ArrayLike) -> FloatArray:
    """U_N: the N at which ``tokens`` (shape S) are compute-optimal under Chinchilla's law, theta (..., 5): (..., *S).

    At the optimum of C = c·N·D the two terms obey αA·N^−α = βB·D^−β, whatever c.
    """
    theta_P, tokens_S = np.asarray(theta, np.float64), np.asarray(tokens, np.float64)
    trailing = theta_P.shape[:-1] + (1,) * tokens_S.ndim
    A, B, _, alpha, beta = (theta_P[..., i].reshape(trailing) for i in range(5))
    return np.asarray(np.exp((np.log(alpha * A) - np.log(beta * B) + beta * np.log(tokens_S)) / alpha))


def _saturating(amount: ArrayLike, threshold: ArrayLike, decay: ArrayLike) -> FloatArray:
    amount_S, threshold_S, decay_S = np.broadcast_arrays(
        *(np.asarray(value, dtype=np.float64) for value in (amount, threshold, decay))
    )
    excess_S = np.maximum(amount_S / threshold_S - 1.0, 0.0)
    forgets_S = np.isfinite(decay_S)
    finite_S = np.where(forgets_S, decay_S, 1.0)
    worth_S = np.where(forgets_S, -finite_S * np.expm1(-excess_S / finite_S), excess_S)
    return np.asarray(np.where(amount_S <= threshold_S, amount_S, threshold_S * (1.0 + worth_S)))
