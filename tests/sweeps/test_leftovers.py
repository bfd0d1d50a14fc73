"""Only what nobody needs is removed: property over all states of a carrier and its branch."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from sweeps.ledger.ledger import ENDED, Ledger, PlannedRun
from sweeps.ledger.owner import Owner
from sweeps.ledger.schema import RUNS
from sweeps.leftovers import leftovers, remove_leftovers
from sweeps.workspace import Workspace

from .ledger.test_ledger import spec

STATES = ("planned", "running", "killed but held", *ENDED)


def lay_checkpoints(workspace: Workspace, key: str) -> set[Path]:
    folder = workspace.run_folder(key)
    folder.mkdir(parents=True)
    names = ("step-000000000008.checkpoint", "step-000000000016.checkpoint", "branch-000000000008.checkpoint")
    for name in (*names, "step-000000000016.checkpoint.99.tmp"):
        (folder / name).write_bytes(b"x" * 100)
    return {folder / name for name in names}


def bring_to(ledger: Ledger, key: str, state: str) -> None:
    held = state in ("running", "killed but held")
    values = {"state": state.removesuffix(" but held"), "owner": str(Owner.me()) if held else None}
    with ledger.transaction() as db:
        db.execute(sa.update(RUNS).where(RUNS.c.key == key).values(**values))


@pytest.mark.parametrize("branch_state", STATES)
@pytest.mark.parametrize("carrier_state", STATES)
def test_a_checkpoint_goes_only_if_its_run_and_all_that_leave_on_its_way_have_ended_well(
    tmp_path: Path, carrier_state: str, branch_state: str
) -> None:
    workspace = Workspace(tmp_path)
    ledger = Ledger(workspace.ledger_url)
    carrier, branch = spec(8192), spec(4096)
    ledger.add(
        "s",
        [
            PlannedRun(spec=carrier, stage="sweep", label="carrier"),
            PlannedRun(spec=branch, stage="sweep", label="branch", carrier=carrier.key),
        ],
    )
    for key, state in ((carrier.key, carrier_state), (branch.key, branch_state)):
        bring_to(ledger, key, state)
    whole = {key: lay_checkpoints(workspace, key) for key in (carrier.key, branch.key)}
    found = leftovers(ledger, workspace)
    gone = {leftover.path for leftover in found if leftover.kind == "checkpoint of a finished run"}
    well = ("finished", "diverged")
    expected: set[Path] = set()
    if branch_state in well:
        expected |= whole[branch.key]
        if carrier_state in well:
            expected |= whole[carrier.key]
    assert gone == expected
    temporaries = {leftover.path.parent for leftover in found if leftover.kind == "half-written"}
    held = {workspace.run_folder(k) for k, s in ((carrier.key, carrier_state), (branch.key, branch_state))
            if s in ("running", "killed but held")}  # fmt: skip
    assert temporaries == {workspace.run_folder(carrier.key), workspace.run_folder(branch.key)} - held
    kept = {leftover.path for leftover in leftovers(ledger, workspace, keep_final=True)}
    assert gone - kept == {path for path in gone if path.name == "step-000000000016.checkpoint"}


def test_unknown_folders_and_old_temporaries_go_and_everything_else_stays(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    ledger = Ledger(workspace.ledger_url)
    unknown = workspace.run_folder("ab" * 32)
    lay_checkpoints(workspace, "ab" * 32)
    precious = [tmp_path / "runs" / "notes", tmp_path / "trained" / "mine", workspace.study_folder("s")]
    for folder in precious:
        folder.mkdir(parents=True)
        (folder / "file").write_text("precious")
    (tmp_path / "runs" / "cdcdcdcdcdcdcdcd").symlink_to(precious[1])
    old, new = workspace.study_folder("s") / ".fit.json.ab12cd_x", workspace.study_folder("s") / ".fit.json.ab12cd_y"
    for file in (old, new):
        file.write_text("half")
    os.utime(old, (time.time() - 7200,) * 2)
    found = leftovers(ledger, workspace)
    assert {leftover.path for leftover in found} == {unknown, old}
    assert next(leftover.size for leftover in found if leftover.path == unknown) == 400
    assert remove_leftovers(ledger, workspace, found) == found
    assert not unknown.exists() and not old.exists() and new.exists()
    assert all((folder / "file").read_text() == "precious" for folder in precious)


def test_what_has_come_to_be_needed_since_it_was_shown_is_not_removed(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    ledger = Ledger(workspace.ledger_url)
    carrier, branch = spec(8192), spec(4096)
    ledger.add("s", [PlannedRun(spec=carrier, stage="sweep", label="carrier")])
    bring_to(ledger, carrier.key, "finished")
    whole = lay_checkpoints(workspace, carrier.key)
    found = leftovers(ledger, workspace)
    ledger.add("t", [PlannedRun(spec=branch, stage="sweep", label="branch", carrier=carrier.key)])
    remove_leftovers(ledger, workspace, found)
    assert all(path.exists() for path in whole)
