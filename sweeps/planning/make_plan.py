"""From a design to a plan: what each run takes here, what all cost together, and what is probed first."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from scaling.architectures import total_params
from scaling.batch_rule import BatchRule
from scaling.design.design import Design, DesignPoint
from scaling.design.family import FEWEST_STEPS, family_of, hold_out_point
from scaling.design.trunks import trunks_of
from scaling.run_spec import OptimizerSpec
from scaling.shape import ModelShape
from sweeps.planning.expectation import Expectation
from sweeps.planning.makespan import Job
from sweeps.planning.plan import Plan, PlannedCorpus, PlannedPoint, ProbePoint, batch_rule, middle_length
from sweeps.study import Study
from sweeps.tuning.space import space_of
from trainer.data.shards import Corpus
from trainer.loop.calibration import Calibration
from trainer.loop.memory import estimate_memory
from trainer.loop.numerics import Numerics

__all__ = ["jobs_of", "make_plan", "with_more"]

LEAST_TRIAL_STEPS = 20
"""Of the largest batch that tuning tries."""
MAX_HELD_OUT_TOKENS = 65_536
MEMORY_SHAPES = 4
"""An estimate takes most of a second."""
PROBE_RATES = (2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2)
"""A factor of two apart: the valley is flat enough that a parabola through the best of them finds its bottom."""


def jobs_of(points: Sequence[DesignPoint], cooldown: float, seconds: Callable[[ModelShape, int], float]) -> list[Job]:
    """What each point takes a worker; ``seconds`` of a run of some tokens, ``cooldown`` a share of them."""
    jobs = [Job(seconds(point.shape, point.tokens)) for point in points]
    for carrier, branches in trunks_of(points).items():
        for at in branches:
            if at != carrier:
                shape, own = points[at].shape, round(cooldown * points[at].tokens)
                jobs[at] = Job(seconds(shape, own), carrier, seconds(shape, points[at].tokens - own))
    return jobs


def _planned(
    study: Study, rule: BatchRule, points: Sequence[DesignPoint], calibration: Calibration, numerics: Numerics
) -> tuple[PlannedPoint, ...]:
    seconds = partial(calibration.seconds, numerics=numerics)
    # Of one batch for all, that of the longest: an estimate takes most of a second.
    largest_batch = rule.trained(max(point.tokens for point in points), study.model.context)
    memory = _memory_by_shape(largest_batch // study.model.context, [point.shape for point in points], numerics)
    jobs = jobs_of(points, study.hyperparameters.cooldown, seconds)
    return tuple(
        PlannedPoint(point=point, memory_bytes=memory[point.shape], **job._asdict())
        for point, job in zip(points, jobs, strict=True)
    )


def with_more(plan: Plan, study: Study, design: Design, *, rounds: int = 0) -> Plan:
    """The plan with the runs of ``design``, which share no trunk with those it has, behind them; ``rounds`` more are
    laid out.

    The hold-out stays too, unless a new run is too large beside it.
    """
    points = (*(planned.point for planned in plan.sweep), *design.points)
    rule = batch_rule(study, plan.batch_at_tokens)
    held, multiple = plan.hold_out, study.design.hold_out
    if held.point.flops < multiple * max(point.flops for point in points):
        point = hold_out_point(design.model_copy(update={"points": points}), multiple)
        (held,) = _planned(study, rule, [point], plan.calibration, plan.numerics)
    more = [
        new if new.carrier is None else new.model_copy(update={"carrier": new.carrier + len(plan.sweep)})
        for new in _planned(study, rule, design.points, plan.calibration, plan.numerics)
    ]
    return plan.model_copy(update={"sweep": (*plan.sweep, *more), "hold_out": held, "rounds": plan.rounds + rounds})


def make_plan(
    study: Study,
    corpus: Corpus,
    *,
    workers: int,
    design: Design,
    calibration: Calibration,
    numerics: Numerics,
    usd_per_hour: float | None = None,
    expected: Expectation | None = None,
) -> Plan:
    """The plan for a design that has been calibrated."""
    manifest = corpus.manifest
    hold_out = hold_out_point(design, study.design.hold_out)

    seconds = partial(calibration.seconds, numerics=numerics)
    probe = tuple(_probe(study, design, seconds))
    tune = study.hyperparameters.tune
    middle = middle_length([point.tokens for point in design.points])
    rule = batch_rule(study, middle)
    (held,) = _planned(study, rule, [hold_out], calibration, numerics)
    return Plan(
        study=study.name,
        workers=workers,
        calibration=calibration,
        numerics=numerics,
        corpus=PlannedCorpus(
            folder=corpus.directory.name,
            source=study.corpus.source,
            vocabulary=manifest.vocabulary,
            data_key=manifest.data_key,
            tokenizer_key=manifest.tokenizer_key,
            train_tokens=manifest.train.tokens,
            held_out_tokens=manifest.held_out.tokens,
            held_out_pieces=manifest.held_out.documents,
            held_out_works=manifest.held_out.works,
            bytes_per_token=manifest.held_out.utf8_bytes / manifest.held_out.tokens,
        ),
        evaluation_tokens=min(
            manifest.held_out.tokens // study.model.context * study.model.context, MAX_HELD_OUT_TOKENS
        ),
        probe=probe,
        tune=tuple(_tune(study, design, seconds)),
        tune_trials=tune.trials if tune else 0,
        design=design.kind,
        sweep=_planned(study, rule, design.points, calibration, numerics),
        hold_out=held,
        replicates=study.design.replicates,
        batch_at_tokens=middle,
        parametrisation=study.hyperparameters.parametrisation.of(probe[0].shape if probe else None),
        usd_per_hour=usd_per_hour,
        expected=expected,
    )


def _memory_by_shape(sequences: int, shapes: Sequence[ModelShape], numerics: Numerics) -> dict[ModelShape, int]:
    """An estimate of each shape's memory in training: of a few of them worked out, between them interpolated."""
    ascending = sorted(set(shapes), key=total_params)
    at = np.unique(np.linspace(0, len(ascending) - 1, MEMORY_SHAPES).round().astype(int))
    known = [estimate_memory(ascending[i], sequences, numerics, OptimizerSpec(learning_rate=1e-3)).total for i in at]
    params = np.log([total_params(shape) for shape in ascending])
    estimates = np.exp(np.interp(params, params[at], np.log(known)))
    return {shape: round(estimate) for shape, estimate in zip(ascending, estimates.tolist(), strict=True)}


