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
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Plan failed runs again first.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Train the study's probe and sweep, and nothing after them; `scaling run` goes on from here.

    Example: scaling sweep quickstart.yaml --workers 2
    """
    from scaling.cli.conducting import conducting
    from scaling.cli.pages import status_page, status_record
    from scaling.cli.publishing import tracked

    with conducting(study, workspace, quiet=as_json, workers=workers) as conductor:
        made = conductor.plan()
        if retry_failed:
            conductor.ledger.retry_failed(conductor.study.name)
        with tracked(conductor, made):
            conductor.sweep(made)
        rows = conductor.ledger.runs(conductor.study.name)
    if as_json:
        print_json(status_record(conductor.study.name, rows))
    else:
        typer.echo(status_page(conductor.study.name, rows))
