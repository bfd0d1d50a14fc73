"""``scaling forecasts`` as a process: what it prints, and that a changed forecast can't pass for a good one."""

from __future__ import annotations

import json
from pathlib import Path

from ..sweeps.ledger.test_registry import Registered
from .conftest import scaling


def test_it_lists_hits_misses_and_coverage_and_refuses_a_changed_forecast(tmp_path: Path) -> None:
    made = Registered(tmp_path)
    printed = scaling("forecasts", "--workspace", ".", cwd=tmp_path)
    assert printed.returncode == 0
    assert "2 of 3 inside their 90% interval (67%" in printed.stdout
    assert printed.stdout.count(" inside\n") == 2
    assert printed.stdout.count(" OUTSIDE\n") == 1
    found = json.loads(scaling("forecasts", "s1", "--workspace", ".", "--json", cwd=tmp_path).stdout)
    assert (found["scored"], found["inside"], len(found["forecasts"])) == (1, 0, 1)
    made.change("DELETE FROM forecasts WHERE study = 's2'")
    refused = scaling("forecasts", "--workspace", ".", cwd=tmp_path)
    assert refused.returncode == 3
    assert "is no longer in the ledger" in refused.stdout


def test_a_workspace_without_forecasts_says_how_one_comes_about(tmp_path: Path) -> None:
    printed = scaling("forecasts", "--workspace", ".", cwd=tmp_path)
    assert (printed.returncode, "no forecast is registered here" in printed.stdout) == (0, True)
    absent = scaling("forecasts", "--workspace", "none", cwd=tmp_path)
    assert absent.returncode == 2
    assert "is no folder" in absent.stderr
