"""From a fit to the large run: size, tokens, shape, learning rate, batch, cost, and what the answer rests on."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import date
from functools import partial
from typing import Literal

import numpy as np

from scaling import architectures
from scaling.accounting import Accounting, counted
from scaling.allocation import Allocation, allocate, flat_region
from scaling.allocation.surface import LossSurface
from scaling.allocation.sweep_worth import FEWEST_DRAWS, CandidateWorth, SweepWorth, candidate_worth, sweep_worth
from scaling.cautions import ILLUSTRATION_ORDERS, cautions, drift_disagrees
from scaling.cluster import ClusterEstimate
from scaling.cost.run import MOST_DEVICES, cost_of_run, devices_within
from scaling.errors import UserError
from scaling.fit import Fit
from scaling.hardware import accelerator as find_accelerator
from scaling.hardware import cluster_estimate
from scaling.limits import Limits
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
from scaling.shape import ModelShape
from scaling.size_choice import Pick, SizeChoice, choose_size
from scaling.study_context import StudyContext
from scaling.target_flops import DEFAULT_ACCELERATOR, target_of

__all__ = ["recommend"]

LONGEST_DAYS = 30
WIDE = 2.0
"""A factor to both sides of N* beyond which further runs are named that would narrow it."""
MOST_OF_A_RUN = 0.05
"""Of the large run's compute that one such run may take."""


def recommend(
    fit: Fit,
    *,
    flops: float | None = None,
    gpus: int | None = None,
    days: float | None = None,
    by: date | None = None,
    usd: float | None = None,
    loss: float | None = None,
    accelerator: str | None = None,
    mfu: float | None = None,
    price: float | None = None,
    limits: Limits | None = None,
    pick: Pick = "optimum",
    stage: Literal["rung", "final"] = "final",
    study: str | None = None,
    context: StudyContext | None = None,
) -> Recommendation:
    """The run to launch for a target: ``flops``; ``gpus`` for ``days`` or until a date (``by``); ``usd``; or a ``loss``
    to reach; accelerators are H100 by default.

    ``limits`` bound the size or the text, or say how much the model will serve (``pick`` "serving" then takes the size
    that is cheapest over its life). ``stage`` "rung" is a run on the way to another: it has none of its own.

    Without ``context`` (bring your own runs) the shape is a Llama's with a vocabulary of its scale, the learning rate a
    published law's where it holds, and there is no run specification. Raises :class:`UserError` where the target is
    missing, double or impossible, or the fit supports no allocation.
    """
    target = target_of(
        fit, flops=flops, gpus=gpus, days=days, by=by, usd=usd, loss=loss, accelerator=accelerator, mfu=mfu,
        price=price,
    )  # fmt: skip
    limits = limits or Limits()
    around = allocate(fit, target.flops).params.estimate
    accounting = Accounting(fit, _family(around, context), around)
    allocation = allocate(fit, target.flops, flops_per_token=accounting.flops_per_token)
    device = find_accelerator(accelerator or DEFAULT_ACCELERATOR)
    cap = limits.cap(device, device.usd_per_hour.estimate if price is None else price)
    choice = choose_size(fit, allocation, limits, cap, accounting, pick)
    shape = _shape(accounting.total(choice.params.estimate), around, context)
    counts = architectures.get(shape.architecture).count_parameters(shape)
    tokens = choice.flops / accounting.flops_per_token_of(shape)
    if context is not None:
        recipe = recipe_from_study(context.learning_rate_law, context.batch, counts, tokens, shape.context)
    else:
        recipe = recipe_from_literature(counts, tokens, shape.context)
    forecast = None
    if fit.parametric.status == "ok":
        worth = recipe.tokens * choice.fresh_share
        forecast = predict(fit, params=counted(counts, fit.params_convention), tokens=worth, flops=choice.flops)
    expected = allocation.loss if forecast is None else forecast.loss
    run = None if context is None else _run(context, shape, recipe)
    # Other trainers know one rate for all weights: that of the matrices, which are nearly all of them.
    share = context.parametrisation.matrix_rate(shape.width) if context else 1.0
    cluster = _cluster(choice.flops, gpus, accelerator, mfu, price)
    cluster = cost_of_run(shape, recipe.tokens, recipe.global_batch_tokens, choice.flops, cluster).cluster
    largest = fit.fitted_range.flops[1]
    orders = max(0.0, math.log10(choice.flops / largest))
    bits = None if expected is None or context is None else expected.times(1 / context.bytes_per_token / math.log(2))
    surface = LossSurface.of(fit) if LossSurface.refusal(fit) is None else None
    alternatives = _alternatives(fit, choice, surface)
    optimal = choice.params == allocation.params
    worth_of_sweep = None if surface is None else _sweep(fit, surface, target.flops)
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
        flat_region=flat_region(fit, target.flops, flops_per_token=accounting.flops_per_token),
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
            counts.total,
            recipe.learning_rate.estimate * share,
            cluster,
            find_accelerator(cluster.accelerator).bf16_flops,
        ),
        alternatives=alternatives,
        warnings=(
            *cautions(fit, allocation, orders, context, accounting, recipe.global_batch_tokens),
            *(drift_disagrees(expected, alternatives) if optimal else ()),
        ),
        target=target,
        limits=limits,
        reasons=choice.reasons,
        serving=choice.serving,
        limited=choice.limited,
        rungs=() if stage == "rung" else _rungs(fit, choice.flops, accounting),
        sweep=worth_of_sweep,
        measure_next=() if surface is None else _measure_next(fit, allocation),
        decisions=_decisions(shape, counts.nonembedding, context),
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


def _cluster(
    flops: float, gpus: int | None, accelerator: str | None, mfu: float | None, price: float | None
) -> ClusterEstimate:
    """On the given accelerators; without a number, as many (a power of two) as finish within ``LONGEST_DAYS``."""
    name = accelerator or DEFAULT_ACCELERATOR
    if gpus is None:
        gpus = devices_within(LONGEST_DAYS, flops, name, mfu)
        made = cluster_estimate(flops, gpus, name, mfu, price)
        chosen = f"number of GPUs: a power of two that finishes within {LONGEST_DAYS} days, {MOST_DEVICES:,} at most"
        return made.model_copy(update={"source": f"{made.source}; {chosen}"})
    return cluster_estimate(flops, gpus, name, mfu, price)


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
