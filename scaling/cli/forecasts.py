"""``scaling forecasts``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scaling.cli.options import JsonFlag, WorkspaceOption, print_json


def forecasts(
    study: Annotated[
        str | None, typer.Argument(metavar="[STUDY]", help="Only this study's, by its name or its file.")
    ] = None,
    workspace: WorkspaceOption = Path("workspace"),
    as_json: JsonFlag = False,
) -> None:
    """How good the forecasts were: each that was registered before its run, its outcome, and how many held.

    A forecast that was changed, removed or registered too late is marked, and the exit code is 3.

    Example: scaling forecasts --workspace demo
    """
    from scaling.cli.forecasts_page import forecasts_page, forecasts_record
    from scaling.errors import UserError
    from sweeps.ledger.ledger import Ledger
    from sweeps.ledger.registry import registry
    from sweeps.study import load_study
    from sweeps.workspace import Workspace

    if not workspace.is_dir():
        raise UserError(f"--workspace {workspace} is no folder: name the workspace that the studies ran in")
    name = load_study(Path(study)).name if study and Path(study).is_file() else study
    space = Workspace(workspace)
    ledger = Ledger(space.ledger_url)
    found = registry(ledger, space.forecasts, name)
    ledger.close()
    if as_json:
        print_json(forecasts_record(found))
    else:
        typer.echo(forecasts_page(found))
    if found.missing or any(each.problems for each in found.forecasts):
        raise typer.Exit(3)
