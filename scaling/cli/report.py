"""``scaling report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scaling.cli.options import JsonFlag, WorkspaceOption, print_json


def report(
    studies: Annotated[
        list[Path], typer.Argument(metavar="STUDY...", help="A study file; of two or more, one page compares them.")
    ],
    workspace: WorkspaceOption = Path("workspace"),
    flops: Annotated[float | None, typer.Option(help="Of two or more: the compute that is to be decided.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Of two or more: where their page goes; comparison.html here.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write the report of a finished study again: one HTML file, figures and tables, usable offline.

    Of two or more studies of one workspace: what each is worth beside the first, with the compute multiplier.

    Example: scaling report llama.yaml gpt2.yaml --out llama-gpt2.html
    """
    from scaling.cli.conducting import conducting
    from scaling.cli.publishing import finished, view_of, write_report
    from scaling.errors import UserError

    if len(studies) > 1:
        from analysis.comparison_report import write_comparison

        views = []
        for study in studies:
            with conducting(study, workspace, quiet=as_json) as conductor:
                views.append(view_of(conductor, study))
        path = write_comparison(views, out or Path("comparison.html"), flops)
        if as_json:
            print_json({"report": str(path), "studies": [view.name for view in views]})
        else:
            typer.echo(f"report: {path}")
        return
    if flops is not None or out is not None:
        raise UserError("--flops and --out are of two or more studies: name another, or leave them out")
    (study,) = studies
    with conducting(study, workspace, quiet=as_json) as conductor:
        written = write_report(conductor, finished(conductor, study), study)
    if as_json:
        print_json({"report": str(written.path), "figures": [str(path) for path in written.figures]})
    else:
        typer.echo(f"report: {written.path}")
