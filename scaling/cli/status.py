"""``scaling status``."""

from __future__ import annotations

from pathlib import Path

import typer

from scaling.cli.options import JsonFlag, StudyFile, WorkspaceOption, print_json


def status(study: StudyFile, workspace: WorkspaceOption = Path("workspace"), as_json: JsonFlag = False) -> None:
    """Show each run's state, progress, loss and, where it failed, why; also while the study is running.

    Example: scaling status quickstart.yaml
    """
    from scaling.cli.pages import status_page, status_record
    from scaling.errors import UserError
    from sweeps.ledger import Ledger
    from sweeps.study import load_study
    from sweeps.workspace import Workspace

    name = load_study(study).name
    ledger = Ledger(Workspace(workspace).ledger_url)
    if ledger.plan_of(name) is None:
        raise UserError(f"study {name!r} has no plan in the workspace {workspace} yet: scaling plan {study}")
    rows = ledger.runs(name)
    if as_json:
        print_json(status_record(name, rows))
    else:
        typer.echo(status_page(name, rows))
