"""From a fit to the large run: size, tokens, shape, learning rate, batch, cost, and what the answer rests on."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import date
from functools import partial
from typing import Literal, NamedTuple

import numpy as np

from scaling import architectures
from scaling.accounting import Accounting
from scaling.allocation import Allocation, allocate, flat_region
from scaling.allocation.surface import LossSurface
from scaling.allocation.sweep_worth import FEWEST_DRAWS, CandidateWorth, SweepWorth, candidate_worth, sweep_worth
from scaling.cautions import ILLUSTRATION_ORDERS, cautions, drift_disagrees, over_limits
from scaling.cluster import ClusterEstimate
from scaling.cluster_wanted import DEFAULT_ACCELERATOR, ClusterWanted
from scaling.cost.energy import DEFAULT_REGION
from scaling.cost.run import cost_of_run
from scaling.errors import UserError
from scaling.fit import Fit
from scaling.hardware import accelerator as find_accelerator
from scaling.limits import Cap, Limits
from scaling.loss_band import loss_band
from scaling.model_scale import LARGE_MODEL, llama_at_scale
from scaling.post_training import post_training_stages
from scaling.prediction import predict
from scaling.published import published_optima, recipe_optima
from scaling.quantity import format_count
from scaling.recipe import Recipe, recipe_from_literature, recipe_from_study
from scaling.recommendation import Alternative, Recommendation
from scaling.record import Interval
from scaling.risk import risk_of_being_worse
from scaling.run_spec import OptimizerSpec, RunSpec, ScheduleSpec
from scaling.rungs import Rung, rung_budgets
from scaling.shape import ModelShape, ParameterCounts
from scaling.shape_by_dollars import ShapesByDollars, shapes_by_dollars
from scaling.size_choice import Pick, SizeChoice, choose_size
from scaling.study_context import StudyContext
from scaling.target import Target
from scaling.target_flops import target_of

__all__ = ["recommend"]

WIDE = 2.0
"""A factor to both sides of N* beyond which further runs are named that would narrow it."""
MOST_OF_A_RUN = 0.05
"""Of the large run's compute that one such run may take."""


class _Placed(NamedTuple):
    """Where the target's compute goes: size and tokens under the limits, and the shape of that size."""

    accounting: Accounting
    allocation: Allocation
    cap: Cap | None
    choice: SizeChoice
    shape: ModelShape

    @property
    def counts(self) -> ParameterCounts:
        return architectures.get(self.shape.architecture).count_parameters(self.shape)

    @property
    def tokens(self) -> float:
        """That the choice's FLOPs buy for this very shape."""
        return self.choice.flops / self.accounting.flops_per_token_of(self.shape)


def recommend(
    fit: Fit,
    *,
    flops: float | None = None,
    gpus: int | None = None,
    days: float | None = None,
    by: date | None = None,
    usd: float | None = None,
    kwh: float | None = None,
    tco2e: float | None = None,
    loss: float | None = None,
    accelerator: str | None = None,
    mfu: float | None = None,
    price: float | None = None,
    region: str | None = None,
    limits: Limits | None = None,
    pick: Pick = "optimum",
    stage: Literal["rung", "final"] = "final",
    study: str | None = None,
    context: StudyContext | None = None,
) -> Recommendation:
    """The run to launch for a target: ``flops``; ``gpus`` (or what ``limits.power_cap_kw`` feeds) for ``days`` or until
    a date (``by``); ``usd``; ``kwh`` or ``tco2e`` (tonnes) in a ``region``; or a ``loss`` to reach; accelerators are
    H100 by default, the grid that of the US.

    ``limits`` bound size, text, power, energy or carbon, or say how much the model will serve (``pick`` "serving" then
    takes the size that is cheapest over its life). ``pick`` "dollars" takes the shape that reaches the loss for the
    fewest dollars even where that is not settled. ``stage`` "rung" is a run on the way to another: it has none of its
    own.

    Without ``context`` (bring your own runs) the shape is a Llama's with a vocabulary of its scale, the learning rate a
    published law's where it holds, and there is no run specification. Raises :class:`UserError` where the target is
    missing, double or impossible, or the fit supports no allocation.
    """
    limits = limits or Limits()
    wanted = ClusterWanted(
        accelerator=accelerator or DEFAULT_ACCELERATOR, gpus=gpus, mfu=mfu, price=price,
        region=region or DEFAULT_REGION, power_cap_kw=limits.power_cap_kw,
    )  # fmt: skip
    target = target_of(
        fit, wanted, limits, flops=flops, days=days, by=by, usd=usd, loss=loss, kwh=kwh, tco2e=tco2e,
        shape_at=lambda flops: _shape_at(fit, flops, context),
    )  # fmt: skip
    if days is not None or by is not None:
        wanted = wanted.by_power()
    surface = LossSurface.of(fit) if LossSurface.refusal(fit) is None else None
    placed = _place(fit, target.flops, limits, wanted, pick, context)
    recipe, cluster = _configure(placed, wanted, context)
    flat = flat_region(fit, target.flops, flops_per_token=placed.accounting.flops_per_token)
    by_dollars = None
    if surface is not None and stage == "final":
        by_dollars = _by_dollars(surface, placed, flat, wanted, cluster, take=pick == "dollars")
        if by_dollars.taken:
            placed = _as_cheapest(placed, by_dollars)
            recipe, cluster = _configure(placed, wanted, context)
    return _answer(
        fit, surface, placed, recipe, cluster, context,
        study=study, stage=stage, target=target, limits=limits, flat_region=flat, by_dollars=by_dollars,
    )  # fmt: skip


