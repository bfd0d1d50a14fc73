"""Faults of a run's own: a loss that is no number, out of memory, an error every time: faults 12, 14 and 26.

What a spike of the loss does (13) is a single run's affair: tests/trainer/test_spikes.py.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap

import pytest

from sweeps.failures import MAX_FAILURES

from .conftest import Outcome, Site, eventually, finish


def stopped_before_its_end(site: Site) -> None:
    """The sweep's runs are planned, and none is finished that is touched by a test."""
    engine = site.sweep()
    eventually(site.workers)
    engine.kill()
    engine.communicate()
    eventually(lambda: not site.workers(), seconds=30)


@pytest.mark.slow
def test_a_run_that_crashes_every_time_is_given_up_and_the_rest_completes(site: Site, control: Outcome) -> None:
    stopped_before_its_end(site)
    poisoned = next(row.key for row in site.rows() if row.state == "planned")
    folder = site.workspace / "runs" / poisoned[:16]
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(exist_ok=True)
    folder.write_text("where checkpoints would go", encoding="utf-8")
    engine = site.sweep()
    output, _ = engine.communicate(timeout=250)
    rows = {row.key: row for row in site.rows()}
    assert (rows[poisoned].state, rows[poisoned].failures) == ("failed", MAX_FAILURES), output.decode()
    assert rows[poisoned].failure_kind == "run"
    assert rows[poisoned].error
    others = {key: found for key, found in site.outcome().items() if key != poisoned}
    assert others == {key: found for key, found in control.items() if key != poisoned}
    assert not site.workers()


@pytest.mark.slow
def test_a_run_whose_loss_is_no_number_diverges_and_its_neighbours_go_on(site: Site, control: Outcome) -> None:
    """A worker whose weights are poisoned at the twentieth step of one run."""
    stopped_before_its_end(site)
    poisoned = next(row.key for row in site.rows() if row.state == "planned")
    script = textwrap.dedent(f"""
        import threading
        from pathlib import Path
        import torch
        from sweeps import worker
        from sweeps.workspace import Workspace
        from trainer.loop import run
        step = run.Run.next_batch
        def poisoned(self):
            if self.spec.key == {poisoned!r} and self.state.progress.step == 20:
                with torch.no_grad():
                    next(self.state.model.parameters()).fill_(float("nan"))
            return step(self)
        run.Run.next_batch = poisoned
        worker.work(Workspace(Path({str(site.workspace)!r})), "tiny", "sweep", threading.Event())
    """)
    ended = subprocess.run([sys.executable, "-c", script], timeout=400, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    found = {row.key: row.state for row in site.rows()}
    assert found.pop(poisoned) == "diverged"
    assert set(found.values()) == {"finished"}
    others = {key: outcome for key, outcome in site.outcome().items() if key != poisoned}
    assert others == {key: outcome for key, outcome in control.items() if key != poisoned}
    finish(site.sweep())
    assert {row.key: row.failures for row in site.rows()}[poisoned] == 0, "it is not tried again"
    table = site.observations()
    assert set(table.loc[table["status"] == "finished", "run_key"]) == found.keys(), "a fit takes these alone"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits a process's memory by RLIMIT_AS")
def test_a_run_that_does_not_fit_into_memory_says_so_and_is_never_tried_again_blindly(site: Site) -> None:
    """A worker whose memory is limited, once it is under way, to less than one sequence's step needs."""
    stopped_before_its_end(site)
    script = textwrap.dedent(f"""
        import resource, threading
        from pathlib import Path
        import psutil, torch
        from sweeps import worker
        from sweeps.workspace import Workspace
        from trainer.loop import step
        begin = step.TrainingStep._accumulate
        def limited(self, *arguments):
            # What the step asks for now is more than may be had, at any micro-batch.
            used = psutil.Process().memory_info().vms
            resource.setrlimit(resource.RLIMIT_AS, (used + 2**20, -1))
            try:
                keep = torch.empty(2**28)
                return begin(self, *arguments)
            finally:
                resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
        step.TrainingStep._accumulate = limited
        worker.work(Workspace(Path({str(site.workspace)!r})), "tiny", "sweep", threading.Event())
    """)
    planned = {row.key for row in site.rows() if row.state == "planned"}
    ended = subprocess.run([sys.executable, "-c", script], timeout=120, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    for row in site.rows():
        if row.key in planned:
            assert (row.state, row.failures, row.failure_kind) == ("failed", 1, "memory")
            assert (row.error or "").startswith("FAILED_OOM: OutOfMemory: one sequence of")
    assert planned
