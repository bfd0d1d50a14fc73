"""Runs are called off and planned again; nobody takes a run up while another process still writes its checkpoints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scaling.errors import UserError
from sweeps.ledger.control import cancel, retry, states_of
from sweeps.ledger.ledger import Ledger
from sweeps.ledger.owner import Owner

from .test_ledger import planned, spec


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    ledger.add("s", planned(*(spec(seed=seed) for seed in range(4))))
    return ledger


def test_a_planned_run_that_is_called_off_is_not_leased_until_it_is_retried(ledger: Ledger) -> None:
    chosen = spec(seed=2).key
    assert cancel(ledger, "s", [chosen[:10]]) == ([chosen], [])
    me = Owner.me()
    leased = [run.key for _ in range(4) if (run := ledger.lease("s", "sweep", me))]
    assert len(leased) == 3
    assert chosen not in leased
    assert retry(ledger, "s", ["run 2"]) == ([chosen], [])
    again = ledger.lease("s", "sweep", me)
    assert again is not None
    assert again.key == chosen


def test_a_run_in_training_is_told_at_its_next_heartbeat_and_comes_back_only_when_it_was_let_go(
    ledger: Ledger,
) -> None:
    me = Owner.me()
    leased = ledger.lease("s", "sweep", me)
    assert leased
    assert cancel(ledger, "s", [leased.key]).running == [leased.key]
    assert not ledger.heartbeat(leased.key, me, step=3, tokens_per_second=1.0, loss=4.0)
    assert retry(ledger, "s") == ([], [leased.key])
    assert not ledger.finish(leased.key, me, "finished", {"steps": 16})
    assert not ledger.release(leased.key, me)
    assert states_of(ledger, [leased.key]) == {leased.key: "killed"}
    assert retry(ledger, "s") == ([leased.key], [])
    assert states_of(ledger, [leased.key]) == {leased.key: "planned"}


def test_a_called_off_run_of_a_dead_worker_comes_back_too(ledger: Ledger) -> None:
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    leased = ledger.lease("s", "sweep", Owner.of(sleeper.pid))
    assert leased
    cancel(ledger, "s", [leased.key])
    assert retry(ledger, "s").stopping == [leased.key]
    sleeper.kill()
    sleeper.wait()
    assert retry(ledger, "s").planned == [leased.key]


def test_what_has_ended_is_neither_called_off_nor_retried(ledger: Ledger) -> None:
    me = Owner.me()
    done = ledger.lease("s", "sweep", me)
    assert done
    ledger.finish(done.key, me, "finished", {"steps": 16, "loss_nats": 3.0})
    assert len(cancel(ledger, "s").planned) == 3
    assert sorted(retry(ledger, "s").planned) == sorted({spec(seed=seed).key for seed in range(4)} - {done.key})
    assert states_of(ledger, [done.key]) == {done.key: "finished"}


def test_a_name_that_no_run_answers_to_is_a_mistake_and_changes_nothing(ledger: Ledger) -> None:
    for name in ("zzz", ""):
        with pytest.raises(UserError, match="no run of study 's'"):
            cancel(ledger, "s", ["run 1", name])
    assert {row.state for row in ledger.runs("s")} == {"planned"}
