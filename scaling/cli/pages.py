"""What the commands print for people: plans, states, forecasts, results. Text in, nothing computed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scaling.quantity import format_count, format_duration, format_flops, format_usd

if TYPE_CHECKING:
    from analysis.study_view import PlanRow
    from scaling.design.expected import ExpectedInterval
    from scaling.forecast import Forecast
    from scaling.record import Interval
    from scaling.shape import ModelShape
    from sweeps.conduct import StudyResult
    from sweeps.plan import Plan
    from sweeps.study import Study
    from trainer.loop.result import RunResult

__all__ = [
    "corpus_sentence",
    "forecast_page",
    "machine_sentence",
    "plan_page",
    "plan_rows",
    "question_sentence",
    "result_page",
    "run_page",
    "run_table",
]


def question_sentence(study: Study) -> str:
    asked = study.question
    target = (
        format_flops(asked.flops)
        if asked.flops is not None
        else f"{asked.gpus} {(asked.accelerator or 'h100').upper()} for {asked.days:g} days"
    )
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


def plan_rows(plan: Plan) -> list[PlanRow]:
    """The plan as a table: the probe, each budget's line, the hold-out."""
    from analysis.study_view import PlanRow
    from scaling import architectures

    rows = []
    if plan.probe:
        get = architectures.get
        counted = [
            (
                get(p.shape.architecture).count_parameters(p.shape).total,
                get(p.shape.architecture).training_flops_per_token(p.shape) * p.tokens,
                p,
            )
            for p in plan.probe
        ]
        rows.append(
            PlanRow(
                label="learning rates",
                runs=len(counted),
                params=_range([total for total, _, _ in counted]),
                tokens=_range([p.tokens for *_, p in counted]),
                flops=float(sum(flops for _, flops, _ in counted)),
                minutes=sum(p.seconds for *_, p in counted) / 60 / plan.workers,
                why="six rates at two small sizes",
            )
        )
    for budget in plan.budgets:
        line = [planned for planned in plan.sweep if planned.point.budget == budget]
        rows.append(
            PlanRow(
                label=f"{budget:.2e} FLOPs",
                runs=len(line),
                params=_range([p.point.params.total for p in line]),
                tokens=_range([p.point.tokens for p in line]),
                flops=sum(p.point.flops for p in line),
                minutes=sum(p.seconds for p in line) / 60 / plan.workers,
                why="iso-FLOP line",
            )
        )
    if not plan.budgets:
        rows += [_size_row(plan, shape) for shape in plan.shapes]
    held = plan.hold_out
    largest = max(planned.point.flops for planned in plan.sweep)
    rows.append(
        PlanRow(
            label="hold-out",
            runs=plan.replicates,
            params=_range([held.point.params.total]),
            tokens=_range([held.point.tokens]),
            flops=held.point.flops * plan.replicates,
            minutes=held.seconds * -(-plan.replicates // plan.workers) / 60,
            why=f"{held.point.flops / largest:.1f} times the largest fitted run; forecast first",
        )
    )
    return rows


def _size_row(plan: Plan, shape: ModelShape) -> PlanRow:
    """All runs of one size: its trunks with their branches, and those that stand alone."""
    from analysis.study_view import PlanRow

    mine = [planned for planned in plan.sweep if planned.point.shape == shape]
    branches = sum(planned.carrier is not None for planned in mine)
    carriers = len({planned.carrier for planned in mine if planned.carrier is not None})
    alone = len(mine) - branches - carriers
    parts = []
    if branches:
        parts.append(f"{_many(carriers, 'trunk')} with {_many(branches, 'branch')}")
    if alone:
        parts.append(f"{_many(alone, 'run')} alone")
    return PlanRow(
        label=f"{format_count(mine[0].point.params.total)} parameters",
        runs=len(mine),
        params=_range([mine[0].point.params.total]),
        tokens=_range([planned.point.tokens for planned in mine]),
        flops=sum(planned.point.cost_flops for planned in mine),
        minutes=sum(planned.seconds for planned in mine) / 60 / plan.workers,
        why=", ".join(parts),
    )


def _many(count: int, noun: str) -> str:
    plural = "es" if noun.endswith("ch") else "s"
    return f"{count} {noun}{plural if count > 1 else ''}"


def _range(values: Sequence[float]) -> tuple[float, float]:
    return float(min(values)), float(max(values))


def plan_page(plan: Plan) -> str:
    lines = [
        f"{len(plan.sweep)} runs · {len(plan.shapes)} sizes · {format_flops(plan.sweep_flops)}, and a hold-out of "
        f"{format_flops(plan.hold_out.point.flops)} x {plan.replicates} · about "
        f"{format_duration(plan.makespan_seconds())} on {_many(plan.workers, 'worker')}" + _priced(plan),
        f"({machine_sentence(plan)})",
        f"({corpus_sentence(plan)})",
        "",
        f"  {'':<16} {'runs':>4}  {'parameters':<17} {'tokens':<17} {'FLOPs':>9} {'minutes':>8}   why",
    ]
    lines += [
        f"  {row.label:<16} {row.runs:>4}  {_span(row.params):<17} {_span(row.tokens):<17} {row.flops:>9.2e} "
        f"{row.minutes:>8.1f}   {row.why}"
        for row in plan_rows(plan)
    ]
    lines += expected_lines(plan)
    if plan.hold_out.point.tokens > plan.corpus.train_tokens:
        lines.append(
            f"! the hold-out sees {plan.hold_out.point.tokens / plan.corpus.train_tokens:.1f} epochs of the "
            "corpus: repeated tokens teach less than new ones"
        )
    return "\n".join(lines)


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


def forecast_page(forecast: Forecast) -> str:
    distance = (
        f"{forecast.extrapolation_orders:.1f} orders of magnitude beyond the largest fitted run"
        if forecast.extrapolation_orders
        else "inside the fitted range"
    )
    return "\n".join(
        [
            f"loss {_triple(forecast.loss, '.4f')} nats a token ({forecast.level:.0%} interval)",
            f"  {format_count(forecast.params.estimate)} parameters on {format_count(forecast.tokens.estimate)} "
            f"tokens, {format_flops(forecast.flops)}: {distance}",
            *(f"  rests on: {assumption}" for assumption in forecast.assumptions),
        ]
    )


def _triple(interval: Interval, spec: str) -> str:
    bounds = ", ".join("?" if bound is None else format(bound, spec) for bound in (interval.low, interval.high))
    return f"{interval.estimate:{spec}} [{bounds}]"


def result_page(result: StudyResult, report: Path, mlflow_command: str) -> str:
    """What ``scaling run`` ends with: law, forecast against outcome, recommendation, where to look."""
    from scaling.recommendation_page import page
    from sweeps.workspace import shown

    lines = ["", f"── {result.study.name}: fitted law", result.fit.summary(), "", "── forecast against outcome"]
    if result.forecast is None or result.outcome is None:
        lines.append("no scored forecast: " + (result.fit.parametric.reason or "the hold-out run did not finish"))
    else:
        held, outcome = result.forecast, result.outcome
        lines += [
            f"forecast before training:  loss {_triple(held.loss, '.4f')} at {format_flops(held.flops)}, "
            f"{10**held.extrapolation_orders:.1f} times the largest fitted run",
            f"measured:                  loss {outcome.loss:.4f}"
            + (f" (mean of {len(outcome.run_keys)} seeds, SD {outcome.loss_spread:.4f})" if outcome.loss_spread else "")
            + f" · error {outcome.relative_error:+.2%} · {'inside' if outcome.inside else 'OUTSIDE'} the interval",
        ]
    if result.failed:
        lines += ["", f"! {len(result.failed)} runs failed or diverged and are in no fit: scaling status tells why"]
    lines += ["", "── recommendation"]
    if result.recommendation is None:
        refused = [note.message for note in result.fit.diagnostics if note.severity == "refusal"]
        lines += ["refused: the runs don't support one", *(f"! {reason}" for reason in refused), ""]
    else:
        kept = shown(report.parent / "recommendation.yaml")
        lines += [page(result.recommendation), "", f"configuration  {kept}"]
    lines.append(f"report         {shown(report)}")
    if mlflow_command:
        lines.append(f"MLflow         {mlflow_command}")
    return "\n".join(lines)


def run_page(folder: Path, result: RunResult) -> str:
    """What ``scaling train`` ends with."""
    from sweeps.workspace import shown

    place = shown(folder.resolve())
    took = (
        f"{format_count(result.tokens)} tokens in {format_duration(result.wall_seconds)} "
        f"({format_count(result.tokens_per_second)} tok/s, {result.numerics})"
    )
    if result.loss_nats is None:
        return f"diverged after {result.steps:,} steps · {took}\nrun       {place}"
    lines = [
        f"loss {result.loss_nats:.4f} ± {result.loss_sem:.4f} nats a token · {result.bits_per_byte:.4f} bits a byte · "
        f"{format_count(result.held_out_tokens or 0)} held-out tokens",
        took,
        f"run       {place}",
        f'next      scaling generate {place} "Once upon a time"',
        f"          scaling export {place} --format hf",
    ]
    return "\n".join(lines)
