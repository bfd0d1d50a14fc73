"""A worker trains runs of one shape in one step where the calibration says so, and alone otherwise."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from sweeps import worker
from sweeps.conduct import Conductor
from sweeps.ledger.ledger import Ledger, PlannedRun, RunRow
from sweeps.ledger.owner import Owner
from sweeps.ledger.tracker import LedgerTracker
from sweeps.planning.plan import run_spec
from sweeps.study import Study
from sweeps.worker import work
from sweeps.workspace import Workspace
from trainer.loop.calibration import Calibration


def trained(study: Study, folder: Path, silent: Any, together: int, monkeypatch: pytest.MonkeyPatch) -> list[RunRow]:
    """Three runs that differ in seed and rate, and one of another size, as one worker leaves them."""
    monkeypatch.setattr(Calibration, "together", lambda *_: together)
    workspace = Workspace(folder)
    conductor = Conductor(study, workspace, silent)
    plan = conductor.plan()
    shape, other = plan.shapes[:2]
    specs = [run_spec(study, plan, shape, 128 * 60, rate, seed) for rate, seed in ((0.01, 0), (0.02, 1), (0.01, 2))]
    specs.append(run_spec(study, plan, other, 128 * 60, 0.01, 0))
    ledger = Ledger(workspace.ledger_url)
    ledger.add(study.name, [PlannedRun(spec=spec, stage="probe", label="run") for spec in specs])
    work(workspace, study.name, "probe", threading.Event())
    by_key = {row.key: row for row in ledger.runs(study.name, "probe")}
    return [by_key[spec.key] for spec in specs]


def test_runs_of_one_shape_are_trained_together_and_end_as_they_would_alone(
    tiny_study: Study, tmp_path: Path, silent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    grouped = trained(tiny_study, tmp_path / "grouped", silent, 8, monkeypatch)
    alone = trained(tiny_study, tmp_path / "alone", silent, 1, monkeypatch)
    assert {row.state for row in grouped + alone} == {"finished"}
    assert [row.result["numerics"].endswith("x3") for row in grouped if row.result] == [True, True, True, False]
    assert not any("x3" in row.result["numerics"] for row in alone if row.result)
    # Together they run on PyTorch's own kernels and alone perhaps on ours, or in another order of sums.
    assert [row.loss for row in grouped] == pytest.approx([row.loss for row in alone], rel=5e-3)


def test_branches_start_from_their_carriers_checkpoints_and_end_as_if_trained_alone(
    tiny_study: Study, tmp_path: Path, silent: Any
) -> None:
    lengths = (128 * 40, 128 * 80, 128 * 120)
    losses, firsts = {}, {}
    for how in ("branched", "alone"):
        workspace = Workspace(tmp_path / how)
        plan = Conductor(tiny_study, workspace, silent).plan()
        specs = [run_spec(tiny_study, plan, plan.shapes[0], tokens, 0.01, 0, lengths) for tokens in lengths]
        carrier = specs[-1].key if how == "branched" else None
        ledger = Ledger(workspace.ledger_url)
        ledger.add(
            tiny_study.name,
            [
                PlannedRun(spec=one, stage="sweep", label="run", carrier=None if one.key == carrier else carrier)
                for one in specs
            ],
        )
        work(workspace, tiny_study.name, "sweep", threading.Event())
        rows = ledger.runs(tiny_study.name, "sweep")
        assert {row.state for row in rows} == {"finished"}
        losses[how] = {row.key: row.loss for row in rows}
        firsts[how] = sorted(row.result["first_step"] for row in rows if row.result)
    assert losses["branched"] == losses["alone"]
    assert firsts["alone"] == [0, 0, 0]
    assert firsts["branched"] == sorted([0, *(one.branch_step for one in specs[:-1])])


class SlowLedger:
    """Takes a while for every transaction."""

    def __init__(self, clock: list[float], seconds: float) -> None:
        self.clock, self.seconds, self.calls = clock, seconds, 0

    def heartbeat(self, *_: object, **__: object) -> bool:
        self.calls += 1
        self.clock[0] += self.seconds
        return True


@pytest.mark.parametrize(("seconds", "calls"), [(0.001, range(99, 101)), (0.02, range(24, 26)), (1.0, range(9, 11))])
def test_the_slower_the_disk_the_less_often_it_is_waited_for(
    seconds: float, calls: range, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred seconds of progress: written once a second, half a percent of the time, or every ten seconds."""
    clock = [0.0]
    monkeypatch.setattr(worker.time, "monotonic", lambda: clock[0])
    ledger = SlowLedger(clock, seconds)
    tracker = LedgerTracker(ledger, "key", Owner.me())  # type: ignore[arg-type]
    while clock[0] < 100:
        clock[0] += 0.01
        tracker.progress(1, 1.0, 1.0, 1.0)
    assert ledger.calls in calls
