"""Runs that are trained in one step, of which one is called off."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

from sweeps.ledger.ledger import RunRow

from ..sweeps.conftest import write_text
from .conftest import SETTINGS, Outcome, Site, eventually


def group(site: Site) -> list[RunRow]:
    """The six rates of the larger size, which is trained first."""
    probe = [row for row in site.rows() if row.stage == "probe"]
    return [row for row in probe if row.flops == max(each.flops for each in probe)]


def ended(site: Site) -> Outcome:
    """What the group came to."""
    eventually(lambda: (rows := group(site)) and all(row.state not in ("planned", "running") for row in rows))
    keys = {row.key for row in group(site)}
    return {key: found for key, found in site.outcome().items() if key in keys}


def stack(site: Site) -> None:
    """Freeze in the plan that this machine does several runs of any shape faster in one step."""
    with sqlite3.connect(site.workspace / "ledger.db") as db:
        (text,) = db.execute("SELECT plan FROM studies").fetchone()
        plan = json.loads(text)
        largest = plan["hold_out"]["point"]["shape"]
        speeds = [speed | {"shape": largest} for speed in plan["calibration"]["speeds"][:1]]
        plan["calibration"] |= {"together_speedup": 5.0, "speeds": speeds}
        db.execute("UPDATE studies SET plan = ?", [json.dumps(plan)])
    db.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_one_of_a_group_that_is_called_off_ends_alone(tmp_path: Path) -> None:
    text = write_text(tmp_path / "text", documents=150)
    settings = SETTINGS | {
        "corpus": SETTINGS["corpus"] | {"source": str(text)},
        "design": {"kind": "grid", "params": [15_000, 30_000], "tokens": [60_000]},
        "hyperparameters": {"learning_rate": "probe", "global_batch_tokens": 128},
        "execute": {"workers": 1, "checkpoint_seconds": 0.3},
    }
    (tmp_path / "control").mkdir()
    control = Site(tmp_path / "control", settings)
    subprocess.run(control.command("plan"), check=True, stdout=subprocess.DEVNULL)
    stack(control)
    (tmp_path / "faulted").mkdir()
    shutil.copytree(control.workspace, tmp_path / "faulted" / "workspace")
    faulted = Site(tmp_path / "faulted", settings)

    engine = control.sweep()
    expected = ended(control)
    engine.terminate()
    engine.communicate(timeout=100)
    assert {(row.result or {})["numerics"].split()[-1] for row in group(control)} == {"x6"}

    engine = faulted.sweep()
    called_off = eventually(faulted.under_way)[0].key
    subprocess.run([*faulted.command("cancel"), called_off], check=True, stdout=subprocess.DEVNULL)
    assert len(faulted.under_way()) == 5
    found = ended(faulted)
    engine.terminate()
    engine.communicate(timeout=100)
    assert found.pop(called_off)[0] == "killed"
    del expected[called_off]
    assert found == expected
    results = [row.result for row in group(faulted) if row.result]
    assert [result["resumed"] for result in results] == [0] * 5, "nobody stopped for it"
    assert list((faulted.workspace / "runs" / called_off[:16]).glob("step-*.checkpoint"))
