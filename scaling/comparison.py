"""Which of two recipes is better, and by how much: two fits at one target compute.

The recipes differ in one thing (architecture, optimiser, tokenizer, data); each was swept and fitted by itself. What is
asked is the loss that each reaches with the same compute at its own optimum, and the compute multiplier: how many times
the second's compute the first needs to reach the second's loss, above 1 where the second is better. That one number is
what a change of recipe is worth; "compute-equivalent gain" elsewhere (Davidson et al. 2312.07413).

Both fits are taken as independent. What drifts away from the law (``scaling.fits.drift``) may do so in both alike, as
recipes of one family do, and the intervals are then wider than need be, never narrower.

Shapes: K rows (the estimate, then draws), P constants of the law, M multiples of a compute.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from scaling.allocation.surface import LossSurface, check_positive, interval_of_rows
from scaling.errors import UserError
from scaling.fit import Fit
from scaling.fits.averaged import Averaged
from scaling.fits.drift import Predictive
from scaling.laws.law import FloatArray, LossLaw
from scaling.prediction import fitted_law
from scaling.quantity import format_flops
from scaling.record import Interval, Record

__all__ = ["Arm", "Comparison", "compare"]

_SEED = 0
_DRAWS = 4000
_MULTIPLES = 61
"""Twenty to a factor of ten."""


@dataclass(frozen=True)
class Arm:
    """One recipe: its name, its fit, and the bytes a token of its tokenizer stands for on the held-out text, which only
    other tokenizers ask for."""

    name: str
    fit: Fit
    tokenizer_key: str | None = None
    bytes_per_token: float | None = None


class Comparison(Record):
    """Two recipes at ``flops``; losses are nats a token, or bits a byte where tokenizers differ."""

    first: str
    second: str
    flops: float
    level: float
    unit: str
    loss_first: Interval
    loss_second: Interval
    loss_difference: Interval
    """Second less first: below 0 where the second is better."""
    compute_multiplier: Interval
    """Compute the first needs for the second's loss, over the second's; None as a bound where no compute suffices."""
    multiplier_if_laws_hold: Interval | None
    """The same from the laws alone, without what may drift away from them; None where one can't be used there."""
    share_second_better: float
    """Of the draws."""
    beyond_orders: float
    """How many orders of magnitude the target lies above the less far reaching of the two sweeps."""

    @property
    def decided(self) -> bool:
        """Whether the interval leaves no doubt which is better."""
        return self.share_second_better <= (1 - self.level) / 2 or self.share_second_better >= (1 + self.level) / 2

    def summary(self) -> str:
        gain, multiplier = self.loss_difference, self.compute_multiplier
        better, worse = (self.second, self.first) if gain.estimate < 0 else (self.first, self.second)
        lines = [f"at {format_flops(self.flops)}, each at its own optimum ({self.level:.0%} intervals):"]
        wide = max(len(self.first), len(self.second))
        lines += [
            f"  {name:<{wide}}  {loss.estimate:.4f} [{_bound(loss.low)}, {_bound(loss.high)}] {self.unit}"
            for name, loss in ((self.first, self.loss_first), (self.second, self.loss_second))
        ]
        lines.append(
            f"  {self.second} less {self.first}: {gain.estimate:+.4f} "
            f"[{_bound(gain.low, '+.4f')}, {_bound(gain.high, '+.4f')}]"
        )
        lines.append(
            f"  {self.first} needs {_times(multiplier.estimate)} the compute for {self.second}'s loss "
            f"[{_times(multiplier.low)}, {_times(multiplier.high)}]"
        )
        if self.decided:
            lines.append(f"{better} is better than {worse}")
        else:
            lines.append(
                f"not decided: {self.second} is better in {self.share_second_better:.0%} of the draws. More runs of "
                "both, of more compute, would tell"
            )
        if self.beyond_orders > 1:
            lines.append(f"! the target lies {self.beyond_orders:.1f} orders of magnitude beyond the runs")
        return "\n".join(lines)


