"""L(N, D) = E + A·N^−α + B·D^−β, the parametric law of Hoffmann et al. (2203.15556, equation 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from scaling.laws.law import Box, FloatArray, LossLaw, Parameter, columns
from scaling.laws.variable_projection import projected_starts

__all__ = ["CHINCHILLA", "Chinchilla", "balanced"]

_SMALLEST_EXPONENT, _LARGEST_EXPONENT = 0.01, 3.0
_LARGEST_LN_COUNT = 200.0


def balanced(
    ln_a: FloatArray, ln_b: FloatArray, alpha: FloatArray, beta: FloatArray, product: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """N and D with N·D = ``product`` at which A·N^−α + B·D^−β is least (2203.15556, equation 4); arguments broadcast.

    There αA·N^−α = βB·D^−β. Every law that is a function of such a sum has this optimum.
    """
    ln_params = (np.log(alpha) + ln_a - np.log(beta) - ln_b + beta * np.log(product)) / (alpha + beta)
    # Constants of an absurd table put it beyond every count, where powers of it are no numbers any more.
    params, tokens = (
        np.exp(np.clip(ln, -_LARGEST_LN_COUNT, _LARGEST_LN_COUNT)) for ln in (ln_params, np.log(product) - ln_params)
    )
    return params, tokens


@dataclass(frozen=True)
class Chinchilla(LossLaw):
    """L(N, D) = E + A·N^−α + B·D^−β

    E is the irreducible loss in nats; A and B scale what a finite model and finite data cost. The optimum under
    C = c·N·D (c = 6) is N* = G·(C/c)^a, D* = (C/c)^b / G with G = (αA/(βB))^(1/(α+β)), a = β/(α+β), b = α/(α+β)
    (2203.15556, equation 4).
    """

    name: ClassVar[str] = "chinchilla"
    formula: ClassVar[str] = "L = E + A·N^−α + B·D^−β"
    citation: ClassVar[str] = "Hoffmann et al. 2203.15556, equation 2"
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("A"), Parameter("B"), Parameter("E"), Parameter("alpha", log=False), Parameter("beta", log=False),
    )  # fmt: skip

    def predict(self, theta: ArrayLike, *inputs: ArrayLike) -> FloatArray:
        params_S, tokens_S = np.broadcast_arrays(*(np.asarray(value, np.float64) for value in inputs))
        A, B, E, alpha, beta = columns(theta, params_S)
        return np.asarray(E + A * params_S**-alpha + B * tokens_S**-beta)

    def response_and_gradient(self, free: FloatArray, ln_inputs_Vn: FloatArray) -> tuple[FloatArray, FloatArray]:
        """ln L = logsumexp(a − α ln N, b − β ln D, e), a = ln A, b = ln B, e = ln E; with the shares p of the three
        terms in L its gradient is (p_N, p_D, p_E, −p_N ln N, −p_D ln D)."""
        x_n, y_n = ln_inputs_Vn
        a, b, e, alpha, beta = columns(free, x_n)
        z_n, z_d = a - alpha * x_n, b - beta * y_n
        top = np.maximum(np.maximum(z_n, z_d), e)
        p_n, p_d, p_e = np.exp(z_n - top), np.exp(z_d - top), np.exp(e - top)
        total = p_n + p_d + p_e
        p_n, p_d, p_e = p_n / total, p_d / total, p_e / total
        return top + np.log(total), np.stack((p_n, p_d, p_e, -p_n * x_n, -p_d * y_n), axis=-1)

    def curvature(
        self, free_KP: FloatArray, ln_inputs_Vn: FloatArray, jacobian_KnP: FloatArray, psi_Kn: FloatArray
    ) -> FloatArray:
        """The Hessian of ln L is Mᵀ(diag p − ppᵀ)M, M the derivatives of the three exponents of the logsumexp."""
        x_n, y_n = ln_inputs_Vn
        hessian_KPP = -np.matmul(np.swapaxes(jacobian_KnP, 1, 2) * psi_Kn[:, None, :], jacobian_KnP)
        share_n_Kn, share_d_Kn = psi_Kn * jacobian_KnP[..., 0], psi_Kn * jacobian_KnP[..., 1]
        for share_Kn, z_n, i, j in ((share_n_Kn, x_n, 0, 3), (share_d_Kn, y_n, 1, 4)):
            cross_K = share_Kn @ z_n
            hessian_KPP[:, i, i] += share_Kn.sum(axis=1)
            hessian_KPP[:, i, j] -= cross_K
            hessian_KPP[:, j, i] -= cross_K
            hessian_KPP[:, j, j] += share_Kn @ (z_n * z_n)
        hessian_KPP[:, 2, 2] += (psi_Kn * jacobian_KnP[..., 2]).sum(axis=1)
        return np.asarray(hessian_KPP)

    def uncentred(self, free: FloatArray, centre_V: Sequence[float]) -> FloatArray:
        moved = np.array(free, dtype=np.float64)
        moved[..., 0] += moved[..., 3] * centre_V[0]
        moved[..., 1] += moved[..., 4] * centre_V[1]
        return moved

    def box(self, ln_inputs_Vn: FloatArray, value_n: FloatArray) -> Box:
        """Each term is at most e^3 times the loss and at least e^-12 of it; exponents lie within 0.01 to 3."""
        low, high = float(np.log(value_n).min()), float(np.log(value_n).max())
        return Box(
            np.array([low - 12, low - 12, low - 7, _SMALLEST_EXPONENT, _SMALLEST_EXPONENT]),
            np.array([high + 3, high + 3, low + 0.05, _LARGEST_EXPONENT, _LARGEST_EXPONENT]),
        )

    def prior(
        self, ln_inputs_Vn: FloatArray, value_n: FloatArray, irreducible: tuple[float, float] | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """Published exponents lie from 0.10 to 0.55 (OLMo ladder 0.10 and 0.16, Hoffmann 0.34 and 0.28, Besiroglu 0.35
        and 0.37, datablations 0.35), published E at 0.4 to 0.9 of the lowest loss they were fitted on."""
        ln_e, ln_e_sd = float(np.log(value_n).min()) - 0.35, 0.4
        if irreducible is not None:
            low, high = np.log(irreducible)
            # The range as 90% of a normal's mass: its ends are not walls.
            ln_e, ln_e_sd = 0.5 * float(low + high), float(high - low) / (2 * 1.6449)
        ln_term = float(np.log(0.2 * np.median(value_n)))
        return np.array([ln_term, ln_term, ln_e, 0.33, 0.33]), np.array([2.0, 2.0, ln_e_sd, 0.15, 0.15])

    def starts(self, ln_inputs_Vn: FloatArray, value_n: FloatArray, count: int) -> FloatArray:
        x_n, y_n = ln_inputs_Vn
        return projected_starts(x_n, y_n, np.log(value_n), count)

    def optimum(
        self, theta: ArrayLike, flops: ArrayLike, flops_per_param_token: float = 6.0
    ) -> tuple[FloatArray, FloatArray]:
        """N* and D* at ``flops`` (shape S), in closed form: each (..., *S)."""
        product_S = np.asarray(flops, np.float64) / flops_per_param_token
        A, B, _, alpha, beta = columns(theta, product_S)
        return balanced(np.log(A), np.log(B), alpha, beta, product_S)

    def exponents(self, theta: ArrayLike, flops: float | None = None) -> tuple[FloatArray, FloatArray]:
        """a = β/(α+β) of N* ∝ C^a and b = α/(α+β) of D* ∝ C^b: each (...), the same at every compute."""
        theta_P = np.asarray(theta, dtype=np.float64)
        alpha, beta = theta_P[..., 3], theta_P[..., 4]
        return beta / (alpha + beta), alpha / (alpha + beta)


CHINCHILLA = Chinchilla()
