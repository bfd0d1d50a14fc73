"""Gold reward against the divergence from the initial policy, as a proxy is optimised (Gao et al. 2210.10760)."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike

from scaling.laws.law import Box, FloatArray, Law, Parameter, columns

__all__ = [
    "OVER_OPTIMISATION_BEST_OF_N",
    "OVER_OPTIMISATION_RL",
    "OverOptimisation",
    "OverOptimisationBestOfN",
    "OverOptimisationRl",
]

_FARTHEST = 1e4
"""Alpha and beta lie within so many times what the largest score would make of them alone."""


class OverOptimisation(Law):
    """R = R_0 + α·d − β·b(d), d = √KL(π ‖ π_init), KL in nats

    R_0 is the score of the initial policy, which Gao et al. take from every score beforehand (hold it at 0 with
    ``fixed`` for that); fitted, its own error is part of every interval. α is what optimisation brings at first, β how
    fast the proxy is exploited. Both may be of either sign, so that a fit can say that there is no over-optimisation.
    Scores may be of any unit that is not far from one (``fits/huber.py`` takes steps of two at most).
    """

    inputs: ClassVar[tuple[str, ...]] = ("kl_nats",)
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("R_0", log=False), Parameter("alpha", log=False), Parameter("beta", log=False),
    )  # fmt: skip
    response: ClassVar[Literal["log", "identity"]] = "identity"

    @abstractmethod
    def bend(self, ln_d: FloatArray) -> FloatArray:
        """b(d) from ln d, of any shape."""

    @abstractmethod
    def peak(self, theta: ArrayLike) -> FloatArray:
        """d where R is highest, (...): 0 where it falls from the start, infinite where it never bends down."""

    @abstractmethod
    def returns(self, theta: ArrayLike) -> FloatArray:
        """d beyond the peak where R is R_0 again, (...); 0 and infinite as for the peak."""

    def response_and_gradient(self, free: FloatArray, ln_inputs_Vn: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Linear in the constants: the gradient is (1, d, −b(d))."""
        ln_d_n = 0.5 * ln_inputs_Vn[0]
        d_n, bend_n = np.exp(ln_d_n), self.bend(ln_d_n)
        start, alpha, beta = columns(free, d_n)
        value = start + alpha * d_n - beta * bend_n
        gradient = np.stack((np.ones_like(d_n), d_n, -bend_n), axis=-1)
        return value, np.broadcast_to(gradient, (*value.shape, 3))

    def curvature(
        self, free_KP: FloatArray, ln_inputs_Vn: FloatArray, jacobian_KnP: FloatArray, psi_Kn: FloatArray
    ) -> FloatArray:
        """None: the law is linear."""
        return np.zeros((*free_KP.shape, free_KP.shape[-1]))

    def box(self, ln_inputs_Vn: FloatArray, value_n: FloatArray) -> Box:
        """Far to either side of what the largest score and distance suggest."""
        largest = float(np.abs(value_n).max()) or 1.0
        slope = _FARTHEST * largest * max(1.0, float(np.exp(-0.5 * ln_inputs_Vn[0].max())))
        reach = np.array([_FARTHEST * largest, slope, slope])
        return Box(-reach, reach)

    def starts(self, ln_inputs_Vn: FloatArray, value_n: FloatArray, count: int) -> FloatArray:
        """Least squares, which is the answer but for the Huber loss, and the flat law."""
        _, jacobian_nP = self.response_and_gradient(np.zeros(3), ln_inputs_Vn)
        solution_P, *_ = np.linalg.lstsq(jacobian_nP, value_n, rcond=None)
        flat_P = np.array([float(np.median(value_n)), 0.0, 0.0])
        return np.stack((solution_P, flat_P))[:count]


@dataclass(frozen=True)
class OverOptimisationBestOfN(OverOptimisation):
    """R = R_0 + d·(α − β·d), d = √KL: the best of n by the proxy, KL = ln n − (n − 1)/n."""

    name: ClassVar[str] = "over-optimisation-best-of-n"
    formula: ClassVar[str] = "R = R_0 + d·(α − β·d), d = √KL"
    citation: ClassVar[str] = "Gao et al. 2210.10760, equation 1"

    def bend(self, ln_d: FloatArray) -> FloatArray:
        return np.exp(2 * ln_d)

    def peak(self, theta: ArrayLike) -> FloatArray:
        """α/(2β)"""
        return 0.5 * self.returns(theta)

    def returns(self, theta: ArrayLike) -> FloatArray:
        """α/β"""
        _, alpha, beta = np.moveaxis(np.asarray(theta, dtype=np.float64), -1, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(beta > 0, np.maximum(alpha / beta, 0.0), np.inf)


@dataclass(frozen=True)
class OverOptimisationRl(OverOptimisation):
    """R = R_0 + d·(α − β·ln d), d = √KL: reinforcement learning. Its slope at the start is infinite, where the authors
    do not expect it to hold."""

    name: ClassVar[str] = "over-optimisation-rl"
    formula: ClassVar[str] = "R = R_0 + d·(α − β·ln d), d = √KL"
    citation: ClassVar[str] = "Gao et al. 2210.10760, equation 2"

    def bend(self, ln_d: FloatArray) -> FloatArray:
        return np.exp(ln_d) * ln_d

    def peak(self, theta: ArrayLike) -> FloatArray:
        """exp(α/β − 1)"""
        return self.returns(theta) / np.e

    def returns(self, theta: ArrayLike) -> FloatArray:
        """exp(α/β)"""
        _, alpha, beta = np.moveaxis(np.asarray(theta, dtype=np.float64), -1, 0)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return np.where(beta > 0, np.exp(alpha / beta), np.inf)


OVER_OPTIMISATION_BEST_OF_N = OverOptimisationBestOfN()
OVER_OPTIMISATION_RL = OverOptimisationRl()
