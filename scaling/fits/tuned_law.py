"""Hyperparameters as laws of N and D from trials of several sizes and lengths, by one surface through all of them.

Few trials of one size and length (a cell) say little about its best learning rate; the cells say it together, for near
the bottom their valleys have one shape and only their bottoms move, by powers of N and D:

    ln L = c_j + ½ z'Hz + κ z₁³,     z = ln h − A·(1, ln N/N₀, ln D/D₀)

h are the hyperparameters. Learning rate and batch follow N and D; of the others A has the constant alone. The cube is
of the learning rate, whose valley is steeper above its bottom than below. A, H, κ and the c_j are least squares over
the trials near each cell's best, where z is taken about the last A and A moved until it stands.

Intervals are the jackknife's over cells, so that they hold what the cells scatter around the law.

A few small cells say little of exponents that are to reach sizes a hundred times theirs, and batch and learning rate
trade places along a flat valley. So each row of A is combined with what published laws agree on of its exponents
(``_PUBLISHED_EXPONENTS``, flat in the constant), by their precisions: cells that say much are left as they are.

Shapes: n trials, J cells, K hyperparameters, Q = 3 terms of a law.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from scaling.laws.law import FloatArray
from scaling.quantity import format_count
from scaling.record import Interval, Record

__all__ = ["LAWS_OF_SIZE", "TunedCell", "TunedHyperparameter", "TunedLaw", "TunedTrial", "fit_tuned_law"]

LAWS_OF_SIZE = ("learning_rate", "global_batch_tokens")
"""Hyperparameters whose best value is a power of N and D; the others' is one number."""
_PUBLISHED_EXPONENTS = {
    "learning_rate": ((-0.4, 0.25), (0.0, 0.25)),
    "global_batch_tokens": ((0.1, 0.25), (0.4, 0.2)),
}
"""(mean, SD) of the exponents of N and of D. Learning rate: N^-0.71 D^0.31 (Step Law 2503.04715), N^-1/3 (OLMo ladder
2412.04403), C^-0.125 (DeepSeek 2401.02954), D^-0.3 (Delphi). Batch: D^0.57 (Step Law), D^0.38 (Power Lines 2505.13738),
C^0.33 (DeepSeek), N^2/3 at a fixed D/N (OLMo ladder)."""
_WINDOW = 0.02
"""Trials within this share of their cell's best are near the bottom, weighted exp(−2·excess/window): on Step Law's grid
laws through its 12 smaller cells cost the least of loss in all with windows of 1 to 2%."""
_FEWEST_CELLS = 4
_MOST_EDGES = 1 / 3
"""Share of the cells whose best by the law may lie outside what was tried."""
_ROUNDS = 12


class TunedTrial(Record):
    """One trial. ``loss`` is None if it diverged or was pruned. ``params`` are total parameters."""

    params: float
    tokens: float
    values: dict[str, float]
    loss: float | None
    state: Literal["finished", "pruned", "diverged", "failed"] = "finished"


class TunedCell(Record):
    """One size and length: its trials, and where the law puts its bottom."""

    params: float
    tokens: float
    trials: tuple[TunedTrial, ...]
    best: float
    optimum: dict[str, float]
    floor: float
    """The loss at ``optimum`` by the surface."""


class TunedHyperparameter(Record):
    """value = ``at``·(N/params_at)^``params_exponent``·(D/tokens_at)^``tokens_exponent``."""

    name: str
    at: Interval
    params_exponent: Interval
    tokens_exponent: Interval
    half_costs: float
    """Share of the loss that half the best value costs, the others at their best."""
    double_costs: float


