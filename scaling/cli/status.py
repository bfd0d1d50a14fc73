"""``scaling status``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaling.cli.options import JsonFlag, StudyFile, WorkspaceOption, print_json

if TYPE_CHECKING:
    from sweeps.standing import Standing


def status(
    study: StudyFile,
    workspace: WorkspaceOption = Path("workspace"),
    watch: Annotated[bool, typer.Option("--watch", help="Go on showing it until nothing is left to train.")] = False,
    every: Annotated[float, typer.Option(min=0.2, metavar="SECONDS", help="Between two looks of --watch.")] = 2.0,
    everything: Annotated[bool, typer.Option("--all", help="Each run, however many.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show each run's state, progress, speed and loss, the time left and, where one failed, why; also while it runs.

    With --watch and --json: one JSON object a line at each look.

    Example: scaling status quickstart.yaml --watch
    """
    from scaling.cli.status_display import watch_json, watch_study
    from scaling.cli.status_pages import status_page, status_record
    from scaling.errors import UserError
    from sweeps.ledger.ledger import Ledger
    from sweeps.standing import standing
    from sweeps.study import load_study
    from sweeps.workspace import Workspace

    name = load_study(study).name
    space = Workspace(workspace)
    ledger = Ledger(space.ledger_url)
    if ledger.plan_of(name) is None:
        raise UserError(f"study {name!r} has no plan in the workspace {workspace} yet: scaling plan {study}")

    def look() -> Standing:
        return standing(ledger, space, name)

    if watch and as_json:
        watch_json(look, every)
    elif watch:
        watch_study(look, every)
    elif as_json:
        print_json(status_record(look()))
    else:
        typer.echo(status_page(look(), everything=everything))
