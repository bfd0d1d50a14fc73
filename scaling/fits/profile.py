"""Profile likelihoods: how much worse the fit gets when one quantity is held and everything else is fitted again.

    excess(q) = min over constants with quantity = q of the objective, less its minimum

Where a Wald interval draws a parabola through the curvature at the estimate, the profile follows the valley: it bends
where the law is bent, and where the runs say nothing it stays flat and the interval has no end. It ends where

    excess = ½ · (E ψ² / E ψ') · t²,   t the Student quantile with n − p degrees of freedom

(Huber & Ronchetti 2009, section 13.3; the ratio is taken at the robust scale of the residuals).

A constant of the law is held by a box of no width, a derived quantity by taking a constant's place (``quantities.py``).

Shapes: n points, P constants, K problems, m values of the profile.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from scaling.fits.estimate import Estimate
from scaling.fits.huber import solve_huber
from scaling.fits.linearised import Linearised, linearise
from scaling.fits.quantities import InPlaceOf, Quantity, constant, has_one_exponent, log_loss_at, n_exponent
from scaling.laws.law import Box, FloatArray, Law

__all__ = ["Profile", "profile", "profiles"]

_FIRST_REACH = 4.0
"""Standard errors to either side of the estimate; doubled until the interval ends or the box does."""
_MOST_DOUBLINGS = 5
_STEPS = 9
"""Values to a side, at each reach."""
_WIDEST = 20.0
"""How far an exponent or the log of a loss is followed, at most."""
_MOST_REFINEMENTS = 2
_FINE = 3.0
"""The step in which the threshold is passed is divided until it rises to no more than this many thresholds."""


@dataclass(frozen=True)
class Profile:
    """The excess objective along one quantity; ``low`` and ``high`` end its interval, None where nothing ends it."""

    name: str
    estimate: float
    values: FloatArray
    """Rising, (m,); the estimate is among them."""
    excess: FloatArray
    """(m,), at least 0; infinite where no constants give the value."""
    threshold: float
    """The excess at which the interval of ``level`` ends."""
    level: float
    low: float | None
    high: float | None

    @property
    def flat(self) -> bool:
        """Whether the runs leave the quantity without a bound on a side."""
        return self.low is None or self.high is None


def profile(
    found: Estimate,
    inputs: tuple[FloatArray, ...],
    value: FloatArray,
    delta: float,
    quantity: Quantity,
    *,
    level: float = 0.9,
    plane: Linearised | None = None,
) -> Profile:
    """The profile of ``quantity`` around the estimate ``found`` of runs ``inputs`` and ``value``, (n,) each.

    Values reach four standard errors to either side, further where the interval does not end there.
    """
    plane = plane or linearise(found, inputs, delta)
    centre_1, gradient_1P = quantity.evaluate(found.free[None])
    centre, gradient_P = float(centre_1[0]), gradient_1P[0]
    solver = _Held(found, inputs, value, delta, quantity, plane)
    error = float(plane.standard_error(gradient_P))
    widest = solver.widest(error)
    threshold = 0.5 * plane.objective_unit * float(stdtrit(plane.spare, (1 + level) / 2)) ** 2
    sides = [
        _followed(solver, centre, side, min(_FIRST_REACH * error, widest[side]), widest[side], threshold)
        for side in (-1.0, 1.0)
    ]
    values = np.concatenate([sides[0][0][::-1], [centre], sides[1][0]])
    excess = np.concatenate([sides[0][1][::-1], [0.0], sides[1][1]])
    excess = excess - min(0.0, float(excess.min()))
    at = int(np.argmin(excess))
    low = _end(values[: at + 1][::-1], excess[: at + 1][::-1], threshold)
    high = _end(values[at:], excess[at:], threshold)
    scale = np.exp if quantity.log else np.asarray
    return Profile(
        name=quantity.name,
        estimate=float(scale(centre)),
        values=np.asarray(scale(values)),
        excess=excess,
        threshold=threshold,
        level=level,
        low=None if low is None else float(scale(low)),
        high=None if high is None else float(scale(high)),
    )


def _followed(
    solver: _Held, centre: float, side: float, reach: float, widest: float, threshold: float
) -> tuple[FloatArray, FloatArray]:
    """Values away from ``centre`` on one ``side``, nearest first, and their excess: until it passes ``threshold``, the
    step in which it does made fine."""
    away, excess, free_KP = np.zeros(1), np.zeros(1), solver.found.free[None]

    def add(steps: FloatArray, after: int) -> None:
        nonlocal away, excess, free_KP
        start_at = centre + side * float(away[after])
        more, more_KP = solver.excess(centre + side * steps, start_at, free_KP[after])
        order = np.argsort(np.append(away, steps), kind="stable")
        away, excess = np.append(away, steps)[order], np.append(excess, more)[order]
        free_KP = np.concatenate((free_KP, more_KP))[order]

    for _ in range(_MOST_DOUBLINGS + 1):
        if reach <= away[-1]:
            break
        add(np.linspace(float(away[-1]), reach, _STEPS + 1)[1:], len(away) - 1)
        if excess.max() > threshold:
            break
        reach = min(2 * reach, widest)
    for _ in range(_MOST_REFINEMENTS):
        passed = np.flatnonzero(excess > threshold)
        if not passed.size or excess[passed[0]] < _FINE * threshold:
            break
        inner, outer = int(passed[0]) - 1, int(passed[0])
        add(np.linspace(float(away[inner]), float(away[outer]), _STEPS + 1)[1:-1], inner)
    return centre + side * away[1:], excess[1:]


def profiles(
    found: Estimate,
    inputs: tuple[FloatArray, FloatArray],
    value: FloatArray,
    delta: float,
    *,
    target: tuple[float, float],
    level: float = 0.9,
) -> tuple[Profile, ...]:
    """The exponents and E of a law of loss, the exponent of N* where one holds at every compute, and the loss at
    ``target`` (N, D)."""
    plane = linearise(found, inputs, delta)
    names = [parameter.name for parameter in found.law.parameters if not parameter.log]
    names += [name for name in ("E",) if name in found.law.NAMES]
    quantities = [constant(found, name) for name in names]
    if has_one_exponent(found):
        quantities.append(n_exponent(found))
    quantities.append(log_loss_at(found, *target))
    return tuple(profile(found, inputs, value, delta, each, level=level, plane=plane) for each in quantities)


class _Held:
    """Solves the fit with ``quantity`` held at each of many values."""

    def __init__(
        self,
        found: Estimate,
        inputs: tuple[FloatArray, ...],
        value: FloatArray,
        delta: float,
        quantity: Quantity,
        plane: Linearised,
    ) -> None:
        self.found, self.delta, self.quantity = found, delta, quantity
        self.ln_inputs_Vn = found.centred(*inputs)
        self.target_n = found.law.to_response(value)
        _, gradient_1P = quantity.evaluate(found.free[None])
        variance = float(gradient_1P[0] @ plane.covariance @ gradient_1P[0])
        # Along this direction the law pays least for a change of the quantity, to first order.
        self.valley_P = plane.covariance @ gradient_1P[0] / variance if variance > 0 else 0 * gradient_1P[0]
        width_P = found.box.high - found.box.low
        self.pivot = quantity.index if quantity.index is not None else int(np.argmax(np.abs(gradient_1P[0]) * width_P))
        self.law: Law = (
            found.law if quantity.index is not None else InPlaceOf(found.law, quantity, self.pivot, found.box)
        )

    def widest(self, error: float) -> dict[float, float]:
        """How far the quantity may go below (−1) and above (+1) its estimate."""
        if self.quantity.index is None:
            return dict.fromkeys((-1.0, 1.0), min(100 * error, _WIDEST))
        here = float(self.found.free[self.pivot])
        return {
            -1.0: here - float(self.found.box.low[self.pivot]),
            1.0: float(self.found.box.high[self.pivot]) - here,
        }

    def excess(self, held_K: FloatArray, started_at: float, start_P: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The excess objective at each held value, infinite where no constants give it, and the law's coordinates there
        (K, P)."""
        box, margin_P = self.found.box, 1e-6 * (self.found.box.high - self.found.box.low)
        objective_K, free_KP = np.full(len(held_K), np.inf), np.tile(start_P, (len(held_K), 1))
        for direction_P in (self.valley_P, np.zeros_like(self.valley_P)):
            moved_KP = start_P + np.outer(held_K - started_at, direction_P)
            starts_KP = np.clip(moved_KP, box.low + margin_P, box.high - margin_P)
            starts_KP[:, self.pivot] = held_K
            possible = np.arange(len(held_K))
            if isinstance(self.law, InPlaceOf):
                possible = np.flatnonzero(self.law.inner(starts_KP)[2])
            if not possible.size:
                continue
            found_K, found_KP = self._solved(starts_KP[possible], held_K[possible])
            better = found_K < objective_K[possible]
            objective_K[possible[better]], free_KP[possible[better]] = found_K[better], found_KP[better]
        return objective_K - self.found.objective, free_KP

    def _solved(self, starts_KP: FloatArray, held_K: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Objectives and the law's own coordinates from these starts, the quantity held."""
        low_KP, high_KP = (np.tile(bound, (len(held_K), 1)) for bound in (self.found.box.low, self.found.box.high))
        low_KP[:, self.pivot] = high_KP[:, self.pivot] = held_K
        weights, box = np.ones(len(self.target_n)), Box(low_KP, high_KP)
        solution = solve_huber(
            self.law, starts_KP, self.ln_inputs_Vn, self.target_n, weights, self.delta, box, iterations=100,
            tolerance=1e-10,
        )  # fmt: skip
        free_KP = self.law.inner(solution.free_KP)[0] if isinstance(self.law, InPlaceOf) else solution.free_KP
        return solution.objective_K, free_KP


def _end(values: FloatArray, excess: FloatArray, threshold: float) -> float | None:
    """Where the profile, followed outwards from its least value, last crosses ``threshold``; None if it never ends.

    The root of the excess is nearly straight, so it is interpolated.
    """
    above = np.flatnonzero(excess > threshold)
    below = np.flatnonzero(excess <= threshold)
    if not above.size or below[-1] > above[-1]:
        return None
    inner = int(below[-1])
    outer = inner + 1
    if not np.isfinite(excess[outer]):
        return float(values[outer])
    root_in, root_out = math.sqrt(excess[inner]), math.sqrt(excess[outer])
    share = (math.sqrt(threshold) - root_in) / (root_out - root_in)
    return float(values[inner] + share * (values[outer] - values[inner]))