class TunedLaw(Record):
    """What the trials say; intervals at ``level``. Without ``status`` ok there is no law, and ``reason`` says why."""

    status: Literal["ok", "too few", "edge", "curvature", "together"]
    reason: str | None = None
    level: float = 0.9
    params_at: float
    tokens_at: float
    hyperparameters: tuple[TunedHyperparameter, ...] = ()
    cells: tuple[TunedCell, ...] = ()
    coefficients: tuple[tuple[float, float, float], ...] = ()
    """A, (K, Q)."""
    covariances: tuple[tuple[tuple[float, float, float], ...], ...] = ()
    """Of each row of A, (K, Q, Q)."""
    curvature: tuple[tuple[float, ...], ...] = ()
    """H, (K, K)."""
    cube: float = 0.0
    spare: int = 0
    """Cells less terms: degrees of freedom of the intervals."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(one.name for one in self.hyperparameters)

    def terms(self, params: float, tokens: float) -> FloatArray:
        return np.array([1.0, math.log(params / self.params_at), math.log(tokens / self.tokens_at)])

    def at(self, params: float, tokens: float) -> dict[str, float]:
        """The best values at one size and length."""
        bottom_K = np.exp(np.array(self.coefficients) @ self.terms(params, tokens))
        return dict(zip(self.names, map(float, bottom_K), strict=True))

    def predict(self, params: float, tokens: float) -> dict[str, Interval]:
        """The same with intervals, which widen with the distance from the cells."""
        x_Q, reach = self.terms(params, tokens), float(stdtrit(self.spare, 0.5 + self.level / 2))
        spread = [math.exp(min(reach * math.sqrt(max(x_Q @ np.array(c) @ x_Q, 0.0)), 50.0)) for c in self.covariances]
        return {
            name: Interval(estimate=value, low=value / factor, high=value * factor)
            for (name, value), factor in zip(self.at(params, tokens).items(), spread, strict=True)
        }

    def excess(self, factors: Mapping[str, float]) -> float:
        """Share of the loss that values ``factors`` times the best ones cost, near the bottom."""
        z_K = np.log([factors.get(name, 1.0) for name in self.names])
        return _excess(z_K, np.array(self.curvature), self.cube)


def _excess(z_K: FloatArray, curvature_KK: FloatArray, cube: float) -> float:
    """Share of the loss that ``z_K`` off the bottom cost, in logarithms of the hyperparameters."""
    return float(np.expm1(z_K @ curvature_KK @ z_K / 2 + cube * z_K[0] ** 3))


def _with_published(names: Sequence[str], a_KQ: FloatArray, c_KQQ: FloatArray) -> tuple[FloatArray, FloatArray]:
    """A and the covariance of its rows, combined with the published exponents."""
    means, covariances = a_KQ.copy(), c_KQQ.copy()
    for k, name in enumerate(names):
        if name not in _PUBLISHED_EXPONENTS:
            continue
        believed, sd = np.array(_PUBLISHED_EXPONENTS[name]).T
        # Conditioning on the two exponents, seen once more with these errors: exact where the cells' covariance has no
        # inverse, too.
        gain = covariances[k][:, 1:] @ np.linalg.inv(covariances[k][1:, 1:] + np.diag(sd**2))
        means[k] = a_KQ[k] + gain @ (believed - a_KQ[k, 1:])
        covariances[k] = c_KQQ[k] - gain @ c_KQQ[k][1:]
    return means, covariances


def fit_tuned_law(trials: Sequence[TunedTrial], level: float = 0.9) -> TunedLaw:
    """The law through ``trials``, which all tried the same hyperparameters, the learning rate first among them."""
    fit = _Surface(trials, level)
    return fit.law()


class _Surface:
    """The trials as arrays, and the surface through those of chosen cells."""

    def __init__(self, trials: Sequence[TunedTrial], level: float) -> None:
        self.level, self.trials = level, list(trials)
        self.names = tuple(trials[0].values) if trials else ()
        self.known = [t for t in trials if t.loss is not None and math.isfinite(t.loss)]
        self.sizes = sorted({(t.params, t.tokens) for t in self.known})
        self.cell_n = np.array([self.sizes.index((t.params, t.tokens)) for t in self.known], dtype=np.int64)
        ln_sizes = np.log(np.array(self.sizes).reshape(-1, 2))
        self.centre = ln_sizes.mean(axis=0) if len(ln_sizes) else np.zeros(2)
        self.x_JQ = np.column_stack((np.ones(len(ln_sizes)), ln_sizes - self.centre))
        self.h_nK = np.log([[t.values[name] for name in self.names] for t in self.known]).reshape(
            len(self.known), len(self.names)
        )
        self.y_n = np.log([t.loss for t in self.known if t.loss is not None])
        # Which terms of A are free: all of a law of size, the constant of the others.
        self.free = [(k, q) for k, name in enumerate(self.names) for q in range(3) if q == 0 or name in LAWS_OF_SIZE]

    def law(self) -> TunedLaw:
        cells = len(self.sizes)
        if cells < _FEWEST_CELLS:
            return self._none(
                "too few",
                f"{cells} sizes and lengths have finished trials and {_FEWEST_CELLS} are needed: raise tune.sizes or "
                "tune.lengths",
            )
        across = np.linalg.svd(self.x_JQ[:, 1:], compute_uv=False)[-1] / math.sqrt(cells)
        if across < 0.05:
            return self._none(
                "together", "sizes and lengths vary together, so their exponents can't be told apart: set tune.lengths"
            )
        every = np.arange(cells)
        fitted = self._fit(every)
        if isinstance(fitted, str):
            return self._none("curvature", fitted)
        a_KQ, h_KK, cube, floor_J = fitted
        edge = self._edge(a_KQ)
        if edge is not None:
            return self._none("edge", edge)
        left_out = [self._fit(np.delete(every, j)) for j in every]
        usable = [fit[0] for fit in left_out if not isinstance(fit, str)]
        if len(usable) < cells:
            return self._none(
                "curvature", "without one size and length there is no valley left: raise tune.trials or tune.sizes"
            )
        away = np.array(usable) - np.mean(usable, axis=0)
        covariances = (cells - 1) / cells * np.einsum("jkq,jkr->kqr", away, away)
        a_KQ, covariances = _with_published(self.names, a_KQ, covariances)
        bare = self._none("ok", None).model_copy(
            update={
                "coefficients": tuple(map(tuple, a_KQ.tolist())),
                "covariances": tuple(tuple(map(tuple, c)) for c in covariances.tolist()),
                "curvature": tuple(map(tuple, h_KK.tolist())),
                "cube": cube,
                "spare": cells - 3,
            }
        )
        reach = float(stdtrit(bare.spare, 0.5 + self.level / 2))

        def about(estimate: float, variance: float) -> Interval:
            sd = reach * math.sqrt(max(variance, 0.0))
            return Interval(estimate=estimate, low=estimate - sd, high=estimate + sd)

        def hyperparameter(k: int, name: str) -> TunedHyperparameter:
            level, params, tokens = (about(float(a_KQ[k, q]), float(covariances[k, q, q])) for q in range(3))
            one_K = np.eye(len(self.names))[k]
            return TunedHyperparameter(
                name=name,
                at=Interval(
                    estimate=math.exp(level.estimate), low=math.exp(level.low or 0), high=math.exp(level.high or 0)
                ),
                params_exponent=params,
                tokens_exponent=tokens,
                half_costs=_excess(math.log(0.5) * one_K, h_KK, cube),
                double_costs=_excess(math.log(2.0) * one_K, h_KK, cube),
            )

        law = bare.model_copy(
            update={"hyperparameters": tuple(map(hyperparameter, range(len(self.names)), self.names))}
        )
        return law.model_copy(update={"cells": tuple(self._cell(law, j, float(floor_J[j])) for j in range(cells))})

    def _none(self, status: Literal["ok", "too few", "edge", "curvature", "together"], reason: str | None) -> TunedLaw:
        params_at, tokens_at = (float(math.exp(at)) for at in self.centre)
        return TunedLaw(
            status=status, reason=reason, level=self.level, params_at=params_at, tokens_at=tokens_at,
            cells=() if status == "ok" else tuple(self._cell(None, j, math.nan) for j in range(len(self.sizes))),
        )  # fmt: skip

    def _cell(self, law: TunedLaw | None, j: int, floor: float) -> TunedCell:
        params, tokens = self.sizes[j]
        best = float(np.exp(self.y_n[self.cell_n == j].min()))
        return TunedCell(
            params=params, tokens=tokens, best=best, floor=math.exp(floor) if law else best,
            trials=tuple(t for t in self.trials if (t.params, t.tokens) == (params, tokens)),
            optimum=law.at(params, tokens) if law else {},
        )  # fmt: skip

    def _edge(self, a_KQ: FloatArray) -> str | None:
        """What lies at the edge of what was tried, in too many cells."""
        for k, name in enumerate(self.names):
            bottom_J = self.x_JQ @ a_KQ[k]
            tried = [self.h_nK[self.cell_n == j, k] for j in range(len(self.sizes))]
            below = [j for j, values in enumerate(tried) if bottom_J[j] < values.min()]
            above = [j for j, values in enumerate(tried) if bottom_J[j] > values.max()]
            for side, out in (("below", below), ("above", above)):
                if len(out) > _MOST_EDGES * len(tried):
                    params, tokens = self.sizes[out[0]]
                    return (
                        f"the best {name} lies {side} all that were tried at {len(out)} of {len(tried)} sizes and "
                        f"lengths ({format_count(params)} on {format_count(tokens)} tokens among them): widen "
                        f"tune.ranges.{name}"
                    )
        return None

    def _fit(self, cells: NDArray[np.int64]) -> tuple[FloatArray, FloatArray, float, FloatArray] | str:
        """(A, H, κ, floor of each cell) through the trials of ``cells``, or why there is none."""
        chosen = np.isin(self.cell_n, cells)
        best_J = np.array([self.y_n[self.cell_n == j].min() if j in cells else 0.0 for j in range(len(self.sizes))])
        excess = self.y_n - best_J[self.cell_n]
        chosen &= excess < _WINDOW
        y_n, h_nK, cell_n = self.y_n[chosen], self.h_nK[chosen], np.searchsorted(cells, self.cell_n[chosen])
        x_nQ, root_n = self.x_JQ[self.cell_n[chosen]], np.exp(-excess[chosen] / _WINDOW)
        pairs = [(i, j) for i in range(len(self.names)) for j in range(i, len(self.names))]
        terms = len(cells) + len(pairs) + len(self.free) + 1
        if len(y_n) <= terms:
            return (
                f"{len(y_n)} trials lie within {_WINDOW:.0%} of their cell's best and more than {terms} are needed: "
                "raise tune.trials, or narrow tune.over"
            )
        a_KQ = np.zeros((len(self.names), 3))
        bottoms = [np.flatnonzero(cell_n == j)[np.argmin(y_n[cell_n == j])] for j in range(len(cells))]
        a_KQ[:, 0] = h_nK[bottoms].mean(axis=0)
        h_KK, cube, constants = np.zeros((len(self.names),) * 2), 0.0, np.zeros(0)
        for turn in range(_ROUNDS):
            z_nK = h_nK - x_nQ @ a_KQ.T
            design = np.column_stack(
                [np.eye(len(cells))[cell_n]]
                + [z_nK[:, i] * z_nK[:, j] for i, j in pairs]
                + [z_nK[:, k] * x_nQ[:, q] for k, q in self.free]
                + [z_nK[:, 0] ** 3]
            )
            solved = np.linalg.lstsq(design * root_n[:, None], y_n * root_n, rcond=None)[0]
            constants, square, slope, cubes = np.split(solved, np.cumsum((len(cells), len(pairs), len(self.free))))
            cube = float(cubes[0])
            for (i, j), value in zip(pairs, square, strict=True):
                h_KK[i, j] = h_KK[j, i] = 2 * value if i == j else value
            if np.linalg.eigvalsh(h_KK)[0] <= 1e-6:
                flat = self.names[int(np.argmin(np.diag(h_KK)))]
                return f"the losses are no valley over {flat}: raise tune.trials, or leave it out of tune.over"
            gradient = np.zeros_like(a_KQ)
            for (k, q), value in zip(self.free, slope, strict=True):
                gradient[k, q] = value
            step = -np.linalg.solve(h_KK, gradient)
            # Damped, for the cube moves under the step.
            a_KQ += np.clip(step, -1, 1) * np.array(
                [
                    [1.0 if turn == 0 else 0.7 if (k, q) in self.free else 0.0 for q in range(3)]
                    for k in range(len(a_KQ))
                ]
            )
            for k, name in enumerate(self.names):
                if name not in LAWS_OF_SIZE:
                    a_KQ[k, 1:] = 0.0
        floor_J = np.zeros(len(self.sizes))
        floor_J[cells] = constants
        return a_KQ, h_KK, cube, floor_J
