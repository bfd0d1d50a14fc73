"""What ``scaling forecasts`` prints. Text in, nothing computed."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

from scaling.cli.status_pages import printable
from scaling.quantity import format_flops

if TYPE_CHECKING:
    from sweeps.ledger.registry import RegisteredForecast, Registry

__all__ = ["forecasts_page", "forecasts_record"]


def forecasts_record(found: Registry) -> dict[str, Any]:
    return {
        "forecasts": [
            {
                "study": each.study,
                "registered_at": each.registered_at,
                "hash": each.hash,
                "run_keys": list(each.run_keys),
                "forecast": each.forecast.model_dump(mode="json"),
                "outcome": each.outcome and each.outcome.model_dump(mode="json"),
                "problems": list(each.problems),
            }
            for each in found.forecasts
        ],
        "missing": [each.model_dump(mode="json") for each in found.missing],
        "scored": len(found.scored),
        "inside": found.hits,
        "coverage": found.coverage and found.coverage.model_dump(mode="json"),
    }


def forecasts_page(found: Registry) -> str:
    """A line a forecast, then how many held; what can't be believed last."""
    if not found.forecasts and not found.missing:
        return "no forecast is registered here: `scaling run STUDY` registers one before its hold-out runs"
    lines = []
    if found.forecasts:
        width = max(len("study"), *(len(printable(each.study)) for each in found.forecasts))
        heads = f"{'FLOPs':>8}  {'beyond':>7}  {'predicted':<24}  {'actual':<7}  error"
        lines.append(f"{'registered':<16}  {'study':<{width}}  {heads}")
        lines += [_line(each, width) for each in found.forecasts]
    lines += ["", _summary(found)]
    for each in found.forecasts:
        lines += [f"! {each.hash[:12]} of {printable(each.study)}: {problem}" for problem in each.problems]
    for gone in found.missing:
        which = f"{gone.forecast_key[:12]} of {printable(gone.study)}, registered {_stamp(gone.registered_at)}"
        lines.append(f"! the forecast {which}, is no longer in the ledger")
    return "\n".join(lines)


def _line(each: RegisteredForecast, width: int) -> str:
    forecast, outcome = each.forecast, each.outcome
    loss = forecast.loss
    predicted = f"{loss.estimate:.4f} [{loss.low:.4f}, {loss.high:.4f}]"
    end = "its run has not ended"
    if outcome is not None:
        mark = "!" if each.problems else "inside" if outcome.inside else "OUTSIDE"
        end = f"{outcome.loss:<7.4f}  {outcome.relative_error:+.2%} {mark}"
    beyond = f"{10**forecast.extrapolation_orders:.2g}x"
    return (
        f"{_stamp(each.registered_at):<16}  {printable(each.study):<{width}}  "
        f"{format_flops(forecast.flops).removesuffix(' FLOPs'):>8}  {beyond:>7}  {predicted:<24}  {end}"
    )


def _summary(found: Registry) -> str:
    scored, coverage = found.scored, found.coverage
    if coverage is None:
        return "none has been scored: their runs have not ended"
    level = scored[0][0].level
    errors = [abs(outcome.relative_error) for _, outcome in scored]
    return (
        f"{found.hits} of {len(scored)} inside their {level:.0%} interval ({coverage.estimate:.0%}, by chance "
        f"{coverage.low:.0%} to {coverage.high:.0%}); median error {statistics.median(errors):.2%}, "
        f"worst {max(errors):.2%}"
    )


def _stamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
