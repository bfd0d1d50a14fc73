"""The base of every type that crosses a package boundary: immutable, validated, unknown keys refused."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict

__all__ = ["Interval", "Record", "canonical_json", "content_hash"]


def canonical_json(value: Any) -> str:
    """``value`` as JSON with sorted keys and no spaces: equal values always give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def content_hash(value: Any) -> str:
    """SHA-256 of the canonical JSON of ``value``, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


class Record(BaseModel):
    """A frozen pydantic model that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


class Interval(Record):
    """An estimate between two bounds; the level is stated by whoever holds it (``Fit.level``)."""

    estimate: float
    low: float | None
    high: float | None

    def times(self, other: Interval | float) -> Interval:
        """The product of positive ranges, low with low and high with high; an open side stays open."""
        by = other if isinstance(other, Interval) else Interval(estimate=other, low=other, high=other)
        return Interval(
            estimate=self.estimate * by.estimate,
            low=None if self.low is None or by.low is None else self.low * by.low,
            high=None if self.high is None or by.high is None else self.high * by.high,
        )
