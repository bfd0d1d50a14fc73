"""From the study's design settings to the runs of a design, for some FLOPs together."""

from __future__ import annotations

from pathlib import Path

from scaling.design.design import Design
from scaling.design.family import Family
from scaling.design.grids import csv_design, curves_design, grid_design, ratio_design
from scaling.design.isoflop import budgets_for, isoflop_design
from scaling.errors import UserError
from sweeps.budget import Budget
from sweeps.design_settings import CsvDesign, CurvesDesign, GridDesign, IsoflopSettings, RatioDesign
from sweeps.study import Study

__all__ = ["check_given", "family_of_study", "is_given", "lay_out"]


def family_of_study(study: Study) -> Family:
    model = study.model
    return Family(
        model.architecture,
        study.corpus.vocabulary,
        model.context,
        model.tied,
        study.hyperparameters.global_batch_tokens,
    )


def is_given(study: Study) -> bool:
    """Whether the runs stand in the study as they are, so that the budget only says what they may cost."""
    return isinstance(study.design, GridDesign | CsvDesign)


def lay_out(study: Study, total_flops: float) -> Design:
    """The study's runs for ``total_flops`` together; a grid and a table are what they are."""
    wanted, family = study.design, family_of_study(study)
    match wanted:
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
    raise UserError(f"design.kind is {wanted.kind!r}: it can't be laid out yet; choose isoflop")


def check_given(design: Design, cost_in_unit: float, budget: Budget) -> None:
    """:class:`UserError` if the runs that the study names cost more than its budget."""
    if cost_in_unit > budget.amount:
        raise UserError(
            f"budget.{budget.unit} is {budget.amount:g}, and the {len(design.points)} runs of this {design.kind} cost "
            f"{cost_in_unit:.4g}: allow more, or name fewer runs"
        )
