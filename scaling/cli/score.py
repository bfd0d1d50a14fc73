"""``scaling score``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scaling.cli.options import JsonFlag, WorkspaceOption, print_json


def score(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Of a run that `scaling train` finished.")],
    workspace: WorkspaceOption = Path("workspace"),
    as_json: JsonFlag = False,
) -> None:
    """Hold a large run that was trained elsewhere against the forecast that was registered before it.

    A run trained in its study's workspace is scored by `scaling train` itself.

    Example: scaling score copied/recommendation-1a2b3c4d --workspace demo
    """
    from scaling.cli.pages import scored_line
    from scaling.cli.sending import send
    from scaling.errors import UserError
    from sweeps.final_run import score_folder
    from sweeps.workspace import Workspace
    from trainer.run_folder import RunFolder

    if not workspace.is_dir():
        raise UserError(f"--workspace {workspace} is no folder: name the workspace that the study ran in")
    space = Workspace(workspace)
    scored = score_folder(space, RunFolder(folder))
    model = send(space, scored, quiet=as_json)
    if as_json:
        print_json(
            {
                "study": scored.study,
                "forecast": scored.forecast.model_dump(mode="json"),
                "outcome": scored.outcome.model_dump(mode="json"),
                "model": model,
            }
        )
    else:
        typer.echo(f"measured  {scored.outcome.loss:.4f}\n{scored_line(scored)}")
        if model is not None:
            typer.echo(f"model     {model} in MLflow")
