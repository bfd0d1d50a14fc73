"""From a fit to the large run: size, tokens, shape, learning rate, batch, cost, and what the answer rests on."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from pydantic import Field

from scaling import architectures
from scaling.accounting import Accounting, counted
from scaling.allocation import ESTIMATORS, Allocation, allocate, flat_region
from scaling.errors import UserError
from scaling.fit import Fit
from scaling.fits.irreducible import levels_off_too_early
from scaling.hardware import accelerator as find_accelerator
from scaling.hardware import cluster_estimate, cluster_flops
from scaling.hyperparameters import LearningRateLaw
from scaling.laws.power_lines import WeightDecay
from scaling.loss_band import OnTheWay, loss_band
from scaling.post_training import post_training_stages
from scaling.prediction import predict
from scaling.published import published_optima
from scaling.quantity import format_count
from scaling.recipe import Anchor, Recipe, recipe_from_literature, recipe_from_study
from scaling.recommendation import Alternative, ClusterEstimate, Recommendation
from scaling.record import Interval, Record
from scaling.run_spec import OptimizerSpec, Parametrisation, RunSpec, ScheduleSpec
from scaling.shape import ModelShape

__all__ = ["ILLUSTRATION_ORDERS", "StudyContext", "recommend"]

ILLUSTRATION_ORDERS = 3.0
"""Beyond this many orders of magnitude the answer is an illustration, not advice."""
DEFAULT_ACCELERATOR = "H100"
LONGEST_DAYS = 30
MOST_GPUS = 2**20
LARGE_MODEL = 1e9
"""From here on a model without a study gets Llama 3's vocabulary and context, and a head of its own."""
SMALL_VOCABULARY = 32_000
MOST_DISAGREEMENT = 1.5
"""Factor between the two estimators' N* up to which they count as agreeing: well inside the flat region."""


class StudyContext(Record):
    """What a study knows beyond its fit: the family it was measured on, its corpus and its recipe."""

    architecture: str
    vocabulary: int
    context: int
    tied: bool
    data_key: str
    tokenizer_key: str
    held_out_tokens: int
    unique_tokens: int
    bytes_per_token: float
    learning_rate_law: LearningRateLaw
    anchor_batch_tokens: int = Field(description="batch of the largest fitted run")
    anchor_tokens: int = Field(description="tokens of the largest fitted run")
    weight_decay: WeightDecay
    parametrisation: Parametrisation = Parametrisation()
    seed: int
    on_the_way: tuple[OnTheWay, ...] = ()
    """How far above their end the fitted runs were while they went (:func:`scaling.loss_band.on_the_way`)."""


