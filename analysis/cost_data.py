"""What the figure of cost shows, once: what a budget buys around the target, and how much the size may differ for it.

Loss in nats a token of the run that is placed as the recommendation places it; GPU-hours and dollars follow from FLOPs
by the recommendation's accelerator, utilisation and price, which are taken as the same at every budget.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.figure_data import Band
from analysis.study_view import StudyView
from scaling.allocation import allocate, flat_region
from scaling.errors import UserError
from scaling.record import Interval

__all__ = ["SHARES", "Cost", "CostOfHardware", "Step", "cost"]

Floats = NDArray[np.float64]

SHARES = (0.003, 0.01, 0.03)
"""Losses above the best that count as lost: what no sweep tells apart, a per cent, and three."""
_AROUND = 100.0
"""So many times the target's compute below and above it."""
_FACTORS = (0.1, 0.5, 2.0, 10.0)
_POINTS = 31
_LEAST_USD = 0.01
"""A target that costs less is a toy's, and has no axis of dollars."""
_FEWEST_ORDERS_BEYOND = 1.5
"""Without a recommendation, the figure goes so many orders of magnitude beyond the largest fitted run."""


@dataclass(frozen=True)
class CostOfHardware:
    accelerator: str
    gpu_hours_per_flop: float
    usd_per_flop: float


@dataclass(frozen=True)
class Step:
    """The target's budget times ``factor``: the loss there, and what it differs by."""

    factor: float
    flops: float
    loss: float
    difference: float


@dataclass(frozen=True)
class Cost:
    level: float
    loss: Band
    """Over compute; infinite bounds are NaN."""
    params: Band
    """N* over compute."""
    regions: tuple[tuple[float, Floats, Floats], ...]
    """(share, low, high): sizes whose loss at each compute is within the share of the best; empty where the law says
    nothing of it."""
    target_flops: float | None
    target_loss: Interval | None
    target_params: Interval | None
    steps: tuple[Step, ...]
    """Empty without a target."""
    hardware: CostOfHardware | None


def cost(view: StudyView) -> Cost | None:
    """None where the fit predicts no loss."""
    fit, made = view.fit, view.recommendation
    if fit.parametric.status != "ok" or fit.drift.status != "ok":
        return None
    per_token = fit.flops_per_param_token
    largest = fit.fitted_range.flops[1]
    span = largest / 3, largest * 10**_FEWEST_ORDERS_BEYOND
    if made is not None:
        # What a token costs the recommended size, where the fitted models' embeddings and attention weigh less.
        per_token = made.flops / (made.params.estimate * made.tokens.estimate)
        span = made.flops / _AROUND, made.flops * _AROUND
    flops = np.geomspace(*span, _POINTS)

    def placed(at: float) -> tuple[Interval, Interval]:
        told = allocate(fit, at, flops_per_token=lambda size: per_token * size)
        if told.loss is None:
            raise UserError("this fit places a run without a loss")
        return told.params, told.loss

    told = [placed(float(at)) for at in flops]
    steps: list[Step] = []
    if made is not None:
        here = placed(made.flops)[1].estimate
        for factor in _FACTORS:
            there = placed(made.flops * factor)[1].estimate
            steps.append(Step(factor, made.flops * factor, there, there - here))
    return Cost(
        level=fit.level,
        loss=Band.of(flops, [loss for _, loss in told]),
        params=Band.of(flops, [params for params, _ in told]),
        regions=_regions(view, flops, per_token),
        target_flops=None if made is None else made.flops,
        target_loss=None if made is None else made.loss,
        target_params=None if made is None else made.params,
        steps=tuple(steps),
        hardware=_hardware(view),
    )


def _regions(view: StudyView, flops: Floats, per_token: float) -> tuple[tuple[float, Floats, Floats], ...]:
    found = []
    for share in SHARES:
        sizes = [flat_region(view.fit, float(at), share, flops_per_token=lambda n: per_token * n) for at in flops]
        known = [each for each in sizes if each is not None]
        if len(known) == len(sizes):
            low, high = np.array(known, dtype=np.float64).T
            found.append((share, low, high))
    return tuple(found)


def _hardware(view: StudyView) -> CostOfHardware | None:
    made = view.recommendation
    if made is None or made.cluster is None:
        return None
    cluster = made.cluster
    if cluster.usd.estimate < _LEAST_USD:
        return None
    return CostOfHardware(
        cluster.accelerator, cluster.gpu_hours.estimate / made.flops, cluster.usd.estimate / made.flops
    )
