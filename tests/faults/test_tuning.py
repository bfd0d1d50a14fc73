"""Tuning killed in the middle: faults 1 and 2 where each trial follows from the outcomes of those before."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ..sweeps.conftest import write_text
from .conftest import SETTINGS, Site, eventually

TUNE = {"trials": 4, "sizes": 2, "ranges": {"global_batch_tokens": [256, 1024]}}


def tuned(site: Site) -> dict[str, tuple[Any, ...]]:
    return {
        row.key: (row.label, row.state, row.loss, (row.result or {}).get("weights_hash"))
        for row in site.rows()
        if row.stage == "tune"
    }


def ended(site: Site) -> dict[str, tuple[Any, ...]]:
    return {key: found for key, found in tuned(site).items() if found[1] == "finished"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_tuning_killed_with_its_workers_asks_for_the_same_trials_and_trains_none_twice(tmp_path: Path) -> None:
    text = write_text(tmp_path / "text", documents=150)
    # Pruning looks at what is there when it is asked, so that whether a trial was ended or ran out is a matter of time.
    hyperparameters = {"global_batch_tokens": 128, "tune": TUNE | {"prune": False}}
    settings = SETTINGS | {
        "corpus": SETTINGS["corpus"] | {"source": str(text)},
        "hyperparameters": hyperparameters,
        "execute": {"workers": 1, "checkpoint_seconds": 0.3},
    }
    (tmp_path / "control").mkdir()
    control = Site(tmp_path / "control", settings)
    subprocess.run(control.command("plan"), check=True, stdout=subprocess.DEVNULL)
    (tmp_path / "faulted").mkdir()
    shutil.copytree(control.workspace, tmp_path / "faulted" / "workspace")
    faulted = Site(tmp_path / "faulted", settings)

    # So few trials are no law, which is said at the end of the stage and ends the command.
    output, _ = control.sweep().communicate(timeout=500)
    assert b"hyperparameters.tune" in output
    trials = len(tuned(control))  # of 16 asked for, some twice
    assert trials > 8

    engine = faulted.sweep()
    eventually(lambda: len(ended(faulted)) >= 3)
    workers = faulted.workers()
    engine.kill()
    for worker in workers:
        worker.kill()
    engine.communicate()
    assert len(ended(faulted)) < trials
    output, _ = faulted.sweep().communicate(timeout=500)
    assert b"hyperparameters.tune" in output
    assert tuned(faulted) == tuned(control)
    assert not faulted.workers()
