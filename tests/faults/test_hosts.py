"""Workers on a host with another processor than the one that the plan was made on."""

from __future__ import annotations

import json
import os
import sqlite3
import textwrap
from pathlib import Path
from typing import Any

import pytest

from .conftest import Outcome, Site, finish


def pretending(folder: Path, more: str = "") -> dict[str, str]:
    """The environment in which every worker, and nobody else, takes its processor for another."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        textwrap.dedent("""
            import sys
            if "sweeps.worker" in sys.orig_argv:
                from trainer.loop import calibrate, numerics
                numerics._cpuinfo = lambda: {"model name": "Another Processor"}
        """)
        + textwrap.indent(more, " " * 4),
        encoding="utf-8",
    )
    return {
        "PYTHONPATH": f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        "XDG_CACHE_HOME": str(folder / "cache"),
    }


def change_plan(site: Site, **changes: Any) -> None:
    with sqlite3.connect(site.workspace / "ledger.db") as db:
        (plan,) = db.execute("SELECT plan FROM studies").fetchone()
        plan = json.loads(plan)
        for section, values in changes.items():
            plan[section] |= values
        db.execute("UPDATE studies SET plan = ?", [json.dumps(plan)])
    db.close()


@pytest.mark.slow
def test_another_processor_is_calibrated_once_for_all_its_workers(site: Site, control: Outcome, tmp_path: Path) -> None:
    site.write(workers=2)
    environment = pretending(tmp_path / "hook")
    finish(site.sweep(**environment))
    # The processor is the same one, whatever it is called: so are the numbers.
    site.assert_unharmed(control)
    (calibrated,) = (tmp_path / "hook" / "cache" / "lossfrontier").glob("host-*.json")
    found = json.loads(calibrated.read_text())["calibration"]
    assert found["processor"].startswith("Another Processor")
    for row in site.rows():
        assert row.result is not None
        assert row.result["system"]["processor"] == found["processor"]
        # Held against a peak that was measured here: the plan's is another processor's.
        precision = row.result["numerics"].split()[1]
        peak = found[f"matmul_gflops_{precision}"] * 1e9
        assert row.result["mfu"] == pytest.approx(row.result["flops_per_second"] / peak)


@pytest.mark.slow
def test_a_host_that_can_hardly_compute_as_the_plan_does_ends_the_study_with_the_reason(
    site: Site, tmp_path: Path
) -> None:
    change_plan(site, numerics={"precision": "bf16", "kernels": False})
    slow_bf16 = "calibrate._matmul_gflops = lambda device, dtype: 1.0 if 'bf' in str(dtype) else 80.0\n"
    said = finish(site.sweep(**pretending(tmp_path / "hook", slow_bf16)), 2)
    last = said.strip().splitlines()[-1]
    assert "can't train this study: the plan computes in bf16, whose products are 80 times slower" in last
    assert {row.state for row in site.rows()} == {"planned"}
