"""What the commands print for people: forecasts and results. Text in, nothing computed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from scaling.quantity import format_count, format_duration, format_flops

if TYPE_CHECKING:
    from scaling.forecast import Forecast
    from scaling.record import Interval
    from sweeps.conduct import StudyResult
    from sweeps.final_run import Scored
    from trainer.loop.result import RunResult
    from trainer.preflight.check import Preflight

__all__ = ["forecast_page", "preflight_page", "result_page", "run_page", "scored_line"]


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


def scored_line(scored: Scored) -> str:
    """The registered forecast of one run beside what it measured."""
    forecast, outcome = scored.forecast, scored.outcome
    return (
        f"forecast  {_triple(forecast.loss, '.4f')} before it started · error {outcome.relative_error:+.2%} · "
        f"{'inside' if outcome.inside else 'OUTSIDE'} the {forecast.level:.0%} interval"
    )


def preflight_page(found: Preflight) -> str:
    """What ``scaling train --preflight`` ends with: a line a check, and the remedy under those that need one."""
    lines = []
    for check in found.checks:
        lines.append(f"{check.status:<10}{check.name:<12} {check.said}")
        if check.remedy:
            lines.append(f"{'':<23}{check.remedy}")
    counts = {status: sum(check.status == status for check in found.checks) for status in ("fail", "warn")}
    verdict = "ready" if found.passed else "not ready"
    wrong = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    how = f" · {found.numerics}" if found.numerics else ""
    return "\n".join([*lines, f"{verdict}{f': {wrong}' if wrong else ''} · {format_duration(found.seconds)}{how}"])
