"""y = a + b·x^−c0·Π_i (1 + (x/d_i)^(1/f_i))^(−c_i·f_i): smoothly broken power laws (Caballero et al. 2210.14891)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.stats import qmc

from scaling.laws.law import Box, FloatArray, Law, Parameter, columns
from scaling.laws.variable_projection import best_projections, log_of_projected

__all__ = ["BROKEN_POWER", "BROKEN_POWER_2", "BROKEN_POWER_3", "BrokenPower"]

_STEEPEST = 20.0
_SHARPEST, _SMOOTHEST = 0.005, 10.0
_SAMPLE = 2**13
_TRIED_SLOPE = 1.45
"""Slopes tried at the start are tangents of angles up to this: half of them within ±0.9, the steepest 8.2."""
_TRIED_WIDTHS = (0.01, 3.0)


@dataclass(frozen=True)
class BrokenPower(Law):
    """y = a + b·x^−c0·Π_i (1 + (x/d_i)^(1/f_i))^(−c_i·f_i), with ``breaks`` factors

    On log-log axes, above the limit a, y falls with slope −c0, past x = d_1 with −(c0 + c_1), and so on; f_i is how
    wide the bend is (small: sharp). A slope may be negative: y may rise and fall again. In one variable x.
    """

    breaks: int = 1

    name: ClassVar[str] = "broken-power"
    formula: ClassVar[str] = "y = a + b·x^−c0·Π_i (1 + (x/d_i)^(1/f_i))^(−c_i·f_i)"
    citation: ClassVar[str] = "Caballero et al. 2210.14891, equation 1"
    inputs: ClassVar[tuple[str, ...]] = ("x",)
    parameters: ClassVar[tuple[Parameter, ...]]

    def __post_init__(self) -> None:
        if self.breaks < 1:
            raise ValueError(f"breaks is {self.breaks}: a broken power law has at least one")
        bends = [
            parameter
            for i in range(1, self.breaks + 1)
            for parameter in (Parameter(f"c{i}", log=False), Parameter(f"d{i}"), Parameter(f"f{i}"))
        ]
        # A frozen instance sets what its number of breaks implies.
        object.__setattr__(self, "name", "broken-power" if self.breaks == 1 else f"broken-power-{self.breaks}")
        object.__setattr__(self, "parameters", (Parameter("a"), Parameter("b"), Parameter("c0", log=False), *bends))

    def response_and_gradient(self, free: FloatArray, ln_inputs_Vn: FloatArray) -> tuple[FloatArray, FloatArray]:
        """ln y = logsumexp(ln a, z), z = ln b − c0 ln x − Σ c f ln(1 + e^u), u = (ln x − ln d)/f.

        With p the share of e^z in y and s = 1/(1 + e^−u), the gradient in (ln a, ln b, c0; c, ln d, ln f) is
        (1 − p, p, −p ln x; −p f ln(1 + e^u), p c s, p c f (s u − ln(1 + e^u))).
        """
        (x_n,) = ln_inputs_Vn
        ln_a, ln_b, c0, *bends = columns(free, x_n)
        z = ln_b - c0 * x_n
        by_bend: list[FloatArray] = []
        for c, ln_d, ln_f in zip(bends[::3], bends[1::3], bends[2::3], strict=True):
            f = np.exp(ln_f)
            u = (x_n - ln_d) / f
            bend = np.logaddexp(0, u)
            s = np.exp(u - bend)
            z = z - c * f * bend
            by_bend.extend((-f * bend, c * s, c * f * (s * u - bend)))
        ln_y = np.logaddexp(ln_a, z)
        p = np.exp(z - ln_y)
        gradient = (np.exp(ln_a - ln_y), p, -p * x_n, *(p * slope for slope in by_bend))
        return ln_y, np.stack(np.broadcast_arrays(*gradient), axis=-1)

    def uncentred(self, free: FloatArray, centre_V: Sequence[float]) -> FloatArray:
        moved = np.array(free, dtype=np.float64)
        moved[..., 1] += moved[..., 2] * centre_V[0]
        moved[..., 4::3] += centre_V[0]
        return moved

    def theta_of(self, free: FloatArray) -> FloatArray:
        """Breaks stand in the order of d: in any other they mean the same law."""
        theta = super().theta_of(free)
        bends = theta[..., 3:].reshape((*theta.shape[:-1], self.breaks, 3))
        order = np.argsort(bends[..., 1], axis=-1)[..., None]
        return np.concatenate(
            (theta[..., :3], np.take_along_axis(bends, order, axis=-2).reshape(theta[..., 3:].shape)), -1
        )

    def box(self, ln_inputs_Vn: FloatArray, value_n: FloatArray) -> Box:
        """Breaks lie within the data, slopes and changes of slope within ±20, widths within a factor e^±10.

        A break beyond the data is not seen by them, so that none is extrapolated.
        """
        low, high = float(np.log(value_n).min()), float(np.log(value_n).max())
        left, right = float(ln_inputs_Vn[0].min()), float(ln_inputs_Vn[0].max())
        # b is the value at the centre, had none of the breaks bent it.
        reach = _STEEPEST * self.breaks * (right - left)
        bend = [(-_STEEPEST, _STEEPEST), (left, right), (np.log(_SHARPEST), np.log(_SMOOTHEST))]
        bounds = np.array(
            [(low - 12, low + 0.05), (low - 12 - reach, high + 3 + reach), (-_STEEPEST, _STEEPEST), *bend * self.breaks]
        )
        return Box(bounds[:, 0], bounds[:, 1])

    def starts(self, ln_inputs_Vn: FloatArray, value_n: FloatArray, count: int) -> FloatArray:
        """For given slopes and breaks the law is linear in a and b: the best of a Sobol sequence of the others."""
        (x_n,) = ln_inputs_Vn
        left, right = float(x_n.min()), float(x_n.max())
        sample = qmc.Sobol(1 + 3 * self.breaks, rng=0).random(_SAMPLE)
        ln_sharpest, ln_smoothest = np.log(_TRIED_WIDTHS)
        rest = np.empty_like(sample)  # c0, then (c, ln d, ln f) of each break
        rest[:, 0] = np.tan(_TRIED_SLOPE * (2 * sample[:, 0] - 1))
        rest[:, 1::3] = np.tan(_TRIED_SLOPE * (2 * sample[:, 1::3] - 1))
        rest[:, 2::3] = left + (right - left) * sample[:, 2::3]
        rest[:, 3::3] = ln_sharpest + (ln_smoothest - ln_sharpest) * sample[:, 3::3]
        unit = np.column_stack((np.full(len(rest), -np.inf), np.zeros(len(rest)), rest))
        ln_shape_Gn, _ = self.response_and_gradient(unit, ln_inputs_Vn)
        ln_scale_G = ln_shape_Gn.max(axis=1)
        shape_Gn = np.exp(ln_shape_Gn - ln_scale_G[:, None])
        terms_Gn2 = np.stack(np.broadcast_arrays(1.0, shape_Gn), axis=-1) / value_n[:, None]
        order, solution_G2 = best_projections(terms_Gn2, np.ones(len(value_n)), count)
        logs_G2 = log_of_projected(solution_G2, 1e-3 * float(value_n.min()))
        return np.column_stack((logs_G2[:, 0], logs_G2[:, 1] - ln_scale_G[order], rest[order]))


BROKEN_POWER = BrokenPower()
BROKEN_POWER_2 = BrokenPower(2)
BROKEN_POWER_3 = BrokenPower(3)
