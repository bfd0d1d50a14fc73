"""What a law is: a formula, its gradient and its citation in one frozen class; adding one takes no other edit.

An outside package adds a law by subclassing :class:`Law` (or :class:`LossLaw`, of a loss in parameters and tokens) and
naming an instance in the entry point group ``scaling.laws``.

Shapes: P parameters, V inputs, n points; leading axes (...) are draws or starts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Box", "FloatArray", "Law", "LossLaw", "Parameter", "columns"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Parameter:
    """One constant of a law. ``log``: it is positive, and searched as its logarithm."""

    name: str
    log: bool = True


@dataclass(frozen=True)
class Box:
    """Bounds of the searched coordinates, (P,) each or one row a problem (K, P). Equal bounds hold a constant fixed."""

    low: FloatArray
    high: FloatArray

    def rows(self, rows: slice) -> Box:
        """The bounds of some of the problems."""
        return Box(self.low[rows], self.high[rows]) if self.low.ndim == 2 else self


def columns(theta: ArrayLike, other: ArrayLike) -> tuple[FloatArray, ...]:
    """The constants in theta (..., P), each (...) with as many trailing axes as ``other`` has, to broadcast with it."""
    theta_P = np.asarray(theta, dtype=np.float64)
    return tuple(np.moveaxis(theta_P, -1, 0).reshape((theta_P.shape[-1], *theta_P.shape[:-1]) + (1,) * np.ndim(other)))


class Law(ABC):
    """``theta`` (..., P) holds the law's constants in the order of ``parameters``, as its citation defines them.

    A fit searches ``free`` (..., P) instead: the logarithm of each positive constant, and the constant itself where it
    is not, of the law whose inputs are divided by their geometric means (``centre`` holds the logarithms of these).
    Uncentred, the exponents and scales of a power law are so correlated that optimisers stop early (cond(J) 2,000
    against 33 on Chinchilla's points).
    """

    name: ClassVar[str]
    formula: ClassVar[str]
    citation: ClassVar[str]
    inputs: ClassVar[tuple[str, ...]]
    """The columns it is a function of, all positive."""
    parameters: ClassVar[tuple[Parameter, ...]]
    response: ClassVar[Literal["log", "identity"]] = "log"
    """The scale on which residuals are taken: of the logarithm of the value, or of the value itself."""

    @property
    def NAMES(self) -> tuple[str, ...]:
        return tuple(parameter.name for parameter in self.parameters)

    @property
    def scales(self) -> tuple[str, ...]:
        """Constants whose unit depends on another constant, as A's of A·N^−α: alone they mean nothing."""
        alone_PP = np.where(np.eye(len(self.parameters), dtype=bool), 0.5, np.nan)
        moved_PP = self.uncentred(alone_PP, (1.0,) * len(self.inputs))
        return tuple(name for name, lost in zip(self.NAMES, np.isnan(np.diagonal(moved_PP)), strict=True) if lost)

    @abstractmethod
    def response_and_gradient(self, free: FloatArray, ln_inputs_Vn: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The response (..., n) and its gradient in ``free`` (..., n, P)."""

    @abstractmethod
    def box(self, ln_inputs_Vn: FloatArray, value_n: FloatArray) -> Box:
        """Where ``free`` is searched, given centred inputs and the values to be fitted."""

    def starts(self, ln_inputs_Vn: FloatArray, value_n: FloatArray, count: int) -> FloatArray:
        """Starting points (count, P): the best of a Sobol sequence of the box, by the sum of absolute residuals."""
        from scipy.stats import qmc  # a quarter of a second that laws with starts of their own don't need

        box = self.box(ln_inputs_Vn, value_n)
        sample = qmc.Sobol(len(self.parameters), rng=0).random(2048)
        return self.best_of(box.low + sample * (box.high - box.low), ln_inputs_Vn, value_n, count)

    def best_of(self, free: FloatArray, ln_inputs_Vn: FloatArray, value_n: FloatArray, count: int) -> FloatArray:
        """The ``count`` rows of ``free`` (..., P) that fit best, by the sum of absolute residuals; best first."""
        response, _ = self.response_and_gradient(free, ln_inputs_Vn)
        misfit = np.abs(response - self.to_response(value_n)).sum(axis=-1)
        return np.asarray(free[np.argsort(np.nan_to_num(misfit, nan=np.inf), kind="stable")[:count]])

    def curvature(
        self, free_KP: FloatArray, ln_inputs_Vn: FloatArray, jacobian_KnP: FloatArray, psi_Kn: FloatArray
    ) -> FloatArray:
        """Σ_i ψ_i ∇²response_i (K, P, P), by differences of the gradient unless the law has a formula."""
        step = 1e-6
        by_coordinate = []
        for p in range(free_KP.shape[-1]):
            shift = np.zeros(free_KP.shape[-1])
            shift[p] = step
            _, moved_KnP = self.response_and_gradient(free_KP + shift, ln_inputs_Vn)
            by_coordinate.append(np.matmul(psi_Kn[:, None, :], moved_KnP - jacobian_KnP)[:, 0] / step)
        hessian_KPP = np.stack(by_coordinate, axis=-1)
        return np.asarray(0.5 * (hessian_KPP + np.swapaxes(hessian_KPP, 1, 2)))

    def uncentred(self, free: FloatArray, centre_V: Sequence[float]) -> FloatArray:
        """``free`` of the law in its own inputs, from ``free`` of the law in inputs divided by exp(centre).

        Laws that are not asked to centre (this default) are fitted in their own inputs: see ``centres``.
        """
        return free

    @property
    def centres(self) -> bool:
        """Whether the law says how its constants change when its inputs are rescaled (it defines ``uncentred``)."""
        return type(self).uncentred is not Law.uncentred

    def centre(self, ln_inputs_Vn: FloatArray) -> FloatArray:
        """What is taken from the logarithms of the inputs before a fit, (V,): their means, or zeros if the law does not
        centre. Laws whose inputs must be rescaled together (tokens and unique tokens) say so here."""
        return np.asarray(ln_inputs_Vn.mean(axis=1) if self.centres else np.zeros(len(ln_inputs_Vn)))

    def to_response(self, value: ArrayLike) -> FloatArray:
        value = np.asarray(value, dtype=np.float64)
        return np.asarray(np.log(value) if self.response == "log" else value)

    def theta_of(self, free: FloatArray) -> FloatArray:
        theta = np.array(free, dtype=np.float64)
        logs = [i for i, parameter in enumerate(self.parameters) if parameter.log]
        theta[..., logs] = np.exp(theta[..., logs])
        return theta

    def free_of(self, theta: ArrayLike) -> FloatArray:
        free = np.array(theta, dtype=np.float64)
        logs = [i for i, parameter in enumerate(self.parameters) if parameter.log]
        with np.errstate(divide="ignore"):  # a constant of zero is a term that is not there
            free[..., logs] = np.log(free[..., logs])
        return free

    def predict(self, theta: ArrayLike, *inputs: ArrayLike) -> FloatArray:
        """The law's value for ``inputs`` of one shape S (or scalars): (..., *S)."""
        arrays = np.broadcast_arrays(*(np.asarray(value, dtype=np.float64) for value in inputs))
        ln_inputs_Vn = np.log(np.stack([array.ravel() for array in arrays]))
        response, _ = self.response_and_gradient(self.free_of(theta), ln_inputs_Vn)
        value = np.exp(response) if self.response == "log" else response
        return np.asarray(value.reshape((*value.shape[:-1], *arrays[0].shape)))


class LossLaw(Law):
    """A law of the loss, nats a token, in parameters N and training tokens D."""

    inputs: ClassVar[tuple[str, ...]] = ("params", "tokens")

    def prior(
        self, ln_inputs_Vn: FloatArray, value_n: FloatArray, irreducible: tuple[float, float] | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """Mean and SD (P,) of a normal prior of ``free``, for forecasts: the box, its middle four SDs from its sides.

        ``irreducible`` is a range of E in nats a token that is known beforehand, for laws that have an E.
        """
        box = self.box(ln_inputs_Vn, value_n)
        return 0.5 * (box.low + box.high), 0.25 * (box.high - box.low)

    def optimum(
        self, theta: ArrayLike, flops: ArrayLike, flops_per_param_token: float = 6.0
    ) -> tuple[FloatArray, FloatArray]:
        """N* and D* that minimise the loss at ``flops`` = flops_per_param_token · N · D: each (..., *shape of flops).

        By search over ln N where the law has no closed form: ten orders of magnitude to either side of N = D, narrowed
        four times by a factor of 20.
        """
        theta = np.asarray(theta, dtype=np.float64)
        product_S = np.asarray(flops, dtype=np.float64) / flops_per_param_token
        found = np.empty((*theta.shape[:-1], *product_S.shape))
        for where in np.ndindex(product_S.shape):
            found[(..., *where)] = self._optimal_ln_params(theta, float(np.log(product_S[where])))
        return np.exp(found), np.exp(np.log(product_S) - found)

    def _optimal_ln_params(self, theta: FloatArray, ln_product: float) -> FloatArray:
        flat = theta.reshape(-1, theta.shape[-1])
        best = np.full(len(flat), 0.5 * ln_product)
        reach = 23.0
        for _ in range(5):
            offsets = np.linspace(-reach, reach, 41)
            tried = best[:, None] + offsets
            losses = np.stack(
                [self.predict(row, np.exp(x), np.exp(ln_product - x)) for row, x in zip(flat, tried, strict=True)]
            )
            best = tried[np.arange(len(flat)), np.argmin(losses, axis=1)]
            reach /= 20
        return best.reshape(theta.shape[:-1])

    def exponents(self, theta: ArrayLike, flops: float | None = None) -> tuple[FloatArray, FloatArray]:
        """a and b of N* ∝ C^a and D* ∝ C^b: each (...). Where they change with compute, those at ``flops``."""
        if flops is None:
            raise ValueError(f"the exponents of {self.name} change with compute: say at which flops")
        low, high = (np.log(self.optimum(theta, flops * factor)[0]) for factor in (0.5, 2.0))
        a = (high - low) / np.log(4.0)
        return np.asarray(a), np.asarray(1 - a)
