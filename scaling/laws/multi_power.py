"""L(t) = L0 + A·S1(t)^−α − B·Σ_{k≤t} (η_{k−1} − η_k)·(1 − (1 + C·η_k^−γ·S_k(t))^−β), the multi-power law."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import ClassVar

import numpy as np

from scaling.laws.law import Box, FloatArray, Parameter
from scaling.laws.schedule import ScheduleLaw, SchedulePoints
from scaling.laws.variable_projection import best_projections, log_of_projected

__all__ = ["MULTI_POWER", "MultiPower"]

_STARTS = 3
_LEAST_RATE = 1e-12
"""Of the largest; a rate of zero has spent its whole loss drop, which is what a very small one says too."""


@dataclass(frozen=True, eq=False)
class _Falls:
    """The falls of one schedule's rate and the points that come after them, as pairs in the order of the points.

    Falls next to each other are taken together, ``resolution`` steps at a time and never across a point: the sum over
    steps becomes a midpoint sum over groups. Rises (the warm-up) are falls of negative size. Shapes: k steps with a
    fall, g groups of them, n points, p pairs.
    """

    size_p: FloatArray
    ln_rate_p: FloatArray
    ln_area_p: FloatArray
    """ln S_k(t): the sum of rates from the fall's step to the point's."""
    ends_n: FloatArray
    """Pairs before the end of each point, so that sums over a point are differences of a cumulative sum."""


def _falls(part: SchedulePoints, scale: float, resolution: int) -> _Falls:
    """The pairs of one schedule, rates in units of ``scale``."""
    lr, at = part.lr / scale, part.at_steps
    step_k = np.flatnonzero(np.diff(lr[: at[-1] + 1])) + 1
    if not len(step_k):
        return _Falls(np.empty(0), np.empty(0), np.empty(0), np.zeros(len(at) + 1, dtype=np.int64))
    size_k = lr[step_k - 1] - lr[step_k]
    ahead_k = np.searchsorted(at, step_k)  # the first point that sees the fall
    group_k = np.unique(np.column_stack((ahead_k, step_k // resolution)), axis=0, return_inverse=True)[1].ravel()
    weight_k = np.abs(size_k)
    weight_g = np.bincount(group_k, weight_k)
    ln_rate_g = np.bincount(group_k, weight_k * np.log(np.maximum(lr[step_k], _LEAST_RATE))) / weight_g
    before_g = np.bincount(group_k, weight_k * np.cumsum(lr)[step_k - 1]) / weight_g
    size_g = np.bincount(group_k, size_k)
    ahead_g = np.zeros(len(size_g), dtype=np.int64)
    ahead_g[group_k] = ahead_k
    seen_n = np.searchsorted(ahead_g, np.arange(len(at)), side="right")
    pair_g = np.concatenate([np.arange(seen) for seen in seen_n])
    pair_n = np.repeat(np.arange(len(at)), seen_n)
    return _Falls(
        size_p=size_g[pair_g],
        ln_rate_p=ln_rate_g[pair_g],
        ln_area_p=np.log(part.areas[pair_n] / scale - before_g[pair_g]),
        ends_n=np.concatenate(([0], np.cumsum(seen_n))),
    )


@dataclass(frozen=True, eq=False)
class MultiPower(ScheduleLaw):
    """L(t) = L0 + A·S1(t)^−α − B·Σ_{k≤t} (η_{k−1} − η_k)·(1 − (1 + C·η_k^−γ·S_k(t))^−β)

    η_k is the learning rate of step k, S1(t) the sum of rates up to step t (the citation's S1 + S_W, the warm-up being
    part of the schedule) and S_k(t) that from step k on. A fall of the rate lowers the loss by B times its size, but
    only as S_k grows: a power law of its own for every fall.

    ``resolution`` steps are taken together, which changes the loss by less than 5e-5 of it at 64; 1 is the exact sum.
    """

    name: ClassVar[str] = "multi-power"
    formula: ClassVar[str] = "L = L0 + A·S1^−α − B·Σ(η_{k−1} − η_k)·(1 − (1 + C·η_k^−γ·S_k)^−β)"
    citation: ClassVar[str] = "Luo et al. 2503.12811"
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("L0"), Parameter("A"), Parameter("alpha", log=False), Parameter("B"), Parameter("C"),
        Parameter("beta", log=False), Parameter("gamma", log=False),
    )  # fmt: skip
    resolution: int = 64

    @cached_property
    def _pairs(self) -> _Falls:
        """The falls of every schedule, in units of the largest rate."""
        parts = [_falls(part, float(np.exp(self.ln_rate)), self.resolution) for part in self.points]
        offsets = np.cumsum([0, *(len(part.size_p) for part in parts)])
        ends = [part.ends_n[1:] + offset for part, offset in zip(parts, offsets, strict=False)]
        return _Falls(
            size_p=np.concatenate([part.size_p for part in parts]),
            ln_rate_p=np.concatenate([part.ln_rate_p for part in parts]),
            ln_area_p=np.concatenate([part.ln_area_p for part in parts]),
            ends_n=np.concatenate([[0], *ends]),
        )

    def _by_point(self, value_p: FloatArray) -> FloatArray:
        ends = self._pairs.ends_n
        sums = np.concatenate(([0.0], np.cumsum(value_p)))[ends]
        return np.asarray(np.diff(sums))

    def loss_and_gradient(self, free_P: FloatArray) -> tuple[FloatArray, FloatArray]:
        ln_l0, ln_a, alpha, ln_b, ln_c, beta, gamma = free_P
        pairs = self._pairs
        ln_u_p = np.minimum(ln_c - gamma * pairs.ln_rate_p + pairs.ln_area_p, 700.0)
        u_p = np.exp(ln_u_p)
        ln_grown_p = np.log1p(u_p)
        left_p = pairs.size_p * np.exp(-beta * ln_grown_p)
        slope_p = beta * left_p * (u_p / (1.0 + u_p))
        b, forward_n = np.exp(ln_b), np.exp(ln_a - alpha * self.ln_areas)
        drop_n = b * self._by_point(pairs.size_p - left_p)
        gradient_nP = np.stack(
            (
                np.full(len(drop_n), np.exp(ln_l0)),
                forward_n,
                -self.ln_areas * forward_n,
                -drop_n,
                -b * self._by_point(slope_p),
                -b * self._by_point(ln_grown_p * left_p),
                b * self._by_point(slope_p * pairs.ln_rate_p),
            ),
            axis=-1,
        )
        return np.exp(ln_l0) + forward_n - drop_n, gradient_nP

    def in_units(self, free: FloatArray, ln_rate: float, ln_area: float) -> FloatArray:
        """C·η^−γ·S has one power of the rate in S; sizes of falls are in B."""
        moved = np.array(free, dtype=np.float64)
        moved[..., 1] += moved[..., 2] * ln_area
        moved[..., 3] -= ln_rate
        moved[..., 4] -= (1 - moved[..., 6]) * ln_rate
        return moved

    def box(self, ln_inputs_Vn: FloatArray, value_n: FloatArray) -> Box:
        """Each term at most e^3 times the loss; a fall's half-life between a step and a hundred million."""
        low, high = float(np.log(value_n).min()), float(np.log(value_n).max())
        return Box(
            np.array([low - 7, low - 12, 0.01, low - 12, -18.0, 0.01, 0.0]),
            np.array([low + 0.05, high + 3, 3.0, high + 3, 3.0, 3.0, 2.0]),
        )

    def starts(self, ln_inputs_Vn: FloatArray, value_n: FloatArray, count: int) -> FloatArray:
        """For given α, C, β, γ the law is linear in L0, A and B: the best few of a grid over the four."""
        inverse_n = 1.0 / value_n
        terms, grid = [], []
        for ln_c, beta, gamma in product((-9.0, -7.0, -5.0, -3.0), (0.3, 0.6, 1.0), (0.3, 0.6, 0.9)):
            _, gradient_nP = self.loss_and_gradient(np.array([0.0, 0.0, 0.5, 0.0, ln_c, beta, gamma]))
            for alpha in (0.25, 0.5, 0.75, 1.0):
                forward_n = np.exp(-alpha * self.ln_areas)
                terms.append(
                    np.column_stack((np.ones(len(value_n)), forward_n, gradient_nP[:, 3])) * inverse_n[:, None]
                )
                grid.append((alpha, ln_c, beta, gamma))
        order, solution_G3 = best_projections(np.stack(terms), np.ones(len(value_n)), min(count, _STARTS))
        l0, a, b = log_of_projected(solution_G3, 1e-3 * float(value_n.min())).T
        alpha_G, c_G, beta_G, gamma_G = np.array(grid)[order].T
        return np.column_stack((l0, a, alpha_G, b, c_G, beta_G, gamma_G))


MULTI_POWER = MultiPower()
