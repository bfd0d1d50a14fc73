"""A study begun twice, changed, or begun by other software: faults 22, 23 and 24."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path

import pytest

from .conftest import RUNS, Outcome, Site, eventually, finish


@pytest.mark.slow
def test_two_terminals_train_each_run_exactly_once(site: Site, control: Outcome) -> None:
    first, second = site.sweep(), site.sweep()
    finish(first)
    finish(second)
    site.assert_unharmed(control)
    assert [(row.result or {})["resumed"] for row in site.rows()] == [0] * RUNS


TAKER = textwrap.dedent("""
    import sys, time
    from pathlib import Path
    from sweeps.ledger.ledger import Ledger
    from sweeps.ledger.owner import Owner
    url, begin, rounds = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    ledger, me = Ledger(url), Owner.me()
    for number in range(rounds):
        # Both begin each round at the same moment, as two terminals can't.
        time.sleep(max(0.0, begin + 0.15 * number - time.time()))
        while (spec := ledger.lease(f"s{number}", "sweep", me)) is not None:
            print(number, spec.key, flush=True)
            ledger.finish(spec.key, me, "finished", {"steps": 1, "loss_nats": 1.0})
""")


def taken_by_two(url: str, study_runs: int, rounds: int) -> Counter[str]:
    """How often each run was taken where two processes go for the same studies' runs at the same moments."""
    from sweeps.ledger.ledger import Ledger, PlannedRun

    from ..sweeps.ledger.test_ledger import spec

    ledger = Ledger(url)
    for number in range(rounds):
        runs = [PlannedRun(spec=spec(seed=1000 * number + run), stage="sweep", label="r") for run in range(study_runs)]
        ledger.add(f"s{number}", runs)
    ledger.close()
    command = [sys.executable, "-c", TAKER, url, str(time.time() + 4), str(rounds)]
    takers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [taker.communicate(timeout=90)[0].splitlines() for taker in takers]
    assert [taker.returncode for taker in takers] == [0, 0]
    assert all(outputs), "both must have had some"
    return Counter(line for output in outputs for line in output)


@pytest.mark.slow
def test_fifty_races_for_trivial_runs_give_each_to_one(tmp_path: Path) -> None:
    taken = taken_by_two(f"sqlite:///{tmp_path / 'ledger.db'}", study_runs=4, rounds=50)
    assert len(taken) == 200
    assert set(taken.values()) == {1}


def begun(site: Site) -> None:
    engine = site.sweep()
    eventually(site.under_way)
    engine.terminate()
    finish(engine, 143)


@pytest.mark.slow
def test_other_settings_under_the_same_name_are_refused_with_the_difference(site: Site, control: Outcome) -> None:
    begun(site)
    right = site.settings
    site.settings = right | {"hyperparameters": right["hyperparameters"] | {"learning_rate": 0.02}}
    site.write()
    output = " ".join(finish(site.sweep(), 2).split())
    assert "hyperparameters.learning_rate: 0.01 -> 0.02" in output
    assert "another name" in output
    site.settings = right
    site.write()
    finish(site.sweep())
    site.assert_unharmed(control)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("newer", "back"),
    [
        ("UPDATE ledger SET version = version + 1", "UPDATE ledger SET version = version - 1"),
        ("UPDATE runs SET spec = json_set(spec, '$.schema_version', 99)", ""),
    ],
    ids=["ledger", "run"],
)
def test_runs_and_ledgers_of_another_version_are_refused_and_left_as_they_are(
    site: Site, control: Outcome, newer: str, back: str
) -> None:
    begun(site)
    file = site.workspace / "ledger.db"
    with sqlite3.connect(file) as db:
        specs = db.execute("SELECT key, spec FROM runs").fetchall()
        db.execute(newer)
    output = " ".join(finish(site.sweep(), 2).split())
    assert "version" in output
    assert "Traceback" not in output
    with sqlite3.connect(file) as db:
        if back:
            db.execute(back)
        db.executemany("UPDATE runs SET spec = ? WHERE key = ?", [(spec, key) for key, spec in specs])
    finish(site.sweep())
    site.assert_unharmed(control)
