"""What the figure of win rates shows, once: each model's rate against one baseline, raw and with length taken out,
beside how long its answers are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scaling.errors import UserError
from scaling.preference.win_rate import LengthControlledWinRate
from scaling.record import Interval

__all__ = ["WinRateRow", "WinRates", "win_rates"]


@dataclass(frozen=True)
class WinRateRow:
    label: str
    raw: Interval
    controlled: Interval
    mean_length: float


@dataclass(frozen=True)
class WinRates:
    """Rows from the highest controlled rate to the lowest."""

    baseline: str
    baseline_length: float
    unit: str
    """What lengths are counted in, as tokens."""
    level: float
    rows: tuple[WinRateRow, ...]


def win_rates(told: Mapping[str, LengthControlledWinRate], *, baseline: str, unit: str = "tokens") -> WinRates:
    """``told`` by the models' labels, all against ``baseline``; :class:`UserError` where there is none, or their levels
    differ."""
    if not told:
        raise UserError("no win rate was given: compare one model with the baseline or more")
    if len(levels := {one.level for one in told.values()}) > 1:
        raise UserError(f"win rates have intervals of levels {', '.join(map(str, sorted(levels)))}: give all one level")
    rows = [WinRateRow(label, one.raw, one.rate, one.mean_length) for label, one in told.items()]
    return WinRates(
        baseline=baseline,
        baseline_length=sum(one.baseline_mean_length for one in told.values()) / len(told),
        unit=unit,
        level=levels.pop(),
        rows=tuple(sorted(rows, key=lambda row: -row.controlled.estimate)),
    )
