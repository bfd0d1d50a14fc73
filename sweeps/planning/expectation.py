"""What a plan promises before anything runs: the interval of the answer that its design will buy, beside others."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from pydantic import Field

from scaling.cluster_wanted import DEFAULT_ACCELERATOR, ClusterWanted
from scaling.cost.energy import DEFAULT_REGION
from scaling.design.design import Design
from scaling.design.expected import Alternative, ExpectedInterval, expected_interval
from scaling.design.family import Family
from scaling.design.isoflop import budgets_for, isoflop_design
from scaling.design.law_prior import LawPrior
from scaling.errors import UserError
from scaling.limits import Limits
from scaling.record import Record
from scaling.target import Target
from scaling.target_flops import target_of
from sweeps.study import Study

__all__ = ["Expectation", "expectation", "planning_prior", "planning_target", "question_flops", "question_target"]

FURTHEST = 1000.0
"""A target beyond so many times the sweep's compute is planned for as if it were that near: no design narrows the
answer there, and the drift alone would decide."""
ISOFLOP_SHAPES = ((5, 7, 4.0, 16 ** (1 / 6)), (4, 5, 2.2, 1.7))
"""Lines, runs a line, ratio of budgets and of sizes: the usual ones, and those of a study too small for them."""


class Expectation(Record):
    """The expected interval at ``target_flops`` under ``prior``, for runs whose log loss has an SD of ``noise``."""

    asked_flops: float
    target_flops: float = Field(description="what was asked for, or a thousand times the sweep's compute")
    noise: float
    prior: str
    planned: ExpectedInterval
    alternatives: tuple[Alternative, ...]


def question_target(study: Study) -> Target:
    """What the study asks for, as far as it is known before anything is trained: the MFU is a wide model's."""
    asked = study.question
    wanted = ClusterWanted(
        accelerator=asked.accelerator or DEFAULT_ACCELERATOR, gpus=asked.gpus, region=asked.region or DEFAULT_REGION,
        power_cap_kw=asked.power_cap_kw,
    )  # fmt: skip
    return target_of(
        None, wanted, Limits(), flops=asked.flops, days=asked.days, usd=asked.usd, kwh=asked.kwh, tco2e=asked.tco2e
    )  # fmt: skip


def question_flops(study: Study) -> float:
    return question_target(study).flops


def planning_target(study: Study, sweep_flops: float) -> float:
    return min(question_flops(study), FURTHEST * sweep_flops)


def planning_prior(sweep_flops: float) -> LawPrior:
    """Laws that are plausible for runs of a tenth of the sweep's compute: its larger ones."""
    return LawPrior.plausible(sweep_flops / 10)


def expectation(study: Study, design: Design, family: Family, again: Callable[[float], Design] | None) -> Expectation:
    """What ``design`` will tell, and what iso-FLOP lines of its compute and twice its compute (``again``) would."""
    target, prior, noise = planning_target(study, design.flops), planning_prior(design.flops), study.design.noise

    def told(name: str, lay_out: Callable[[], Design]) -> Alternative:
        try:
            return Alternative(name=name, expected=expected_interval(lay_out(), prior, target, noise))
        except UserError as error:
            return Alternative(name=name, expected=None, reason=str(error))

    def lines(shape: tuple[int, int, float, float]) -> Design:
        count, sizes, ratio, step = shape
        return isoflop_design(
            family,
            budgets=budgets_for(design.flops, count, ratio, sizes),
            sizes_per_budget=sizes,
            tokens_per_param_centre=design.tokens_per_param_centre,
            size_step=step,
        )

    beside = []
    if design.kind != "isoflop":
        asked = [told(f"{s[0]} iso-FLOP lines of {s[1]} runs, same compute", partial(lines, s)) for s in ISOFLOP_SHAPES]
        beside.append(next((each for each in asked if each.expected is not None), asked[0]))
    if again is not None:
        plan = again
        beside.append(told("with twice the compute", lambda: plan(2 * design.flops)))
    return Expectation(
        asked_flops=question_flops(study),
        target_flops=target,
        noise=noise,
        prior=prior.source,
        planned=expected_interval(design, prior, target, noise),
        alternatives=tuple(beside),
    )
