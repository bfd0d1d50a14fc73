"""From a fit that was refused, or that is too wide, to the runs that would settle it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import partial

from scaling import architectures
from scaling.accounting import Accounting
from scaling.design.design import Design, DesignPoint
from scaling.design.family import FEWEST_STEPS, Family
from scaling.design.information import Limits, information_design
from scaling.design.law_prior import LawPrior
from scaling.errors import UserError
from scaling.fit import Fit, ProposedRun
from scaling.shape import ModelShape

__all__ = ["cure_design"]

_SHARE_OF_FITTED = 0.5
"""Of what the fitted runs cost, what runs that only narrow the answer may cost where no budget is given."""


def cure_design(
    fit: Fit,
    family: Family,
    *,
    target_flops: float,
    noise: float,
    budget: float | None = None,
    cooldown: float | None = None,
    limits: Limits | None = None,
    trained: Sequence[DesignPoint] | None = None,
) -> Design:
    """The runs that ``fit``'s diagnostics ask for, as real shapes of ``family`` and whole batches; where they ask for
    none, or such as ``family`` has no shapes for, the runs that narrow the loss and N* at ``target_flops`` most for
    ``budget`` FLOPs (half of what the fitted runs cost by default), given those that were fitted: ``trained``, if they
    are known as runs of the family.

    Raises :class:`UserError` where the cure costs more than ``budget``, or it holds no run.
    """
    asked = _asked_for(fit)
    points = _as_points(fit, family, asked) if asked else None
    if points is not None:
        ratio = math.exp(sum(math.log(p.tokens / p.params.total) for p in points) / len(points))
        cure = Design(
            kind="cure", points=points, tokens_per_param_centre=ratio, global_batch_tokens=family.global_batch_tokens
        )
        if budget is not None and cure.flops > budget:
            raise UserError(
                f"the {len(points)} runs that the fit asks for cost {cure.flops:.3g} FLOPs, the budget is "
                f"{budget:.3g}: allow more"
            )
        return cure
    if trained is None:
        fitted = tuple(ProposedRun(params=params, tokens=tokens) for params, tokens, _ in fit.drift.runs)
        trained = _as_points(fit, family, fitted) or ()
    known = fit.parametric.status == "ok"
    narrower = information_design(
        family,
        budget or _SHARE_OF_FITTED * sum(point.flops for point in trained),
        target_flops=target_flops,
        prior=LawPrior.of_fit(fit) if known else LawPrior.plausible(max(fit.fitted_range.flops)),
        noise=noise,
        cooldown=cooldown,
        limits=limits or Limits(largest_share=1.0),
        replicates=0,
        trained=trained,
    )
    if not narrower.points:
        raise UserError(f"a budget of {budget or 0:.3g} FLOPs holds no run that would narrow the answer: allow more")
    return narrower.model_copy(update={"kind": "cure"})


def _asked_for(fit: Fit) -> tuple[ProposedRun, ...]:
    """The runs of all refusals' cures; of the warnings' where nothing is refused."""
    cured = [found for found in fit.diagnostics if found.cure is not None]
    refused = [found for found in cured if found.severity == "refusal"]
    return tuple(run for found in refused or cured if found.cure for run in found.cure.runs)


def _as_points(fit: Fit, family: Family, runs: tuple[ProposedRun, ...]) -> tuple[DesignPoint, ...] | None:
    """Each run with the shape nearest to its size, as the fit counts sizes; those of one shape have seeds of their
    own. None where a run is smaller than the family's smallest shape: another shape would not do what it is for."""
    shape_for = architectures.get(family.architecture).shape_for
    sized = partial(shape_for, vocabulary=family.vocabulary, context=family.context, tied=family.tied)
    middle = math.exp(sum(math.log(run.params) for run in runs) / len(runs))
    seen: Counter[ModelShape] = Counter()
    points = []
    try:
        accounting = Accounting(fit, lambda total: sized(total), middle)
        shapes = [family.shape(accounting.total(run.params)) for run in runs]
    except (UserError, ValueError):
        return None
    for run, shape in zip(runs, shapes, strict=True):
        tokens = max(run.tokens, float(FEWEST_STEPS * family.global_batch_tokens))
        points.append(family.run(shape, tokens, replicate=seen[shape]))
        seen[shape] += 1
    return tuple(points)