def recommend(
    fit: Fit,
    *,
    flops: float | None = None,
    gpus: int | None = None,
    days: float | None = None,
    accelerator: str | None = None,
    mfu: float | None = None,
    price: float | None = None,
    study: str | None = None,
    context: StudyContext | None = None,
) -> Recommendation:
    """The run to launch with ``flops``, or with ``gpus`` x ``days`` of an ``accelerator`` (H100 by default).

    Without ``context`` (bring your own runs) the shape is a Llama's with a vocabulary of its scale, the learning rate a
    published law's where it holds, and there is no run specification. Raises :class:`UserError` where the target is
    missing, double or impossible, or the fit supports no allocation.
    """
    target = _target(flops, gpus, days, accelerator, mfu)
    around = allocate(fit, target).params.estimate
    accounting = Accounting(fit, _family(around, context), around)
    allocation = allocate(fit, target, flops_per_token=accounting.flops_per_token)
    shape = _shape(accounting.total(allocation.params.estimate), around, context)
    counts = architectures.get(shape.architecture).count_parameters(shape)
    tokens = target / accounting.flops_per_token_of(shape)
    if context is not None:
        anchor = Anchor(batch_tokens=context.anchor_batch_tokens, tokens=context.anchor_tokens)
        recipe = recipe_from_study(context.learning_rate_law, anchor, counts, tokens, shape.context)
    else:
        recipe = recipe_from_literature(counts, tokens, shape.context)
    run = None if context is None else _run(context, shape, recipe)
    # Other trainers know one rate for all weights: that of the matrices, which are nearly all of them.
    share = context.parametrisation.matrix_rate(shape.width) if context else 1.0
    forecast = None
    if fit.parametric.status == "ok":
        forecast = predict(fit, params=counted(counts, fit.params_convention), tokens=recipe.tokens, flops=target)
    loss = allocation.loss if forecast is None else forecast.loss
    cluster = _cluster(target, gpus, accelerator, mfu, price)
    orders = max(0.0, math.log10(target / fit.fitted_range.flops[1]))
    bits = None if loss is None or context is None else _scaled(loss, 1 / context.bytes_per_token / math.log(2))
    return Recommendation(
        study=study,
        fit_key=fit.key,
        flops=target,
        level=fit.level,
        illustration=orders > ILLUSTRATION_ORDERS,
        extrapolation_orders=orders,
        params=allocation.params,
        tokens=allocation.tokens,
        tokens_per_param=allocation.tokens_per_param,
        loss=loss,
        bits_per_byte=bits,
        flat_region=flat_region(fit, target, flops_per_token=accounting.flops_per_token),
        estimator=allocation.estimator,
        shape=shape,
        learning_rate=recipe.learning_rate,
        global_batch_tokens=recipe.global_batch_tokens,
        warmup_tokens=recipe.warmup_steps * recipe.global_batch_tokens,
        cooldown_tokens=recipe.cooldown_steps * recipe.global_batch_tokens,
        hyperparameter_basis=recipe.basis + ("" if share == 1 else _matrices(recipe.learning_rate.estimate * share)),
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
        alternatives=_alternatives(fit, target),
        warnings=_warnings(fit, allocation, orders, context, accounting),
    )


def _target(
    flops: float | None, gpus: int | None, days: float | None, accelerator: str | None, mfu: float | None
) -> float:
    if (flops is not None) == (days is not None) or (days is not None and gpus is None):
        raise UserError(
            "the target is flops, or gpus and days together (with an accelerator): give exactly one of them"
        )
    if days is not None and gpus is not None:
        return cluster_flops(gpus, days, accelerator or DEFAULT_ACCELERATOR, mfu)
    assert flops is not None
    if not (math.isfinite(flops) and flops >= 1e6):
        raise UserError(f"flops is {flops:g}: the target must be a finite number of FLOPs, for example 1e21")
    return flops


def _family(around: float, context: StudyContext | None) -> Callable[[float], ModelShape]:
    """Shapes by total parameters: the study's own family, or Llama's at the scale of ``around``."""
    if context is not None:
        return partial(
            architectures.get(context.architecture).shape_for,
            vocabulary=context.vocabulary,
            context=context.context,
            tied=context.tied,
        )
    large = around >= LARGE_MODEL
    return partial(
        architectures.get("llama").shape_for,
        vocabulary=128_256 if large else SMALL_VOCABULARY,
        context=8192 if large else 2048,
        tied=not large,
    )


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
        gpus = 1
        while gpus < MOST_GPUS and cluster_estimate(flops, gpus, name, mfu, price).days.estimate > LONGEST_DAYS:
            gpus *= 2
        made = cluster_estimate(flops, gpus, name, mfu, price)
        chosen = f"number of GPUs: a power of two that finishes within {LONGEST_DAYS} days, {MOST_GPUS:,} at most"
        return made.model_copy(update={"source": f"{made.source}; {chosen}"})
    return cluster_estimate(flops, gpus, name, mfu, price)


def _scaled(interval: Interval, factor: float) -> Interval:
    return Interval(
        estimate=interval.estimate * factor,
        low=None if interval.low is None else interval.low * factor,
        high=None if interval.high is None else interval.high * factor,
    )


