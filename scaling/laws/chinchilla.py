"""L(N, D) = E + A·N^−α + B·D^−β, the parametric law of Hoffmann et al. (2203.15556, equation 2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from scaling.laws.law import FloatArray

__all__ = ["CHINCHILLA", "NAMES", "Chinchilla"]

NAMES = ("A", "B", "E", "alpha", "beta")


def _split(theta: ArrayLike, other: np.ndarray) -> tuple[FloatArray, ...]:
    """The five columns of theta (..., 5), each with as many trailing axes as ``other`` has."""
    theta_P = np.asarray(theta, dtype=np.float64)
    trailing = (1,) * other.ndim
    return tuple(theta_P[..., i].reshape(theta_P.shape[:-1] + trailing) for i in range(len(NAMES)))


@dataclass(frozen=True)
class Chinchilla:
    """L(N, D) = E + A·N^−α + B·D^−β

    E is the irreducible loss in nats; A and B scale what a finite model and finite data cost. The optimum under
    C = c·N·D (c = 6) is N* = G·(C/c)^a, D* = (C/c)^b / G with G = (αA/(βB))^(1/(α+β)), a = β/(α+β), b = α/(α+β)
    (2203.15556, equation 4).
    """

    name: str = "chinchilla"
    NAMES: tuple[str, ...] = NAMES

    def predict(self, theta: ArrayLike, params: ArrayLike, tokens: ArrayLike) -> FloatArray:
        """Loss in nats a token: theta (..., 5) in the order of ``NAMES``, params and tokens of shape S: (..., *S)."""
        params_S, tokens_S = np.broadcast_arrays(np.asarray(params, np.float64), np.asarray(tokens, np.float64))
        A, B, E, alpha, beta = _split(theta, params_S)
        return np.asarray(E + A * params_S**-alpha + B * tokens_S**-beta)

    def log_loss_and_gradient(
        self, logs: ArrayLike, ln_params: ArrayLike, ln_tokens: ArrayLike
    ) -> tuple[FloatArray, FloatArray]:
        """ln L (..., n) and its gradient (..., n, 5) in (a, b, e, α, β), where a = ln A, b = ln B, e = ln E.

        ln L = logsumexp(a − α ln N, b − β ln D, e); with the shares p of the three terms in L the gradient is
        (p_N, p_D, p_E, −p_N ln N, −p_D ln D). ``logs`` is (..., 5); ``ln_params`` and ``ln_tokens`` are (n,), and may
        be centred if a and b are meant at the centre.
        """
        x_N, y_N = np.asarray(ln_params, np.float64), np.asarray(ln_tokens, np.float64)
        a, b, e, alpha, beta = _split(logs, x_N)
        z_n, z_d = a - alpha * x_N, b - beta * y_N
        top = np.maximum(np.maximum(z_n, z_d), e)
        p_n, p_d, p_e = np.exp(z_n - top), np.exp(z_d - top), np.exp(e - top)
        total = p_n + p_d + p_e
        p_n, p_d, p_e = p_n / total, p_d / total, p_e / total
        return top + np.log(total), np.stack((p_n, p_d, p_e, -p_n * x_N, -p_d * y_N), axis=-1)

    def optimum(
        self, theta: ArrayLike, flops: ArrayLike, flops_per_param_token: float = 6.0
    ) -> tuple[FloatArray, FloatArray]:
        """N* and D* at ``flops`` (shape S): each (..., *S). Their product is flops / flops_per_param_token."""
        product_S = np.asarray(flops, np.float64) / flops_per_param_token
        A, B, _, alpha, beta = _split(theta, product_S)
        both = alpha + beta
        ln_g = (np.log(alpha) + np.log(A) - np.log(beta) - np.log(B)) / both
        ln_params = ln_g + beta / both * np.log(product_S)
        return np.exp(ln_params), np.exp(np.log(product_S) - ln_params)

    def exponents(self, theta: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """a = β/(α+β) of N* ∝ C^a and b = α/(α+β) of D* ∝ C^b: each (...)."""
        theta_P = np.asarray(theta, dtype=np.float64)
        alpha, beta = theta_P[..., 3], theta_P[..., 4]
        return beta / (alpha + beta), alpha / (alpha + beta)


CHINCHILLA = Chinchilla()
