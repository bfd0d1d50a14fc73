"""What is said of a study and its plan before anything runs. Text in, nothing computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from scaling.quantity import format_count, format_duration, format_flops, format_usd

if TYPE_CHECKING:
    from analysis.study_view import PlanRow
    from scaling.design.expected import ExpectedInterval
    from sweeps.planning.plan import Plan, PlannedPoint, ProbePoint
    from sweeps.study import Study

__all__ = ["corpus_sentence", "machine_sentence", "plan_page", "plan_rows", "question_sentence", "run_table"]


SHARED_RATE_WORTH_SAYING = 1e-3
"""Share of the loss; seeds differ by a few of it."""


def question_sentence(study: Study) -> str:
    from sweeps.planning.expectation import question_target

    target = question_target(study).asked
    return f"Which size, on how many tokens, makes the most of {target}, and what loss will it reach?"


def corpus_sentence(plan: Plan) -> str:
    corpus = plan.corpus
    return (
        f"{corpus.source}: {format_count(corpus.train_tokens)} training tokens, "
        f"{format_count(corpus.held_out_tokens)} held out in {corpus.held_out_pieces} pieces of "
        f"{corpus.held_out_works} works ({format_count(plan.evaluation_tokens)} measured on, spread over all), "
        f"byte-level BPE of {corpus.vocabulary}, {corpus.bytes_per_token:.2f} bytes a token, "
        f"context {plan.sweep[0].point.shape.context}"
    )


def machine_sentence(plan: Plan) -> str:
    numerics = plan.numerics
    return f"{numerics.processor}, {_many(plan.workers, 'worker')}, {numerics.label}, torch {numerics.torch}"


def batch_sentence(study: Study, plan: Plan) -> str:
    """Which batches the sweep has, and what they follow."""
    from sweeps.planning.plan import batch_rule

    rule, tune = batch_rule(study, plan.batch_at_tokens), study.hyperparameters.tune
    if tune and "global_batch_tokens" in tune.over:
        return "batches by the law that tuning finds"
    context = study.model.context
    batches = {rule.trained(planned.point.tokens, context) for planned in plan.sweep}
    if len(batches) == 1:
        return f"batches of {format_count(*batches)} tokens"
    return (
        f"batches of {_span(_range(sorted(batches)))} tokens: {format_count(rule.batch_tokens)} for "
        f"{format_count(rule.at_tokens)} tokens, growing by D^{rule.exponent:g} as the large run's"
    )


def plan_rows(plan: Plan) -> list[PlanRow]:
    """The plan as a table: probe or tuning, each budget's line or each size, the hold-out."""
    rows = []
    if plan.probe:
        sizes, rates = len({p.shape for p in plan.probe}), len({p.learning_rate for p in plan.probe})
        why = f"{_many(rates, 'rate')} at {_many(sizes, 'small size')}"
        rows.append(_small_runs(plan, plan.probe, 1, "learning rates", why))
    if plan.tune:
        why = f"{_many(plan.tune_trials, 'trial')} in each of {len(plan.tune)} cells, of which some are pruned"
        rows.append(_small_runs(plan, plan.tune, plan.tune_trials, "tuning", why))
    for budget in plan.budgets:
        line = [planned for planned in plan.sweep if planned.point.budget == budget]
        rows.append(_row(plan, f"{budget:.2e} FLOPs", line, "iso-FLOP line"))
    apart = [planned for planned in plan.sweep if planned.point.budget is None]
    for shape in plan.shapes:
        mine = [planned for planned in apart if planned.point.shape == shape]
        if mine:
            rows.append(_row(plan, f"{format_count(mine[0].point.params.total)} parameters", mine, _trunks(mine)))
    held = plan.hold_out
    largest = max(planned.point.flops for planned in plan.sweep)
    why = f"{held.point.flops / largest:.1f} times the largest fitted run; forecast first"
    minutes = held.seconds * -(-plan.replicates // plan.workers) / 60
    rows.append(replace(_row(plan, "hold-out", [held] * plan.replicates, why), minutes=minutes))
    return rows


def _row(plan: Plan, label: str, runs: Sequence[PlannedPoint], why: str) -> PlanRow:
    from analysis.study_view import PlanRow

    return PlanRow(
        label=label,
        runs=len(runs),
        params=_range([run.point.params.total for run in runs]),
        tokens=_range([run.point.tokens for run in runs]),
        flops=sum(run.point.cost_flops for run in runs),
        minutes=sum(run.seconds for run in runs) / 60 / plan.workers,
        why=why,
    )


def _small_runs(plan: Plan, runs: Sequence[ProbePoint], times: int, label: str, why: str) -> PlanRow:
    from analysis.study_view import PlanRow
    from scaling.architectures import total_params, training_flops

    return PlanRow(
        label=label,
        runs=len(runs) * times,
        params=_range([total_params(run.shape) for run in runs]),
        tokens=_range([run.tokens for run in runs]),
        flops=times * sum(training_flops(run.shape, run.tokens) for run in runs),
        minutes=times * sum(run.seconds for run in runs) / 60 / plan.workers,
        why=why,
    )


def _trunks(runs: Sequence[PlannedPoint]) -> str:
    """ "1 trunk with 3 branches, 2 runs alone"."""
    branches = sum(planned.carrier is not None for planned in runs)
    carriers = len({planned.carrier for planned in runs if planned.carrier is not None})
    alone = len(runs) - branches - carriers
    parts = []
    if branches:
        parts.append(f"{_many(carriers, 'trunk')} with {_many(branches, 'branch')}")
    if alone:
        parts.append(f"{_many(alone, 'run')} alone")
    return ", ".join(parts)


def _many(count: int, noun: str) -> str:
    plural = "es" if noun.endswith("ch") else "s"
    return f"{count} {noun}{plural if count > 1 else ''}"


def _range(values: Sequence[float]) -> tuple[float, float]:
    return float(min(values)), float(max(values))


def plan_page(study: Study, plan: Plan) -> str:
    """What would run, what it would take and what it would tell, for a terminal."""
    lines = [
        f"{len(plan.sweep)} runs · {len(plan.shapes)} sizes · {format_flops(plan.sweep_flops)}, and a hold-out of "
        f"{format_flops(plan.hold_out.point.flops)} x {plan.replicates} · about "
        f"{format_duration(plan.makespan_seconds())} on {_many(plan.workers, 'worker')}" + _priced(plan),
        f"({machine_sentence(plan)})",
        f"({corpus_sentence(plan)})",
        f"({batch_sentence(study, plan)})",
        "",
        f"  {'':<16} {'runs':>4}  {'parameters':<17} {'tokens':<17} {'FLOPs':>9} {'minutes':>8}   why",
    ]
    lines += [
        f"  {row.label:<16} {row.runs:>4}  {_span(row.params):<17} {_span(row.tokens):<17} {row.flops:>9.2e} "
        f"{row.minutes:>8.1f}   {row.why}"
        for row in plan_rows(plan)
    ]
    lines += expected_lines(plan)
    lines += _shared_rate(plan)
    if plan.hold_out.point.tokens > plan.corpus.train_tokens:
        lines.append(
            f"! the hold-out sees {plan.hold_out.point.tokens / plan.corpus.train_tokens:.1f} epochs of the "
            "corpus: repeated tokens teach less than new ones"
        )
    return "\n".join(lines)


def _shared_rate(plan: Plan) -> list[str]:
    """What one learning rate costs the shortest and longest branches of a trunk, where that is worth a word; one that
    was given as a number is all runs' anyway."""
    from scaling.design.shared_rate import shared_rate_costs

    points = [planned.point for planned in plan.sweep]
    costs = shared_rate_costs(points)
    most = max(costs, default=0.0)
    if most < SHARED_RATE_WORTH_SAYING or not (plan.probe or plan.tune):
        return []
    worst = points[costs.index(most)]
    touched = sum(cost >= SHARED_RATE_WORTH_SAYING for cost in costs)
    return [
        f"! the branches of a trunk share one learning rate: the best for their middle length costs "
        f"{_many(touched, 'run')} more than {SHARED_RATE_WORTH_SAYING:.1%} of loss by Step Law's valleys, {most:.2%} "
        f"at most ({format_count(worst.params.total)} parameters on {format_count(worst.tokens)} tokens)"
    ]


def expected_lines(plan: Plan) -> list[str]:
    """The interval that the design will buy at the target, and what others would."""
    told = plan.expected
    if told is None:
        return []
    target = f"at {format_flops(told.target_flops)}"
    if told.target_flops < told.asked_flops:
        times = f"{told.target_flops / plan.sweep_flops:.0f} times the sweep"
        target += f", {times} (no design narrows the answer at {format_flops(told.asked_flops)})"
    rows: list[tuple[str, ExpectedInterval | None, str | None]] = [("this plan", told.planned, None)]
    rows += [(other.name, other.expected, other.reason) for other in told.alternatives]
    wide = max(len(name) for name, *_ in rows)
    lines = ["", f"expected {target} ({told.planned.level:.0%} intervals, law and drift / law alone):"]
    for name, expected, reason in rows:
        if expected is None:
            lines.append(f"  {name:<{wide}}  not possible: {reason}")
            continue
        lines.append(
            f"  {name:<{wide}}  loss ± {expected.loss:.1%} / {expected.loss_if_law_holds:.1%}   optimal N within a "
            f"factor {expected.params:.2f} / {expected.params_if_law_holds:.2f}   ({expected.runs} runs)"
        )
    return lines


def _priced(plan: Plan) -> str:
    """What the fitted runs cost, where an hour has a price."""
    cost = plan.cost
    if cost.usd is None:
        return ""
    hours = cost.makespan_seconds if cost.gpu_seconds is None else cost.gpu_seconds
    return f" · {format_usd(cost.usd)} for the {format_duration(hours)} of the fitted runs"


def run_table(plan: Plan) -> str:
    """Every run of the sweep and the hold-out on a line."""
    head = (
        f"  {'parameters':>10} {'shape':<22} {'tokens':>8} {'D/N':>6} {'FLOPs':>9} {'own FLOPs':>9} {'memory':>9} "
        f"{'minutes':>8}   note"
    )
    lines = [head]
    for at, planned in enumerate((*plan.sweep, plan.hold_out)):
        point = planned.point
        shape = f"{point.shape.layers} x {point.shape.width}, {point.shape.heads} heads"
        lines.append(
            f"  {format_count(point.params.total):>10} {shape:<22} {format_count(point.tokens):>8} "
            f"{point.tokens / point.params.total:>6.3g} {point.flops:>9.2e} {point.cost_flops:>9.2e} "
            f"{planned.memory_bytes / 2**20:>6.0f} MB {planned.seconds / 60:>8.2f}   {_note(plan, at)}"
        )
    return "\n".join(lines)


def _note(plan: Plan, at: int) -> str:
    if at == len(plan.sweep):
        return f"hold-out, {plan.replicates} seeds"
    planned = plan.sweep[at]
    notes = []
    if planned.carrier is not None:
        notes.append("branch")
    elif any(other.carrier == at for other in plan.sweep):
        notes.append("trunk")
    if planned.point.replicate:
        notes.append(f"seed + {planned.point.replicate}")
    return ", ".join(notes)


def _span(bounds: tuple[float, float]) -> str:
    low, high = bounds
    return format_count(low) if low == high else f"{format_count(low)} to {format_count(high)}"