def _alternatives(fit: Fit, flops: float) -> tuple[Alternative, ...]:
    """What published laws would do with the same compute, and the loss this fit expects of it."""
    return tuple(
        Alternative(
            name=law.name,
            citation=law.citation,
            params=law.params,
            tokens=law.tokens,
            tokens_per_param=law.tokens_per_param,
            expected_loss=predict(fit, params=law.params, tokens=law.tokens, flops=flops).loss
            if fit.parametric.status == "ok" and law.tokens >= 1
            else None,
        )
        for law in published_optima(flops)
    )


def _warnings(
    fit: Fit, allocation: Allocation, orders: float, context: StudyContext | None, accounting: Accounting
) -> tuple[str, ...]:
    said = [*_distance(fit, allocation, orders), *_estimators(fit, allocation, accounting)]
    if context is not None:
        said += _recipe_carried_over(allocation, context)
    return tuple(said)


def _distance(fit: Fit, allocation: Allocation, orders: float) -> list[str]:
    """How far from the fitted runs the answer lies."""
    said = []
    if orders > ILLUSTRATION_ORDERS:
        said.append(
            f"This extrapolates {orders:.1f} orders of magnitude beyond the fitted runs: an illustration of the method,"
            " not advice. Train rungs in between before you spend anything on it."
        )
    elif orders > 0:
        said.append(
            f"This extrapolates {orders:.1f} orders of magnitude beyond the fitted runs. The interval is honest about "
            "the law, not about a recipe that may stop working."
        )
    low, high = fit.fitted_range.tokens_per_param
    ratio = allocation.tokens_per_param.estimate
    if not low <= ratio <= high:
        said.append(
            f"{ratio:.3g} tokens a parameter lie outside the fitted runs' {low:.3g} to {high:.3g}: the law is not "
            "measured there."
        )
    return said


def _estimators(fit: Fit, allocation: Allocation, accounting: Accounting) -> list[str]:
    """Which estimator had to do without the other, and where the two do not agree."""
    said = []
    for name, part in (("parametric", fit.parametric), ("iso-FLOP", fit.isoflop)):
        if part.status == "refused":
            said.append(f"This rests on one estimator; the {name} one was refused: {part.reason}")
    if fit.parametric.status == fit.isoflop.status == "ok":
        by_law, by_lines = (
            allocate(fit, allocation.flops, estimator, flops_per_token=accounting.flops_per_token).params.estimate
            for estimator in ESTIMATORS
        )
        if not 1 / MOST_DISAGREEMENT <= by_lines / by_law <= MOST_DISAGREEMENT:
            said.append(
                f"The two estimators disagree: the law puts the optimum at {format_count(by_law)} parameters, the "
                f"iso-FLOP lines at {format_count(by_lines)}, {by_lines / by_law:.2g} times as many."
            )
    if levels_off_too_early(fit.parametric, fit.drift):
        said.append(
            "The parametric law levels off above what larger models reach on text, so N and D come from the iso-FLOP "
            "lines, and the forecast of the loss holds E to what text admits."
        )
    return said


def _recipe_carried_over(allocation: Allocation, context: StudyContext) -> list[str]:
    """What of the study's corpus and recipe does not fit a run of this size."""
    said = []
    tokens, params = allocation.tokens.estimate, allocation.params.estimate
    if tokens > context.unique_tokens:
        said.append(
            f"{format_count(tokens)} tokens are {tokens / context.unique_tokens:.3g} passes over the corpus's "
            f"{format_count(context.unique_tokens)}: find more text, for repeated tokens teach less (2305.16264)."
        )
    if params >= LARGE_MODEL and context.vocabulary < SMALL_VOCABULARY:
        said.append(
            f"The shape keeps the study's vocabulary of {context.vocabulary:,} and context of {context.context:,}, on "
            "which its loss was measured. A model of this size would be given larger ones, and its loss a token would "
            "then be another: compare by bits per byte."
        )
    if context.learning_rate_law.exponent.estimate == 0 and context.parametrisation.name == "standard":
        said.append(
            "The learning rate was given as one number for all sizes, and larger models need smaller ones: set "
            "hyperparameters.learning_rate to probe, so that its change with size is measured."
        )
    return said