def compare(first: Arm, second: Arm, flops: float) -> Comparison:
    """``second`` against ``first`` at ``flops``, under the way of counting FLOPs that both fits share.

    Raises :class:`UserError` where a fit has no law, where parameters or FLOPs are counted in two ways, or where the
    tokenizers differ and how many bytes a token stands for isn't known.
    """
    check_positive("flops", flops, "1e21")
    one, other = first.fit, second.fit
    for what in ("flops_convention", "params_convention"):
        counted = getattr(one.observations, what), getattr(other.observations, what)
        if counted[0] != counted[1]:
            raise UserError(
                f"{what} is {counted[0]} in {first.name} and {counted[1]} in {second.name}: fit both under one of them"
            )
    if one.level != other.level:
        raise UserError(f"level is {one.level:g} in {first.name} and {other.level:g} in {second.name}: use one level")
    unit, scales = _unit(first, second)
    frontiers = [_Frontier.of(arm) for arm in (first, second)]
    rng = np.random.default_rng(_SEED)
    ln_loss = [math.log(scale) + frontier.drawn(flops, rng) for frontier, scale in zip(frontiers, scales, strict=True)]
    losses = [np.exp(each_K) for each_K in ln_loss]
    difference_K = losses[1] - losses[0]
    return Comparison(
        first=first.name,
        second=second.name,
        flops=flops,
        level=one.level,
        unit=unit,
        loss_first=interval_of_rows(losses[0], one.level),
        loss_second=interval_of_rows(losses[1], one.level),
        loss_difference=interval_of_rows(difference_K, one.level),
        compute_multiplier=interval_of_rows(frontiers[0].multiple(flops, ln_loss[1] - ln_loss[0]), one.level),
        multiplier_if_laws_hold=_by_laws(first, second, scales, flops),
        share_second_better=float(np.mean(difference_K[1:] < 0)),
        beyond_orders=max(0.0, math.log10(flops / min(arm.fit.fitted_range.flops[1] for arm in (first, second)))),
    )


@dataclass(frozen=True)
class _Frontier:
    """ln L of compute-optimal runs by a law and its drift, as forecasts are made (``scaling.prediction``)."""

    law: LossLaw
    theta_P: FloatArray
    drift: Averaged
    flops_per_param_token: float

    @classmethod
    def of(cls, arm: Arm) -> _Frontier:
        try:
            law, theta_P, _ = fitted_law(arm.fit)
        except UserError as error:
            raise UserError(f"{arm.name}: {error}") from None
        return cls(law, theta_P, arm.fit.drift.model, arm.fit.flops_per_param_token)

    def told(self, flops: float) -> Predictive:
        params, tokens = self.law.optimum(self.theta_P, flops, self.flops_per_param_token)
        return self.drift.predictive(float(params), float(tokens), noise=False)

    def drawn(self, flops: float, rng: np.random.Generator) -> FloatArray:
        """ln L (K,) without the noise of a single run: the mean, then draws."""
        told = self.told(flops)
        which = rng.choice(len(told.weight_K), size=_DRAWS, p=told.weight_K / told.weight_K.sum())
        draws = told.mean_K[which] + np.sqrt(told.variance_K[which]) * rng.standard_normal(_DRAWS)
        return np.concatenate(([told.mean], draws))

    def multiple(self, flops: float, change_K: FloatArray) -> FloatArray:
        """How many times ``flops`` change ln L by ``change_K``; infinite, or 0, beyond a factor of a thousand."""
        multiples_M = np.geomspace(1e-3, 1e3, _MULTIPLES)
        change_M = np.array([self.told(flops * multiple).mean for multiple in multiples_M]) - self.told(flops).mean
        # Falls with compute; where a drift turned it upwards, the lowest so far is what more compute can have.
        falling_M = np.minimum.accumulate(change_M)
        return np.exp(np.interp(-change_K, -falling_M, np.log(multiples_M), left=-math.inf, right=math.inf))


def _unit(first: Arm, second: Arm) -> tuple[str, tuple[float, float]]:
    """The unit both losses are told in, and what turns each fit's nats a token into it."""
    if first.tokenizer_key == second.tokenizer_key:
        return "nats", (1.0, 1.0)
    scales = []
    for arm in (first, second):
        if arm.bytes_per_token is None:
            raise UserError(
                f"{first.name} and {second.name} have other tokenizers, so their nats a token can't be compared, and "
                f"how many bytes a token of {arm.name} stands for is not known"
            )
        scales.append(1 / (arm.bytes_per_token * math.log(2)))
    return "bits a byte", (scales[0], scales[1])


def _by_laws(first: Arm, second: Arm, scales: tuple[float, float], flops: float) -> Interval | None:
    """The multiplier from the laws alone; None where one of them can't be used away from its runs."""
    if LossSurface.refusal(first.fit) or LossSurface.refusal(second.fit):
        return None
    one, other = (LossSurface.of(arm.fit, arm.fit.flops_per_param_token) for arm in (first, second))
    rows = min(len(one.theta_KP), len(other.theta_KP))
    # Draws of two fits of one seed would be of the same resamples: pairs are shuffled.
    shuffled = np.concatenate(([0], 1 + np.random.default_rng(_SEED).permutation(len(other.theta_KP) - 1)))[:rows]
    one = LossSurface(one.theta_KP[:rows], one.level, one.flops_per_param_token)
    other = LossSurface(other.theta_KP[shuffled], other.level, other.flops_per_param_token)
    wanted_K = other.optimal_loss(flops) * (scales[1] / scales[0])
    return one.interval(one.flops(*one.cheapest(wanted_K)) / flops)


def _bound(value: float | None, form: str = ".4f") -> str:
    return "none" if value is None else format(value, form)


def _times(value: float | None) -> str:
    return "without bound" if value is None else f"{value:.2f}x"
