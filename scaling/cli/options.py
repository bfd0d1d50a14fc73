"""Options that several commands share, with the same name, meaning and help everywhere."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["JsonFlag", "RunNames", "StudyFile", "WorkspaceOption", "print_json"]

WorkspaceOption = Annotated[
    Path,
    typer.Option(
        "--workspace",
        "-w",
        envvar="SCALING_WORKSPACE",
        metavar="DIR",
        help="Folder of the ledger, corpora, runs and studies.",
    ),
]
JsonFlag = Annotated[
    bool, typer.Option("--json", help="One JSON object on standard output; progress on standard error.")
]
StudyFile = Annotated[Path, typer.Argument(metavar="STUDY", help="The study file, as `scaling study new` writes it.")]
RunNames = Annotated[
    list[str] | None, typer.Argument(metavar="[RUN]...", help="Runs by the beginning of their key, or their label.")
]


def print_json(value: Any) -> None:
    """One JSON object on standard output; never NaN, which is not JSON."""
    json.dump(value, sys.stdout, indent=2, allow_nan=False)
    sys.stdout.write("\n")