def _place(
    fit: Fit, flops: float, limits: Limits, wanted: ClusterWanted, pick: Pick, context: StudyContext | None
) -> _Placed:
    """Size, tokens and shape for ``flops``, before anybody asks what they cost."""
    around = allocate(fit, flops).params.estimate
    accounting = Accounting(fit, _family(around, context), around)
    allocation = allocate(fit, flops, flops_per_token=accounting.flops_per_token)
    device = find_accelerator(wanted.accelerator)
    cap = limits.cap(device, device.usd_per_hour.estimate if wanted.price is None else wanted.price)
    choice = choose_size(fit, allocation, limits, cap, accounting, pick)
    shape = _shape(accounting.total(choice.params.estimate), around, context)
    return _Placed(accounting, allocation, cap, choice, shape)


def _configure(placed: _Placed, wanted: ClusterWanted, context: StudyContext | None) -> tuple[Recipe, ClusterEstimate]:
    """Learning rate and batch, and what the run takes."""
    shape, counts, tokens = placed.shape, placed.counts, placed.tokens
    if context is not None:
        recipe = recipe_from_study(context.learning_rate_law, context.batch, counts, tokens, shape.context)
    else:
        recipe = recipe_from_literature(counts, tokens, shape.context)
    flops = placed.choice.flops
    cluster = wanted.estimate(flops, shape.width)
    account = cost_of_run(shape, recipe.tokens, recipe.global_batch_tokens, flops, cluster, region=wanted.region)
    return recipe, account.cluster


def _by_dollars(
    surface: LossSurface,
    placed: _Placed,
    flat: tuple[float, float] | None,
    wanted: ClusterWanted,
    cluster: ClusterEstimate,
    *,
    take: bool,
) -> ShapesByDollars:
    """Among the sizes of the flat region where the size is the compute optimum, else at the size that was chosen."""
    accounting, choice = placed.accounting, placed.choice
    free = flat is not None and choice.params == placed.allocation.params
    return shapes_by_dollars(
        surface,
        placed.shape,
        placed.tokens,
        accounting,
        wanted,
        cluster,
        sizes=(accounting.total(flat[0]), accounting.total(flat[1])) if free and flat else None,
        most=math.inf if placed.cap is None else max(placed.cap.params, placed.counts.total),
        fresh_share=choice.fresh_share,
        take=take,
    )


def _as_cheapest(placed: _Placed, by_dollars: ShapesByDollars) -> _Placed:
    found = by_dollars.cheapest
    params, tokens = (Interval(estimate=value, low=value, high=value) for value in (found.params, found.tokens))
    reason = "The shape is the one that reaches the compute optimum's loss for the fewest dollars."
    choice = placed.choice._replace(
        params=params, tokens=tokens, flops=found.flops, reasons=(*placed.choice.reasons, reason)
    )
    return placed._replace(choice=choice, shape=found.shape)


