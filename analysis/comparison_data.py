"""What the figure of two or more recipes shows, once: their runs and frontiers, and what compute each is worth.

Every recipe ("arm") was swept and fitted by itself; the first is what the others are held against. C training FLOPs;
losses are nats a token, or bits a byte where tokenizers differ. Bounds that no compute reaches are infinite.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.figure_data import Band
from analysis.study_view import FLOPS_COLUMN, PARAMS_COLUMN, StudyView
from scaling.comparison import Arm, Comparison, compare
from scaling.errors import UserError
from scaling.fit import Fit
from scaling.record import Interval

__all__ = ["ArmComparison", "ArmRuns", "ComparedArm", "Multiplier", "arm_of", "compare_arms", "compare_views",
           "runs_of_fit", "runs_of_table"]  # fmt: skip

Floats = NDArray[np.float64]

_LINE_POINTS = 25
"""Computes at which the arms are compared; each takes some sixty forecasts."""
_BEYOND = 10.0
"""Without a target, the comparison goes so many times beyond the largest run."""


@dataclass(frozen=True)
class ArmRuns:
    """The runs of one arm; losses in nats a token."""

    params: Floats
    flops: Floats
    loss: Floats
    held_out: NDArray[np.bool_]


@dataclass(frozen=True)
class ComparedArm:
    name: str
    runs: ArmRuns
    """Their losses in the comparison's unit."""
    fitted_flops: tuple[float, float]
    frontier: Band
    """The loss of its compute-optimal runs, without the noise of a single run."""


@dataclass(frozen=True)
class Multiplier:
    """Compute the first arm needs for the loss of ``name``, over that arm's own: above 1 where ``name`` is better."""

    name: str
    band: Band
    comparisons: tuple[Comparison, ...]
    """What each point of the band comes from."""
    target: Comparison | None
    """The same at the target."""


@dataclass(frozen=True)
class ArmComparison:
    unit: str
    """``nats per token`` or ``bits per byte``."""
    level: float
    arms: tuple[ComparedArm, ...]
    multipliers: tuple[Multiplier, ...]
    """One for each arm but the first."""
    target_flops: float | None

    @property
    def fitted_flops(self) -> tuple[float, float]:
        """The compute that every arm has runs of, or touching bounds where they share none."""
        low = max(arm.fitted_flops[0] for arm in self.arms)
        return low, max(low, min(arm.fitted_flops[1] for arm in self.arms))


def arm_of(view: StudyView) -> Arm:
    """A study as one arm; its tokenizer and the bytes a token stands for are those of its runs."""
    rows = view.observations[view.observations["status"] == "finished"]
    keys = sorted({str(key) for key in rows["tokenizer_key"] if str(key)})
    bytes_per_token = (rows["loss_nats"] / (rows["bits_per_byte"] * math.log(2))).median()
    known = math.isfinite(bytes_per_token) and bytes_per_token > 0
    return Arm(view.name, view.fit, keys[0] if len(keys) == 1 else None, float(bytes_per_token) if known else None)


def runs_of_table(observations: pd.DataFrame, fit: Fit) -> ArmRuns:
    """The finished runs of a study's table, counted as its fit counts."""
    rows = observations[observations["status"] == "finished"]
    names = PARAMS_COLUMN[fit.params_convention], FLOPS_COLUMN[fit.flops_convention], "loss_nats"
    params, flops, loss = (rows[name].to_numpy(dtype=np.float64) for name in names)
    return ArmRuns(params, flops, loss, (rows["role"] == "hold-out").to_numpy(dtype=bool))


def runs_of_fit(fit: Fit) -> ArmRuns:
    """The runs that a fit keeps, at the compute its own FLOPs a parameter and token give them."""
    params, tokens, loss = np.array(fit.drift.runs, dtype=np.float64).reshape(-1, 3).T
    return ArmRuns(params, fit.flops_per_param_token * params * tokens, loss, np.zeros(len(loss), dtype=bool))


def compare_views(views: Sequence[StudyView], target_flops: float | None = None) -> ArmComparison:
    """Studies side by side; without a target, out to the smallest that their recommendations name, if it lies within
    the range of advice. Raises :class:`UserError` where they can't be compared (``scaling.comparison``)."""
    if target_flops is None:
        named = [view.target_flops for view in views if view.recommendation and not view.recommendation.illustration]
        target_flops = min((flops for flops in named if flops is not None), default=None)
    return compare_arms(
        [arm_of(view) for view in views], [runs_of_table(view.observations, view.fit) for view in views], target_flops
    )


def compare_arms(arms: Sequence[Arm], runs: Sequence[ArmRuns], target_flops: float | None = None) -> ArmComparison:
    """Each arm against the first along the compute of their runs, and beyond them to ``target_flops``.

    Raises :class:`UserError` with fewer than two arms, or where two of them can't be compared.
    """
    if len(arms) < 2:
        raise UserError(f"there is {len(arms)} study to compare: give two or more")
    first, *others = arms
    lowest = min(arm.fit.fitted_range.flops[0] for arm in arms)
    highest = max(arm.fit.fitted_range.flops[1] for arm in arms)
    flops = np.geomspace(lowest, max(target_flops or highest * _BEYOND, highest), _LINE_POINTS)
    along = [tuple(compare(first, other, float(each)) for each in flops) for other in others]
    in_bits = any(told[0].unit != "nats" for told in along)
    # Arms of the first one's tokenizer are compared with it without knowing its bytes.
    scales = [
        1 / ((arm.bytes_per_token or first.bytes_per_token or 1) * math.log(2)) if in_bits else 1.0 for arm in arms
    ]
    frontiers = [_band(flops, [told.loss_first for told in along[0]], _scale(along[0], in_bits, scales[0]))]
    frontiers += [
        _band(flops, [told.loss_second for told in each], _scale(each, in_bits, scale))
        for each, scale in zip(along, scales[1:], strict=True)
    ]
    return ArmComparison(
        unit="bits per byte" if in_bits else "nats per token",
        level=first.fit.level,
        arms=tuple(
            ComparedArm(arm.name, _scaled(own, scale), arm.fit.fitted_range.flops, frontier)
            for arm, own, scale, frontier in zip(arms, runs, scales, frontiers, strict=True)
        ),
        multipliers=tuple(
            Multiplier(
                other.name,
                _band(flops, [told.compute_multiplier for told in each], 1.0),
                each,
                None if target_flops is None else compare(first, other, target_flops),
            )
            for other, each in zip(others, along, strict=True)
        ),
        target_flops=target_flops,
    )


def _scale(told: Sequence[Comparison], in_bits: bool, scale: float) -> float:
    """Two arms of one tokenizer are compared in nats even where a third has another."""
    return scale if in_bits and told[0].unit == "nats" else 1.0


def _scaled(runs: ArmRuns, scale: float) -> ArmRuns:
    return ArmRuns(runs.params, runs.flops, runs.loss * scale, runs.held_out)


def _band(flops: Floats, intervals: Sequence[Interval], scale: float) -> Band:
    return Band(
        flops,
        np.array([each.estimate for each in intervals]) * scale,
        np.array([-np.inf if each.low is None else each.low for each in intervals]) * scale,
        np.array([np.inf if each.high is None else each.high for each in intervals]) * scale,
    )
