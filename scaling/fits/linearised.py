"""A fitted law as a plane at its estimate: standard errors, leverage, and what the Huber loss costs in precision.

With response residuals r of scale s, ψ the derivative of the Huber term and J the Jacobian of the response in the
constants that are searched, an M-estimate has (Huber & Ronchetti 2009, sections 7.6 and 13.3)

    covariance = E ψ² / (E ψ')² · (JᵀJ)⁻¹,     2·(objective held − objective) ~ E ψ² / E ψ' · F(1, n − p)

Both expectations are taken under a normal of the residuals' robust scale: δ = 1e-3 lies so far below the noise that the
few residuals on the quadratic arm, most of them interpolated exactly, would not estimate E ψ'.

Shapes: n points, P constants of the law.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from scaling.fits.bootstrap import residual_scale
from scaling.fits.estimate import Estimate
from scaling.laws.law import FloatArray

__all__ = ["Linearised", "linearise", "psi_moments"]

_NORMAL = NormalDist()


@dataclass(frozen=True)
class Linearised:
    """The law at its estimate, in searched coordinates; constants at a bound or held have no error and no direction."""

    scale: float
    """Robust SD of the response's residuals."""
    spare: int
    """Degrees of freedom, n − p."""
    covariance: FloatArray
    """(P, P), of the searched coordinates."""
    leverage: FloatArray
    """h_ii (n,): how much of its own fitted value each run decides, from 0 to 1; they sum to the constants searched."""
    objective_unit: float
    """What the objective rises by, in expectation, per unit of ½·t²: E ψ² / E ψ'."""

    def standard_error(self, gradient: FloatArray) -> FloatArray:
        """Of quantities whose gradients in the searched coordinates are ``gradient`` (..., P): (...)."""
        variance = np.einsum("...p,pq,...q->...", gradient, self.covariance, gradient)
        return np.asarray(np.sqrt(np.maximum(variance, 0.0)))


def psi_moments(scale: float, delta: float) -> tuple[float, float]:
    """E ψ² and E ψ' of the Huber loss under a normal of SD ``scale``."""
    k = delta / scale
    if k > 30:
        return scale * scale, 1.0
    inside = 2 * _NORMAL.cdf(k) - 1
    return scale * scale * (inside - 2 * k * _NORMAL.pdf(k)) + delta * delta * (1 - inside), inside


def linearise(
    found: Estimate, inputs: tuple[FloatArray, ...], delta: float, *, weights: FloatArray | None = None
) -> Linearised:
    """The law at its estimate, for runs of ``inputs`` (each (n,)) and ``weights`` (n,), 1 by default."""
    ln_inputs_Vn = found.centred(*inputs)
    _, jacobian_nP = found.law.response_and_gradient(found.free, ln_inputs_Vn)
    searched = (found.free > found.box.low + 1e-9) & (found.free < found.box.high - 1e-9)
    weight_n = np.ones(len(jacobian_nP)) if weights is None else weights
    used_nQ = np.sqrt(weight_n)[:, None] * jacobian_nP[:, searched]
    scale = max(residual_scale(found.residuals, int(searched.sum())), 1e-12)
    square, slope = psi_moments(scale, delta)
    # Columns are scaled before the decomposition: what then lies below the cut-off is what the runs say nothing of.
    size_Q = np.sqrt((used_nQ**2).sum(axis=0))
    size_Q = np.maximum(size_Q, 1e-12 * size_Q.max(initial=1e-12))
    left_nQ, singular_Q, right_QQ = np.linalg.svd(used_nQ / size_Q, full_matrices=False)
    known = singular_Q > 1e-10 * singular_Q.max(initial=0.0)
    root_QQ = right_QQ / np.maximum(singular_Q, 1e-10)[:, None] / size_Q
    covariance = np.zeros((len(found.free),) * 2)
    covariance[np.ix_(searched, searched)] = square / slope**2 * root_QQ.T @ root_QQ
    return Linearised(
        scale=scale,
        spare=max(1, len(weight_n) - int(searched.sum())),
        covariance=covariance,
        leverage=np.asarray((left_nQ[:, known] ** 2).sum(axis=1)),
        objective_unit=square / slope,
    )
