"""``scaling sweep``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scaling.cli.options import JsonFlag, StudyFile, WorkspaceOption, print_json


def sweep(
    study: StudyFile,
    workspace: WorkspaceOption = Path("workspace"),
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes; the study file's by default.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be trained and what is there already; train nothing.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Train the study's probe and sweep, and nothing after them; `scaling run` goes on from here.

    Runs that failed or were called off are left alone: `scaling retry` plans them again.

    Example: scaling sweep quickstart.yaml --workers 2
    """
    from scaling.cli.conducting import conducting
    from scaling.cli.publishing import tracked
    from scaling.cli.status_pages import dry_run_page, dry_run_record, status_page, status_record
    from sweeps.agenda import agenda
    from sweeps.standing import standing

    with conducting(study, workspace, quiet=as_json, workers=workers) as conductor:
        made = conductor.plan()
        if dry_run:
            items = agenda(conductor, made)
        else:
            with tracked(conductor, made):
                conductor.sweep(made)
        now = standing(conductor.ledger, conductor.workspace, conductor.study.name)
    name = conductor.study.name
    if dry_run and as_json:
        print_json(dry_run_record(name, items))
    elif dry_run:
        typer.echo(dry_run_page(name, items))
    elif as_json:
        print_json(status_record(now))
    else:
        typer.echo(status_page(now))
