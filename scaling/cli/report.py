"""``scaling report``."""

from __future__ import annotations

from pathlib import Path

import typer

from scaling.cli.options import JsonFlag, StudyFile, WorkspaceOption, print_json
from scaling.errors import UserError


def report(study: StudyFile, workspace: WorkspaceOption = Path("workspace"), as_json: JsonFlag = False) -> None:
    """Write the report of a finished study again: one HTML file, figures and tables, usable offline.

    Example: scaling report quickstart.yaml
    """
    from scaling.cli.conducting import conducting
    from scaling.cli.publishing import write_report

    with conducting(study, workspace, quiet=as_json) as conductor:
        name = conductor.study.name
        rows = conductor.ledger.runs(name) if conductor.ledger.plan_of(name) else []
        if not rows or any(row.state in ("planned", "running") for row in rows):
            raise UserError(f"study {name!r} is not finished in the workspace {workspace}: scaling run {study}")
        written = write_report(conductor, conductor.result(conductor.plan()), study)
    if as_json:
        print_json({"report": str(written.path), "figures": [str(path) for path in written.figures]})
    else:
        typer.echo(f"report: {written.path}")
