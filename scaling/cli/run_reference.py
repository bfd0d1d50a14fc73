"""What RUN means on the command line: a run's folder, or a run that the workspace knows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaling.errors import UserError

if TYPE_CHECKING:
    from trainer.run_folder import TrainedRun

__all__ = ["RunArgument", "find_run"]

RunArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="A run's folder, or in the workspace: its name, its key's beginning, or a study's label."
    ),
]


def find_run(run: str, workspace: Path) -> TrainedRun:
    """The run that ``run`` names; :class:`UserError` if there is none, or more than one."""
    from trainer.run_folder import RunFolder

    if (Path(run) / "run.json").is_file():
        return RunFolder(Path(run)).trained()
    found = _in_workspace(run, workspace) if workspace.is_dir() else {}
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        shown = ", ".join(sorted(key[:16] for key in found)[:8])
        raise UserError(f"RUN {run!r} is the name of {len(found)} runs of {workspace}: give more of a key ({shown})")
    raise UserError(
        f"RUN {run!r} is no run's folder and no name, key or label of a run in the workspace {workspace}: give the "
        "folder that `scaling train` printed, or --workspace"
    )


def _in_workspace(run: str, workspace: Path) -> dict[str, TrainedRun]:
    """By key: runs of their own, and those of the workspace's studies."""
    from sweeps.ledger.find_run import find_in_ledger
    from sweeps.workspace import Workspace
    from trainer.run_folder import RunFolder

    space = Workspace(workspace)
    found = find_in_ledger(run, space)
    for record in sorted(space.trained.glob("*/run.json")):
        trained = RunFolder(record.parent).trained()
        if run == record.parent.name or trained.spec.key.startswith(run):
            found[trained.spec.key] = trained
    return found
