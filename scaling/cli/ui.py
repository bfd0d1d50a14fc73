"""``scaling ui``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from scaling.cli.options import StudyFile, WorkspaceOption
from scaling.errors import UserError


def ui(
    study: StudyFile,
    workspace: WorkspaceOption = Path("workspace"),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on the loopback address.")] = 5000,
    as_json: Annotated[bool, typer.Option("--json", help="Print the server's command instead of starting it.")] = False,
) -> None:
    """Open the MLflow server on the study, on this machine's loopback address only.

    Example: scaling ui quickstart.yaml
    """
    from scaling.cli.options import print_json
    from scaling.cli.publishing import ui_command, ui_page
    from sweeps.study import load_study
    from sweeps.workspace import Workspace

    settings = load_study(study)
    if settings.track.mlflow is None:
        raise UserError(f"{study}: track.mlflow is null, so nothing was tracked; set it and run `scaling run {study}`")
    space = Workspace(workspace)
    uri = space.tracking_uri(settings.track.mlflow)
    page = ui_page(settings.name, space, uri, port)
    if uri.startswith(("http://", "https://")):
        if as_json:
            print_json({"command": None, "page": page})
        else:
            typer.echo(f"the study is tracked by the server {uri}: {page}")
        return
    command = ui_command(uri, space, port)
    if as_json:
        print_json({"command": command, "page": page})
        return
    typer.echo(f"MLflow opens at {page} (Ctrl-C ends it)", err=True)
    os.execv(sys.executable, command)
