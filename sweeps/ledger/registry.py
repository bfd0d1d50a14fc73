"""What became of every forecast of a workspace, and whether each can be believed.

A forecast is believed if the ledger's hash chain covers it as it stands, if no run it concerns had started before, and
if its outcome is what those runs measured. A chain alone does not show that its last links were cut off: each forecast
is therefore also witnessed by a line in a file beside the ledger, written once and only ever appended to.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa

from scaling.forecast import Forecast, Outcome
from scaling.prediction import score
from scaling.record import Interval, Record
from sweeps.ledger.ledger import Ledger, RunRow

__all__ = ["RegisteredForecast", "Registry", "Witness", "register_forecast", "registry", "witness"]


class Witness(Record):
    """One line of the file beside the ledger."""

    study: str
    forecast_key: str
    registered_at: float


class RegisteredForecast(NamedTuple):
    study: str
    registered_at: float
    """Seconds since the epoch."""
    forecast: Forecast
    run_keys: tuple[str, ...]
    hash: str
    outcome: Outcome | None
    problems: tuple[str, ...]
    """Why it can't be believed; empty for nearly all."""


class Registry(NamedTuple):
    forecasts: tuple[RegisteredForecast, ...]
    missing: tuple[Witness, ...]
    """Witnessed, and no longer in the ledger."""

    @property
    def scored(self) -> list[tuple[Forecast, Outcome]]:
        """Those that count: believed, and their runs have ended."""
        return [(each.forecast, each.outcome) for each in self.forecasts if each.outcome and not each.problems]

    @property
    def hits(self) -> int:
        return sum(outcome.inside for _, outcome in self.scored)

    @property
    def coverage(self) -> Interval | None:
        """Share of outcomes inside their interval, with Wilson's 90% interval; None without a scored forecast."""
        if not self.scored:
            return None
        from scipy.stats import binomtest  # takes a second to load, and every study loads this module

        held = binomtest(self.hits, len(self.scored)).proportion_ci(0.9, method="wilson")
        share = self.hits / len(self.scored)
        return Interval(estimate=share, low=min(held.low, share), high=max(held.high, share))


def witness(file: Path, study: str, forecast: Forecast, registered_at: float) -> None:
    """Append a line to ``file`` that outlives a change of the ledger."""
    line = Witness(study=study, forecast_key=forecast.key, registered_at=registered_at).model_dump_json()
    with file.open("a", encoding="utf-8") as lines:
        lines.write(line + "\n")
        lines.flush()
        os.fsync(lines.fileno())


def register_forecast(ledger: Ledger, witnesses: Path, study: str, forecast: Forecast, run_keys: list[str]) -> str:
    """Append ``forecast`` to the chain, and its witness to the file; returns the chain's hash. ``RuntimeError`` as
    :meth:`Ledger.register`."""
    chain = ledger.register(study, forecast, run_keys)
    witness(witnesses, study, forecast, time.time())
    return chain


def registry(ledger: Ledger, witnesses: Path, study: str | None = None) -> Registry:
    """Every forecast of the ledger or of one ``study``, the oldest first, held against chain, runs and outcome."""
    broken = set(ledger.broken_links())
    rows = ledger.forecasts(study)
    runs = {row.key: row for name in {row.study for row in rows} for row in ledger.runs(name, light=True)}
    found = tuple(
        RegisteredForecast(
            study=row.study,
            registered_at=row.registered_at,
            forecast=Forecast.model_validate(row.forecast),
            run_keys=tuple(row.run_keys),
            hash=row.hash,
            outcome=Outcome.model_validate(row.outcome) if row.outcome else None,
            problems=tuple(_problems(row, runs, broken=row.id in broken)),
        )
        for row in rows
    )
    lines = witnesses.read_text(encoding="utf-8").splitlines() if witnesses.exists() else []
    seen = [Witness.model_validate_json(line) for line in lines if line.strip()]
    known = {(each.study, each.forecast.key) for each in found}
    gone = [each for each in seen if study in (None, each.study) and (each.study, each.forecast_key) not in known]
    return Registry(found, tuple(gone))


def _problems(row: sa.Row[Any], runs: Mapping[str, RunRow], *, broken: bool) -> list[str]:
    problems = []
    if broken:
        problems.append("it, or a forecast before it, was changed or removed after it was registered")
    concerned = [runs[key] for key in row.run_keys if key in runs]
    for run in concerned:
        if run.started_at is not None and run.started_at < row.registered_at:
            stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run.started_at))
            problems.append(f"its run {run.key[:8]} had started before, at {stamp}")
    if row.outcome is not None:
        told = Outcome.model_validate(row.outcome)
        measured = [runs[key].loss for key in told.run_keys if key in runs]
        losses = [loss for loss in measured if loss is not None]
        whole = len(losses) == len(told.run_keys)
        if whole and told != score(Forecast.model_validate(row.forecast), losses, told.run_keys):
            problems.append("its outcome is not what its runs measured")
    return problems