def _answer(
    fit: Fit,
    surface: LossSurface | None,
    placed: _Placed,
    recipe: Recipe,
    cluster: ClusterEstimate,
    context: StudyContext | None,
    *,
    study: str | None,
    stage: Literal["rung", "final"],
    target: Target,
    limits: Limits,
    flat_region: tuple[float, float] | None,
    by_dollars: ShapesByDollars | None,
) -> Recommendation:
    """All that follows from the run: its forecast, what stands beside it, what comes before and after."""
    accounting, allocation, choice, shape = placed.accounting, placed.allocation, placed.choice, placed.shape
    forecast = None
    if fit.parametric.status == "ok":
        worth = recipe.tokens * choice.fresh_share
        forecast = predict(fit, params=accounting.params_of(shape), tokens=worth, flops=choice.flops)
    expected = allocation.loss if forecast is None else forecast.loss
    bits = None if expected is None or context is None else expected.times(1 / context.bytes_per_token / math.log(2))
    run = None if context is None else _run(context, shape, recipe)
    # Other trainers know one rate for all weights: that of the matrices, which are nearly all of them.
    share = context.parametrisation.matrix_rate(shape.width) if context else 1.0
    orders = max(0.0, math.log10(choice.flops / fit.fitted_range.flops[1]))
    alternatives = _alternatives(fit, choice, surface)
    optimal = choice.params == allocation.params
    return Recommendation(
        study=study,
        fit_key=fit.key,
        flops=choice.flops,
        level=fit.level,
        illustration=orders > ILLUSTRATION_ORDERS,
        extrapolation_orders=orders,
        params=choice.params,
        tokens=choice.tokens,
        tokens_per_param=_ratio(choice.tokens, choice.params),
        loss=expected,
        bits_per_byte=bits,
        flat_region=flat_region,
        estimator=allocation.estimator,
        shape=shape,
        learning_rate=recipe.learning_rate,
        global_batch_tokens=recipe.global_batch_tokens,
        warmup_tokens=recipe.warmup_steps * recipe.global_batch_tokens,
        cooldown_tokens=recipe.cooldown_steps * recipe.global_batch_tokens,
        hyperparameter_basis=recipe.basis + ("" if share == 1 else _matrices(recipe.learning_rate.estimate * share)),
        stage=stage,
        run=run,
        run_key=run and run.key,
        forecast=forecast,
        band=None if forecast is None or context is None else loss_band(fit, forecast, context.on_the_way),
        cluster=cluster,
        post_training=post_training_stages(
            placed.counts.total,
            recipe.learning_rate.estimate * share,
            cluster,
            find_accelerator(cluster.accelerator).bf16_flops,
        ),
        alternatives=alternatives,
        warnings=(
            *cautions(fit, allocation, orders, context, accounting, recipe.global_batch_tokens),
            *(drift_disagrees(expected, alternatives) if optimal else ()),
            *over_limits(limits, cluster),
        ),
        target=target,
        limits=limits,
        reasons=choice.reasons,
        serving=choice.serving,
        by_dollars=by_dollars,
        limited=choice.limited,
        rungs=() if stage == "rung" else _rungs(fit, choice.flops, accounting),
        sweep=None if surface is None else _sweep(fit, surface, target.flops),
        measure_next=() if surface is None else _measure_next(fit, allocation),
        decisions=_decisions(shape, placed.counts.nonembedding, context),
    )


def _ratio(tokens: Interval, params: Interval) -> Interval:
    def over(many: float | None, size: float | None) -> float | None:
        return None if many is None or size is None else many / size

    return Interval(
        estimate=tokens.estimate / params.estimate,
        low=over(tokens.low, params.high),
        high=over(tokens.high, params.low),
    )


def _rungs(fit: Fit, flops: float, accounting: Accounting) -> tuple[Rung, ...]:
    rungs = []
    for budget in rung_budgets(fit.fitted_range.flops[1], flops):
        placed = allocate(fit, budget, flops_per_token=accounting.flops_per_token)
        rungs.append(
            Rung(
                flops=budget,
                params=placed.params.estimate,
                tokens=placed.tokens.estimate,
                loss=placed.loss,
                share=budget / flops,
            )
        )
    return tuple(rungs)


def _sweep(fit: Fit, surface: LossSurface, flops: float) -> SweepWorth | None:
    """What a FLOP more of the fitted runs is worth; None where the draws are too few to say."""
    spent = fit.flops_per_param_token * sum(params * tokens for params, tokens, _ in fit.drift.runs)
    return sweep_worth(surface, flops, spent) if spent and len(fit.parametric.draws) >= FEWEST_DRAWS else None


