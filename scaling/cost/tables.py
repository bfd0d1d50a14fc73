"""The data files of cost, each read once."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Any

from scaling.record import Interval

__all__ = ["as_interval", "running_costs", "table"]


@cache
def table(name: str) -> dict[str, Any]:
    """``scaling/data/NAME.toml`` as it stands."""
    text = resources.files("scaling").joinpath(f"data/{name}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def running_costs(section: str) -> dict[str, Any]:
    """One section of what a run costs beside its accelerators."""
    found: dict[str, Any] = table("running_costs")[section]
    return found


def as_interval(row: dict[str, Any], prefix: str = "") -> Interval:
    """Low, typical and high of a row, whose keys may begin with ``prefix``."""
    return Interval(estimate=row[f"{prefix}typical"], low=row[f"{prefix}low"], high=row[f"{prefix}high"])
