"""From the study's design settings to the runs of a design, for some FLOPs together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from scaling.design.design import Design, DesignPoint
from scaling.design.family import Family
from scaling.design.grids import csv_design, curves_design, grid_design, ratio_design
from scaling.design.information import Limits, information_design
from scaling.design.isoflop import budgets_for, isoflop_design
from scaling.design.law_prior import LawPrior
from scaling.errors import UserError
from scaling.shape import ModelShape
from sweeps.design_settings import (
    CsvDesign,
    CurvesDesign,
    GridDesign,
    InformationDesign,
    IsoflopSettings,
    RatioDesign,
)
from sweeps.planning.budget import Budget
from sweeps.planning.expectation import planning_prior, planning_target
from sweeps.study import Study

__all__ = ["check_given", "family_of_study", "is_given", "lay_out", "rounds_of"]


def family_of_study(study: Study) -> Family:
    model = study.model
    return Family(
        model.architecture,
        study.corpus.vocabulary,
        model.context,
        model.tied,
        study.hyperparameters.global_batch_tokens,
    )


def rounds_of(study: Study) -> int:
    return study.design.rounds if isinstance(study.design, InformationDesign) else 1


def is_given(study: Study) -> bool:
    """Whether the runs stand in the study as they are, so that the budget only says what they may cost."""
    return isinstance(study.design, GridDesign | CsvDesign)


def lay_out(
    study: Study,
    total_flops: float,
    seconds: Callable[[ModelShape, int], float] | None = None,
    *,
    trained: Sequence[DesignPoint] = (),
    prior: LawPrior | None = None,
) -> Design:
    """The study's runs for ``total_flops`` together; a grid and a table are what they are.

    seconds: what a run takes here, for designs that may hold none that takes too long. trained, prior: the runs of the
    rounds before, and what they say of the law, for a design by information.
    """
    wanted, family = study.design, family_of_study(study)
    match wanted:
        case InformationDesign():
            most = wanted.minutes_per_run
            within = None
            if most is not None and seconds is not None:
                within = partial(_within_minutes, seconds, most)
            return information_design(
                family,
                total_flops,
                target_flops=planning_target(study, total_flops * wanted.rounds),
                prior=prior or planning_prior(total_flops * wanted.rounds),
                noise=wanted.noise,
                cooldown=study.hyperparameters.cooldown if wanted.branches else None,
                limits=Limits(
                    most_runs=wanted.most_runs,
                    largest_share=wanted.largest_share,
                    smallest_share=wanted.smallest_share,
                    ratio_reach=wanted.ratio_reach,
                    smallest_params=wanted.smallest_params,
                    fewest_steps=wanted.fewest_steps,
                    admissible=within,
                ),
                # Old trunks stay closed: a new branch would have another warm-up, and its checkpoint may be gone.
                trained=trained,
            )
        case IsoflopSettings():
            return isoflop_design(
                family,
                budgets=budgets_for(total_flops, wanted.budgets, wanted.ratio, wanted.sizes),
                sizes_per_budget=wanted.sizes,
                tokens_per_param_centre=wanted.tokens_per_param,
                size_step=wanted.size_step,
            )
        case RatioDesign():
            return ratio_design(
                family,
                total_flops,
                sizes=wanted.sizes,
                size_step=wanted.size_step,
                tokens_per_param=wanted.tokens_per_param,
            )
        case GridDesign():
            return grid_design(family, params=wanted.params, tokens=wanted.tokens)
        case CurvesDesign():
            return curves_design(
                family,
                total_flops,
                sizes=wanted.sizes,
                size_step=wanted.size_step,
                tokens_per_param=wanted.tokens_per_param,
                points=wanted.points,
                cooldown=study.hyperparameters.cooldown,
            )
        case CsvDesign():
            return csv_design(family, Path(wanted.file))


def _within_minutes(seconds: Callable[[ModelShape, int], float], most: float, shape: ModelShape, tokens: int) -> bool:
    return seconds(shape, tokens) <= 60 * most


def check_given(design: Design, cost_in_unit: float, budget: Budget) -> None:
    """:class:`UserError` if the runs that the study names cost more than its budget."""
    if cost_in_unit > budget.amount:
        raise UserError(
            f"budget.{budget.unit} is {budget.amount:g}, and the {len(design.points)} runs of this {design.kind} cost "
            f"{cost_in_unit:.4g}: allow more, or name fewer runs"
        )