def _measure_next(fit: Fit, allocation: Allocation) -> tuple[CandidateWorth, ...]:
    """Three runs that would tell most, where N* is known to less than a factor of ``WIDE`` either way."""
    params = allocation.params
    if params.low is None or params.high is None or params.high / params.low <= WIDE**2:
        return ()
    if len(fit.parametric.draws) < FEWEST_DRAWS or not fit.parametric.residual_sd:
        return ()
    sizes = np.geomspace(*fit.fitted_range.params, 6)
    ratios = np.geomspace(*fit.fitted_range.tokens_per_param, 6)
    most = MOST_OF_A_RUN * allocation.flops
    grid = [(float(size), float(size * ratio)) for size in sizes for ratio in ratios]
    affordable = [(size, long) for size, long in grid if fit.flops_per_param_token * size * long <= most]
    return candidate_worth(fit, allocation.flops, affordable)[:3] if affordable else ()


def _decisions(shape: ModelShape, nonembedding: int, context: StudyContext | None) -> tuple[str, ...]:
    """Vocabulary and context, and what each rests on."""
    if context is not None:
        return (
            f"vocabulary {shape.vocabulary:,} and context {shape.context:,}: the study's, on which its losses were "
            "measured; others are another study, to be compared in bits per byte (`scaling compare`)",
        )
    size = format_count(nonembedding)
    return (
        f"vocabulary {shape.vocabulary:,}: "
        + (
            "Llama 3's; larger models want larger ones (2407.13623 puts 216k at 70B and 32k at a few billion)"
            if nonembedding >= LARGE_MODEL
            else f"Llama 2's, usual at {size} without embeddings"
        ),
        f"context {shape.context:,}: habit at this size (Llama 3 trained at 8,192 and lengthened it at the end); a law "
        "of the loss says nothing of it, what the model is used for does",
    )


def _family(around: float, context: StudyContext | None) -> Callable[[float], ModelShape]:
    """Shapes by total parameters: the study's own family, or Llama's at the scale of ``around``."""
    if context is not None:
        return partial(
            architectures.get(context.architecture).shape_for,
            vocabulary=context.vocabulary,
            context=context.context,
            tied=context.tied,
        )
    return llama_at_scale(around)


def _shape(total: float, around: float, context: StudyContext | None) -> ModelShape:
    try:
        return _family(around, context)(total)
    except ValueError as error:
        raise UserError(f"the target is too small for this family: {error}") from None


def _shape_at(fit: Fit, flops: float, context: StudyContext | None) -> ModelShape:
    """About the shape that ``flops`` would train, for what its width and size cost: N is taken for all parameters."""
    around = allocate(fit, flops).params.estimate
    return _shape(around, around, context)


def _run(context: StudyContext, shape: ModelShape, recipe: Recipe) -> RunSpec:
    batch, rate = recipe.global_batch_tokens, float(f"{recipe.learning_rate.estimate:.6g}")
    return RunSpec(
        shape=shape,
        parametrisation=context.parametrisation,
        tokens=recipe.tokens,
        global_batch_tokens=batch,
        optimizer=OptimizerSpec(learning_rate=rate, weight_decay=context.weight_decay.of(batch, rate, recipe.tokens)),
        schedule=ScheduleSpec(warmup_tokens=recipe.warmup_steps * batch, cooldown_tokens=recipe.cooldown_steps * batch),
        seed=context.seed,
        data_key=context.data_key,
        tokenizer_key=context.tokenizer_key,
        held_out_tokens=context.held_out_tokens,
    )


def _matrices(rate: float) -> str:
    return f"; the learning rate is the base's: the layers' matrices of this run learn at {rate:.2g}"


def _alternatives(fit: Fit, choice: SizeChoice, surface: LossSurface | None) -> tuple[Alternative, ...]:
    """What published laws and recipes would do with the same compute, the loss this fit expects of it, and the risk of
    being worse than it."""
    flops, ours = choice.flops, (choice.params.estimate, choice.tokens.estimate * choice.fresh_share)
    made = []
    for law in (*published_optima(flops), *recipe_optima(flops)):
        can = fit.parametric.status == "ok" and law.tokens >= 1
        made.append(
            Alternative(
                name=law.name,
                citation=law.citation,
                params=law.params,
                tokens=law.tokens,
                tokens_per_param=law.tokens_per_param,
                expected_loss=predict(fit, params=law.params, tokens=law.tokens, flops=flops).loss if can else None,
                risk=risk_of_being_worse(surface, ours, (law.params, law.tokens)) if surface and can else None,
            )
        )
    return tuple(made)
