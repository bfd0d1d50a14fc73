"""A run that is called off while it trains saves and stops; retried, it ends as if it had never been stopped."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from sweeps.conduct import Conductor
from sweeps.ledger.control import cancel, retry
from sweeps.ledger.ledger import Ledger, RunRow
from sweeps.study import Study
from sweeps.workspace import Workspace


@pytest.mark.slow
def test_a_run_called_off_in_training_is_killed_and_ends_like_the_control_once_it_is_retried(
    tiny_study: Study, tmp_path: Path, silent: Any
) -> None:
    design = {"kind": "grid", "params": [30_000], "tokens": [50_000, 300_000]}
    settings = tiny_study.model_dump(mode="json") | {"design": design, "budget": {"flops": 1e12}}
    study = Study.model_validate(settings)
    control = _swept(study, tmp_path / "control", silent)

    conductor = Conductor(study, Workspace(tmp_path / "workspace"), silent)
    plan = conductor.plan()
    called_off: list[str] = []

    def call_off() -> None:
        ledger = Ledger(conductor.workspace.ledger_url)
        while not called_off:
            time.sleep(0.05)
            under_way = [row.key for row in ledger.runs(study.name) if row.state == "running" and row.step > 0]
            called_off.extend(cancel(ledger, study.name, under_way[:1]).running if under_way else [])
        ledger.close()

    thread = threading.Thread(target=call_off)
    thread.start()
    conductor.sweep(plan)
    thread.join()
    rows = {row.key: row for row in conductor.ledger.runs(study.name)}
    (key,) = called_off
    assert {row.state for at, row in rows.items() if at != key} == {"finished"}
    assert rows[key].state == "killed"
    assert list(conductor.workspace.run_folder(key).glob("step-*.checkpoint"))
    assert retry(conductor.ledger, study.name) == ([key], [])
    conductor.sweep(plan)
    ended = {row.key: row for row in conductor.ledger.runs(study.name)}
    assert _outcome(ended) == control
    assert (ended[key].result or {})["resumed"] == 1
    assert {at: row.ended_at for at, row in ended.items() if at != key} == {
        at: row.ended_at for at, row in rows.items() if at != key
    }


def _swept(study: Study, root: Path, silent: Any) -> dict[str, Any]:
    conductor = Conductor(study, Workspace(root), silent)
    conductor.sweep(conductor.plan())
    return _outcome({row.key: row for row in conductor.ledger.runs(study.name)})


def _outcome(rows: dict[str, RunRow]) -> dict[str, Any]:
    return {key: (row.state, row.loss, (row.result or {}).get("weights_hash")) for key, row in rows.items()}
