"""``scaling track``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scaling.cli.options import JsonFlag, StudyFile, WorkspaceOption, print_json
from scaling.errors import UserError


def track(
    study: StudyFile,
    replay: Annotated[
        bool, typer.Option("--replay", help="Send everything again: into an emptied or damaged store, or another one.")
    ] = False,
    uri: Annotated[
        str | None, typer.Option("--uri", metavar="URI", help="An MLflow tracking URI; the study file's by default.")
    ] = None,
    workspace: WorkspaceOption = Path("workspace"),
    as_json: JsonFlag = False,
) -> None:
    """Send MLflow what it lacks of a study; with --replay rebuild the study's MLflow runs from the ledger.

    Doing it twice changes nothing. Runs whose process is gone are marked KILLED.

    Example: scaling track quickstart.yaml --replay --uri sqlite:///copy.db
    """
    from scaling.cli.conducting import conducting
    from scaling.cli.publishing import send_again

    with conducting(study, workspace, quiet=as_json) as conductor:
        target = uri or conductor.study.track.mlflow
        if target is None:
            raise UserError(f"track.mlflow is null in {study}: give --uri")
        if conductor.ledger.plan_of(conductor.study.name) is None:
            raise UserError(f"study {conductor.study.name!r} has nothing to track in {workspace}: scaling run {study}")
        sent = send_again(conductor, conductor.plan(), study, target, anew=replay)
    if as_json:
        print_json(sent)
    else:
        page = " and its report" if sent["report"] else ""
        typer.echo(f"{sent['study']}: {sent['runs']} runs{page} are in MLflow at {sent['uri']} ({sent['status']})")
