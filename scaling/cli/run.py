"""``scaling run``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scaling.cli.options import JsonFlag, StudyFile, WorkspaceOption, print_json


def run(
    study: StudyFile,
    workspace: WorkspaceOption = Path("workspace"),
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes; the study file's by default.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Everything, resumable: corpus, plan, sweep, fit, forecast, hold-out, score, recommendation, report, MLflow.

    What is done already is not done again; stop it at any moment and run it again to continue. Exits with 3 if the data
    supports no recommendation; the reasons are printed and stand in the report.

    Example: scaling run quickstart.yaml
    """
    from scaling.cli.conducting import conducting
    from scaling.cli.pages import result_page
    from scaling.cli.publishing import tracked, write_report

    with conducting(study, workspace, quiet=as_json, workers=workers) as conductor:
        made = conductor.plan()
        with tracked(conductor, made) as publish:
            result = conductor.result(made)
            report = write_report(conductor, result, study)
            publish(result, report)
    if as_json:
        print_json(result.summary() | {"report": str(report.path)})
    else:
        typer.echo(result_page(result, report.path, report.mlflow_command))
    if result.recommendation is None:
        raise typer.Exit(3)
