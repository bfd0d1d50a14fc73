"""``scaling export``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from scaling.cli.options import JsonFlag, WorkspaceOption, print_json
from scaling.cli.run_reference import RunArgument, find_run


class Format(StrEnum):
    hf = "hf"


def export(
    run: RunArgument,
    layout: Annotated[Format, typer.Option("--format", help="hf: what transformers loads.")] = Format.hf,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="By default export-KEY in this folder.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an export that lies there.")] = False,
    workspace: WorkspaceOption = Path("workspace"),
    as_json: JsonFlag = False,
) -> None:
    """Write a trained run as a folder that transformers loads, with equal logits.

    Example: scaling export workspace/trained/mine-a66725ab --format hf --out mine
    """
    from trainer.export.hugging_face import export as exported

    trained = find_run(run, workspace)
    folder = out or Path(f"export-{trained.spec.key[:8]}")
    files = exported(trained, folder, force=force, note=lambda message: typer.echo(f"scaling: {message}", err=True))
    if as_json:
        print_json({"run_key": trained.spec.key, "format": layout.value, "files": [str(file) for file in files]})
    else:
        typer.echo(f"wrote {folder}: {', '.join(file.name for file in files)}")