def _probe(study: Study, design: Design, seconds: Callable[[ModelShape, int], float]) -> list[ProbePoint]:
    """Each rate at two sizes of the sweep's cheap end; at one between them where the parametrisation carries its rate
    to all. On iso-FLOP lines those are the second smallest and the second largest of the smallest budget."""
    if study.hyperparameters.learning_rate != "probe" or study.hyperparameters.tune:
        return []
    line = _cheap_line(design)
    if study.hyperparameters.parametrisation.name == "standard":
        points = _in_proportion([line[1], line[-2]], design.global_batch_tokens)
    else:
        points = [line[len(line) // 2]]
    return [
        ProbePoint(
            shape=point.shape, tokens=point.tokens, learning_rate=rate, seconds=seconds(point.shape, point.tokens)
        )
        for point in points
        for rate in PROBE_RATES
    ]


def _in_proportion(points: Sequence[DesignPoint], batch_tokens: int) -> list[DesignPoint]:
    """The same sizes for the same compute together, but on tokens in proportion to their size, as compute-optimal runs
    are: the exponent of the rate is then that along the frontier, where length and batch grow with the size."""
    family = family_of(points[0], batch_tokens)
    ratio = sum(p.flops for p in points) / sum(p.params.total * family.flops_per_token(p.shape) for p in points)
    fewest = FEWEST_STEPS * batch_tokens
    return [family.run(p.shape, max(fewest, ratio * p.params.total)) for p in points]


def _tune(study: Study, design: Design, seconds: Callable[[ModelShape, int], float]) -> list[ProbePoint]:
    """Sizes of the sweep's cheap end from its smallest to its largest, each at its length there and at a half, a
    quarter and so on of it: whole steps of the largest batch that is tried. A size with all its lengths, the shortest
    first."""
    settings, hyper = study.hyperparameters.tune, study.hyperparameters
    if settings is None:
        return []
    space = space_of(
        settings, context=study.model.context, batch_tokens=hyper.global_batch_tokens, decay=hyper.weight_decay
    )
    batch = max(space.largest("global_batch_tokens", hyper.global_batch_tokens), hyper.global_batch_tokens)
    line = _cheap_line(design)
    at = np.unique(np.linspace(0, len(line) - 1, settings.sizes).round().astype(int))
    cells = []
    for point in (line[i] for i in at):
        for halvings in reversed(range(settings.lengths)):
            tokens = max(LEAST_TRIAL_STEPS, round(point.tokens / 2**halvings / batch)) * batch
            cells.append(
                ProbePoint(shape=point.shape, tokens=tokens, learning_rate=0.01, seconds=seconds(point.shape, tokens))
            )
    return list({(cell.shape, cell.tokens): cell for cell in cells}.values())


def _cheap_line(design: Design) -> list[DesignPoint]:
    """The sizes at one cheap compute, ascending: the smallest budget's line, or what would be one."""
    budgets = [point.budget for point in design.points if point.budget is not None]
    if budgets:
        line = [point for point in design.points if point.budget == min(budgets)]
        return sorted(line, key=lambda point: point.params.total)
    family = family_of(design.points[0], design.global_batch_tokens)
    # No run of the probe is longer than the sweep's median run, so that the probe stays a small part of the whole.
    flops = statistics.median(point.flops for point in design.points) / 4
    centre = family.optimum(flops, design.tokens_per_param_centre)
    sizes = (max(centre * step, family.count(family.least()).total) for step in (1 / 3, 1 / 1.7, 1, 1.7, 3))
    return [family.of(flops, family.shape(size)) for size in sizes]
