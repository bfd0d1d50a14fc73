"""L(s) = L0 + A·S1(s)^−α − C·S2(s), the law of learning-rate annealing of Tissue et al. (2408.11029)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike
from scipy.signal import lfilter

from scaling.laws.law import Box, FloatArray, Parameter
from scaling.laws.schedule import ScheduleLaw, SchedulePoints
from scaling.laws.variable_projection import best_projections, log_of_projected

__all__ = ["TISSUE", "Tissue"]

_STARTS = 3


def _annealing(part: SchedulePoints, scale: float, memory: float) -> tuple[FloatArray, FloatArray]:
    """S2 (m,) at the points and its derivative in λ = ``memory``, rates in units of ``scale``."""
    fall = -np.diff(part.lr, prepend=part.lr[0]) / scale
    momentum = lfilter([1.0], [1.0, -memory], fall)
    slope = lfilter([0.0, 1.0], [1.0, -memory], momentum)
    return np.cumsum(momentum)[part.at_steps], np.cumsum(slope)[part.at_steps]


@dataclass(frozen=True, eq=False)
class Tissue(ScheduleLaw):
    """L(s) = L0 + A·S1(s)^−α − C·S2(s)

    S1(s) = Σ_{i≤s} η_i is the area under the learning rate; S2(s) = Σ_{i≤s} m_i that of the annealing momentum
    m_i = λ·m_{i−1} + (η_{i−1} − η_i), so that a fall of the rate keeps lowering the loss for about 1/(1−λ) steps. The
    citation sets λ by hand (0.999); here it is searched as ln 1/(1−λ), and ``fixed={"lambda": 0.999}`` sets it. The
    warm-up is a fall of negative size whose S2 is soon a constant, which L0 takes up.
    """

    name: ClassVar[str] = "tissue"
    formula: ClassVar[str] = "L = L0 + A·S1^−α − C·S2"
    citation: ClassVar[str] = "Tissue et al. 2408.11029, equation 1"
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("L0"), Parameter("A"), Parameter("alpha", log=False), Parameter("C"),
        Parameter("lambda", log=False),
    )  # fmt: skip

    def loss_and_gradient(self, free_P: FloatArray) -> tuple[FloatArray, FloatArray]:
        ln_l0, ln_a, alpha, ln_c, ln_memory = free_P
        forgets = float(np.exp(-ln_memory))
        parts = [_annealing(part, float(np.exp(self.ln_rate)), 1.0 - forgets) for part in self.points]
        annealed_n, slope_n = (np.concatenate(column) for column in zip(*parts, strict=True))
        forward_n, drop_n = np.exp(ln_a - alpha * self.ln_areas), np.exp(ln_c) * annealed_n
        gradient_nP = np.stack(
            (
                np.full(len(drop_n), np.exp(ln_l0)),
                forward_n,
                -self.ln_areas * forward_n,
                -drop_n,
                -np.exp(ln_c) * slope_n * forgets,
            ),
            axis=-1,
        )
        return np.exp(ln_l0) + forward_n - drop_n, gradient_nP

    def in_units(self, free: FloatArray, ln_rate: float, ln_area: float) -> FloatArray:
        moved = np.array(free, dtype=np.float64)
        moved[..., 1] += moved[..., 2] * ln_area
        moved[..., 3] -= ln_rate
        return moved

    def theta_of(self, free: FloatArray) -> FloatArray:
        theta = super().theta_of(free)
        theta[..., 4] = -np.expm1(-theta[..., 4])
        return theta

    def free_of(self, theta: ArrayLike) -> FloatArray:
        free = super().free_of(theta)
        free[..., 4] = -np.log1p(-free[..., 4])
        return free

    def box(self, ln_inputs_Vn: FloatArray, value_n: FloatArray) -> Box:
        """The momentum lasts 3 to 100,000 steps."""
        low, high = float(np.log(value_n).min()), float(np.log(value_n).max())
        return Box(
            np.array([low - 7, low - 12, 0.01, low - 20, np.log(3.0)]),
            np.array([low + 0.7, high + 3, 3.0, high + 1, np.log(1e5)]),
        )

    def starts(self, ln_inputs_Vn: FloatArray, value_n: FloatArray, count: int) -> FloatArray:
        """For given α and λ the law is linear in L0, A and C: the best few of a grid over the two."""
        inverse_n = 1.0 / value_n
        terms, grid = [], []
        for memory in (30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0):
            _, gradient_nP = self.loss_and_gradient(np.array([0.0, 0.0, 0.5, 0.0, np.log(memory)]))
            for alpha in (0.25, 0.5, 0.75, 1.0):
                forward_n = np.exp(-alpha * self.ln_areas)
                terms.append(
                    np.column_stack((np.ones(len(value_n)), forward_n, gradient_nP[:, 3])) * inverse_n[:, None]
                )
                grid.append((alpha, np.log(memory)))
        order, solution_G3 = best_projections(np.stack(terms), np.ones(len(value_n)), min(count, _STARTS))
        l0, a, c = log_of_projected(solution_G3, 1e-6 * float(value_n.min())).T
        alpha_G, memory_G = np.array(grid)[order].T
        return np.column_stack((l0, a, alpha_G, c, memory_G))


TISSUE = Tissue()
