"""One budget's runs, and what any interpolator finds on them.

Shapes: n runs of one budget (n_window of them used), K draws.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from scaling.laws.law import FloatArray

__all__ = ["Interpolator", "Line", "Minimum", "Status"]

Status = Literal["ok", "edge", "curvature", "too few"]


@dataclass(frozen=True)
class Line:
    """The runs of one budget in order of size, (n,) each: ln N, ln D and loss in nats; ``flops`` is their geometric
    mean."""

    flops: float
    ln_params: FloatArray
    ln_tokens: FloatArray
    loss: FloatArray

    @classmethod
    def of(cls, flops: FloatArray, params: FloatArray, tokens: FloatArray, loss: FloatArray) -> Line:
        """The line of a budget's runs, (n,) each, in any order."""
        order = np.argsort(params, kind="stable")
        middle = float(np.exp(np.log(flops).mean()))
        return cls(middle, np.log(params[order]), np.log(tokens[order]), loss[order])

    @property
    def sizes(self) -> int:
        return len(np.unique(self.ln_params))

    @property
    def lowest(self) -> int:
        """Index of the run with the lowest loss."""
        return int(np.argmin(self.loss))

    @property
    def lowest_at_edge(self) -> bool:
        return bool(self.ln_params[self.lowest] in (self.ln_params[0], self.ln_params[-1]))

    def around_the_lowest(self, reach: float, sizes: int) -> NDArray[np.int64]:
        """Indices of the runs within ``reach`` of the lowest run's ln N, at least those of the nearest ``sizes``."""
        distance = np.abs(self.ln_params - self.ln_params[self.lowest])
        nearest = np.sort(np.abs(np.unique(self.ln_params) - self.ln_params[self.lowest]))
        reach = max(reach, float(nearest[min(sizes, len(nearest)) - 1]))
        return np.flatnonzero(distance <= reach + 1e-9)

    def tokens_at(self, ln_params: FloatArray) -> FloatArray:
        """ln D on this line, between its runs by interpolation and beyond them along C = const."""
        inside = np.clip(ln_params, self.ln_params[0], self.ln_params[-1])
        return np.asarray(np.interp(inside, self.ln_params, self.ln_tokens) - (ln_params - inside))


@dataclass(frozen=True)
class Minimum:
    """Where a line is lowest: the estimate, and draws (K,) of it."""

    ln_params: float
    loss: float
    ln_params_K: FloatArray
    """Under redrawn noise."""
    draws_K: FloatArray
    """Under redrawn noise and what the interpolator leaves out of the line's shape."""
    loss_K: FloatArray
    spread: float
    """SD of ln N* under the noise, by which the optima are weighted."""


class Interpolator(ABC):
    """A way to find the minimum of a line; one in each file beside this one."""

    name: ClassVar[str]
    FEWEST: ClassVar[int]
    """Sizes that a line needs."""

    @abstractmethod
    def window(self, line: Line) -> NDArray[np.int64]:
        """Indices of the runs that are used, (n_window,)."""

    @abstractmethod
    def status(self, line: Line) -> Status:
        """ "ok" where runs with higher losses lie on both sides of the minimum."""

    @abstractmethod
    def minimum(self, line: Line, shocks_KN: FloatArray, skew_K: FloatArray) -> Minimum | None:
        """The minimum of an "ok" line, and under each row of ``shocks_KN`` (K, n_window) added to the losses, in nats.

        ``skew_K`` is the lines' third derivative over their second at the minimum, for interpolators without one. None
        where the noise leaves no minimum inside the line.
        """

    def polynomial(self, line: Line) -> tuple[float, ...] | None:
        """Coefficients of loss in ascending powers of ln N, or None for what is no polynomial."""
        return None
