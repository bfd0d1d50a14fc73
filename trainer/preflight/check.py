"""What a preflight found: one line a check, with the remedy where something is wrong."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from scaling.record import Interval, Record

__all__ = ["Check", "Preflight", "not_tried"]

Status = Literal["ok", "warn", "fail", "not tried"]


class Check(Record):
    """``figures`` are what was measured, with units in their names."""

    name: str
    status: Status
    said: str
    remedy: str | None = None
    figures: dict[str, float | int | str | None] = Field(default={})


class Preflight(Record):
    """All checks of one run. ``finish_seconds`` is how long the run will take from now on, in seconds."""

    schema_version: int = 1
    run_key: str | None
    numerics: str | None = Field(description="label of how it was computed; None where it was not decided")
    processes: int
    checks: tuple[Check, ...]
    finish_seconds: Interval | None
    seconds: float = Field(description="that the preflight took")

    @property
    def passed(self) -> bool:
        return all(check.status in ("ok", "warn") for check in self.checks)


def not_tried(names: tuple[str, ...], because: str) -> list[Check]:
    """The checks that another one's failure left out."""
    return [Check(name=name, status="not tried", said=because) for name in names]
