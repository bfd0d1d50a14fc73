"""``scaling retry``."""

from __future__ import annotations

from pathlib import Path

import typer

from scaling.cli.options import JsonFlag, RunNames, StudyFile, WorkspaceOption, print_json


def retry(
    study: StudyFile, runs: RunNames = None, workspace: WorkspaceOption = Path("workspace"), as_json: JsonFlag = False
) -> None:
    """Plan runs that failed or were called off again, with a clean record; `scaling run` then trains them.

    They go on from their checkpoints. Without RUN: all of the study's.

    Example: scaling retry quickstart.yaml
    """
    from sweeps.ledger.control import retry as plan_again
    from sweeps.ledger.ledger import Ledger
    from sweeps.study import load_study
    from sweeps.workspace import Workspace

    name = load_study(study).name
    done = plan_again(Ledger(Workspace(workspace).ledger_url), name, runs or ())
    if as_json:
        print_json({"study": name, "planned": done.planned, "stopping": done.stopping})
        return
    typer.echo(
        f"{name}: {len(done.planned)} runs are planned again" + (f"; next: scaling run {study}" if done.planned else "")
    )
    if done.stopping:
        typer.echo(f"! {len(done.stopping)} are still being stopped by their workers; try again in a few seconds")
