"""What became of forecasts, and that none can be made better afterwards unseen."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pytest

from scaling.forecast import Forecast
from scaling.prediction import score
from sweeps.ledger.ledger import Ledger, PlannedRun
from sweeps.ledger.owner import Owner
from sweeps.ledger.registry import registry, witness

from .test_ledger import forecast, spec

LOSSES = (3.0, 3.4, 3.05)


class Registered:
    """Three studies, each with one forecast of 3.0 or so before its run; the runs measured ``LOSSES``."""

    def __init__(self, folder: Path) -> None:
        self.file, self.lines = folder / "ledger.db", folder / "forecasts.jsonl"
        self.ledger = Ledger(f"sqlite:///{self.file}")
        self.forecasts: list[Forecast] = []
        for number, loss in enumerate(LOSSES):
            study, run = f"s{number}", spec(seed=number)
            self.ledger.add(study, [PlannedRun(spec=run, stage="hold-out", label="r")])
            made = forecast(3.0 + number / 100)
            self.ledger.register(study, made, [run.key])
            witness(self.lines, study, made, time.time())
            self.forecasts.append(made)
            self.train(study, loss)
            self.ledger.score(made.key, score(made, [loss], [run.key]))

    def train(self, study: str, loss: float) -> None:
        me = Owner.me()
        leased = self.ledger.lease(study, "hold-out", me)
        assert leased is not None
        self.ledger.finish(leased.key, me, "finished", {"loss_nats": loss, "steps": 1})

    def change(self, statement: str, *values: object) -> None:
        with sqlite3.connect(self.file) as db:
            db.execute(statement, values)

    def problems(self) -> list[tuple[str, ...]]:
        return [each.problems for each in registry(self.ledger, self.lines).forecasts]


@pytest.fixture
def registered(tmp_path: Path) -> Registered:
    return Registered(tmp_path)


def test_hits_misses_and_coverage_are_over_all_studies(registered: Registered) -> None:
    found = registry(registered.ledger, registered.lines)
    assert [each.study for each in found.forecasts] == ["s0", "s1", "s2"]
    inside = [made.loss.low <= loss <= made.loss.high for made, loss in zip(registered.forecasts, LOSSES, strict=True)]  # type: ignore[operator]
    assert found.hits == sum(inside) == 2
    assert found.coverage is not None
    assert found.coverage.low is not None
    assert found.coverage.high is not None
    assert found.coverage.estimate == pytest.approx(2 / 3)
    assert found.coverage.low < 2 / 3 < found.coverage.high
    assert not found.missing
    assert registered.problems() == [(), (), ()]


def test_a_forecast_whose_run_has_not_ended_counts_neither_way(registered: Registered) -> None:
    registered.ledger.register("s0", forecast(2.0), [])
    found = registry(registered.ledger, registered.lines)
    assert len(found.forecasts) == 4
    assert len(found.scored) == 3


def test_a_changed_forecast_is_marked_and_no_longer_counts(registered: Registered) -> None:
    registered.change("UPDATE forecasts SET forecast = json_set(forecast, '$.loss.high', 9.0) WHERE study = 's1'")
    assert any("changed or removed" in problem for problem in registered.problems()[1])
    assert len(registry(registered.ledger, registered.lines).scored) == 2


@pytest.mark.parametrize("study", ["s0", "s2"])
def test_a_removed_forecast_is_missed_even_the_last(registered: Registered, study: str) -> None:
    registered.change("DELETE FROM forecasts WHERE study = ?", study)
    found = registry(registered.ledger, registered.lines)
    assert [each.study for each in found.missing] == [study]
    assert registry(registered.ledger, registered.lines, "s1").missing == ()


def test_a_better_outcome_than_was_measured_is_marked(registered: Registered) -> None:
    registered.change("UPDATE forecasts SET outcome = json_set(outcome, '$.loss', 3.01) WHERE study = 's1'")
    assert registered.problems()[1] == ("its outcome is not what its runs measured",)


def test_a_forecast_of_a_run_that_had_begun_is_marked(registered: Registered) -> None:
    registered.change("UPDATE runs SET started_at = started_at - 3600 WHERE key = ?", spec(seed=0).key)
    assert registered.problems()[0][0].startswith(f"its run {spec(seed=0).key[:8]} had started before")
