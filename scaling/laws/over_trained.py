"""L(N, D) = E + α·N^b + β·(√6·D)^b with b < 0, the law of Gadre et al. for over-trained models (2403.08540)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from scaling.laws.chinchilla import CHINCHILLA, balanced
from scaling.laws.law import Box, FloatArray, LossLaw, Parameter, columns
from scaling.laws.variable_projection import best_projections, log_of_projected

__all__ = ["OVER_TRAINED", "OverTrained"]

_STEEPEST, _FLATTEST = -3.0, -0.01
_EXPONENTS = -np.geomspace(0.015, 2.8, 120)
_HALF_LN_6 = 0.5 * np.log(6.0)


@dataclass(frozen=True)
class OverTrained(LossLaw):
    """L(N, D) = E + α·N^b + β·(√6·D)^b

    As their code has it: with M = D/N tokens a parameter the last term is β·6^(b/2)·(M·N)^b. It is Chinchilla's law
    with one exponent, −b, for both terms. In compute C = 6·N·D it reads (``loss_at``)

        L(C, M) = E + (a·M^η + β·M^−η)·C^−η,   η = −b/2, a = α·6^η:

    over-training by any M keeps the slope and shifts the line. N* and D* grow as √C. The paper fits it to five runs, by
    least squares on the loss itself (``scaling.laws.residual_scale``).
    """

    name: ClassVar[str] = "over-trained"
    formula: ClassVar[str] = "L = E + α·N^b + β·(√6·D)^b"
    citation: ClassVar[str] = "Gadre et al. 2403.08540"
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("alpha"), Parameter("beta"), Parameter("b", log=False), Parameter("E"),
    )  # fmt: skip

    def response_and_gradient(self, free: FloatArray, ln_inputs_Vn: FloatArray) -> tuple[FloatArray, FloatArray]:
        """ln L = logsumexp(ln α + b ln N, ln β + b ln √6 D, e), with the shares p of the three terms in L the gradient
        is (p_N, p_D, p_N ln N + p_D ln √6 D, p_E)."""
        x_n, y_n = ln_inputs_Vn[0], ln_inputs_Vn[1] + _HALF_LN_6
        ln_alpha, ln_beta, b, e = columns(free, x_n)
        z_n, z_d = ln_alpha + b * x_n, ln_beta + b * y_n
        ln_loss = np.logaddexp(np.logaddexp(z_n, z_d), e)
        p_n, p_d, p_e = (np.exp(term - ln_loss) for term in (z_n, z_d, e))
        return ln_loss, np.stack((p_n, p_d, p_n * x_n + p_d * y_n, p_e), axis=-1)

    def curvature(
        self, free_KP: FloatArray, ln_inputs_Vn: FloatArray, jacobian_KnP: FloatArray, psi_Kn: FloatArray
    ) -> FloatArray:
        """The Hessian of ln L is Mᵀ(diag p − ppᵀ)M, M the derivatives of the three exponents of the logsumexp."""
        x_n, y_n = ln_inputs_Vn[0], ln_inputs_Vn[1] + _HALF_LN_6
        hessian_KPP = -np.matmul(np.swapaxes(jacobian_KnP, 1, 2) * psi_Kn[:, None, :], jacobian_KnP)
        for i, z_n in ((0, x_n), (1, y_n)):
            share_Kn = psi_Kn * jacobian_KnP[..., i]
            cross_K = share_Kn @ z_n
            hessian_KPP[:, i, i] += share_Kn.sum(axis=1)
            hessian_KPP[:, i, 2] += cross_K
            hessian_KPP[:, 2, i] += cross_K
            hessian_KPP[:, 2, 2] += share_Kn @ (z_n * z_n)
        hessian_KPP[:, 3, 3] += (psi_Kn * jacobian_KnP[..., 3]).sum(axis=1)
        return np.asarray(hessian_KPP)

    def uncentred(self, free: FloatArray, centre_V: Sequence[float]) -> FloatArray:
        moved = np.array(free, dtype=np.float64)
        moved[..., 0] -= moved[..., 2] * centre_V[0]
        moved[..., 1] -= moved[..., 2] * centre_V[1]
        return moved

    def box(self, ln_inputs_Vn: FloatArray, value_n: FloatArray) -> Box:
        """Each term is at most e^3 times the loss and at least e^-12 of it; b lies within −3 to −0.01."""
        low, high = float(np.log(value_n).min()), float(np.log(value_n).max())
        return Box(
            np.array([low - 12, low - 12, _STEEPEST, low - 7]), np.array([high + 3, high + 5, _FLATTEST, low + 0.05])
        )

    def prior(
        self, ln_inputs_Vn: FloatArray, value_n: FloatArray, irreducible: tuple[float, float] | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """Chinchilla's, with −b as its exponents."""
        (a, b, e, _, exponent), (a_sd, b_sd, e_sd, _, exponent_sd) = CHINCHILLA.prior(
            ln_inputs_Vn, value_n, irreducible
        )
        return np.array([a, b + exponent * _HALF_LN_6, -exponent, e]), np.array([a_sd, b_sd, exponent_sd, e_sd])

    def starts(self, ln_inputs_Vn: FloatArray, value_n: FloatArray, count: int) -> FloatArray:
        """For given b the law is linear in α, β and E."""
        x_n, y_n = ln_inputs_Vn[0], ln_inputs_Vn[1] + _HALF_LN_6
        powers = (np.exp(_EXPONENTS[:, None] * x_n), np.exp(_EXPONENTS[:, None] * y_n), 1.0)
        terms_Gn3 = np.stack(np.broadcast_arrays(*powers), axis=-1) / value_n[:, None]
        order, solution_G3 = best_projections(terms_Gn3, np.ones(len(value_n)), count)
        logs_G3 = log_of_projected(solution_G3, 1e-3 * float(value_n.min()))
        return np.column_stack((logs_G3[:, :2], _EXPONENTS[order], logs_G3[:, 2]))

    def optimum(
        self, theta: ArrayLike, flops: ArrayLike, flops_per_param_token: float = 6.0
    ) -> tuple[FloatArray, FloatArray]:
        """N* and D* at ``flops`` (shape S), in closed form: each (..., *S)."""
        product_S = np.asarray(flops, np.float64) / flops_per_param_token
        alpha, beta, b, _ = columns(theta, product_S)
        return balanced(np.log(alpha), np.log(beta) + b * _HALF_LN_6, -b, -b, product_S)

    def exponents(self, theta: ArrayLike, flops: float | None = None) -> tuple[FloatArray, FloatArray]:
        """One half each, (...): both terms fall with the same exponent."""
        half = np.full(np.shape(theta)[:-1], 0.5)
        return half, half

    def loss_at(self, theta: ArrayLike, flops: ArrayLike, tokens_per_param: ArrayLike) -> FloatArray:
        """L(C, M) = E + (a·M^η + β·M^−η)·C^−η at ``flops`` = 6·N·D and M = D/N, of one shape S: (..., *S)."""
        flops_S, ratio_S = np.broadcast_arrays(np.asarray(flops, np.float64), np.asarray(tokens_per_param, np.float64))
        alpha, beta, b, e = columns(theta, flops_S)
        eta = -b / 2
        return np.asarray(e + (alpha * (6 * ratio_S) ** eta + beta * ratio_S**-eta) * flops_S**-eta)


OVER_TRAINED = OverTrained()
