"""``scaling study new``, ``export`` and ``import``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scaling.cli.options import JsonFlag, StudyFile, WorkspaceOption, print_json
from scaling.errors import UserError

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _study() -> None:
    """Write a study file; carry a study from one workspace to another."""


@app.command("new", epilog="Example: scaling study new quickstart")
def new(
    name: Annotated[str, typer.Argument(help="The study's name; the file is NAME.yaml.")],
    directory: Annotated[Path, typer.Option("--in", metavar="DIR", help="Where to write it.")] = Path(),
    as_json: JsonFlag = False,
) -> None:
    """Write NAME.yaml: a complete study with every key explained, ready to run."""
    import re

    from sweeps.study import NAME_PATTERN, study_template
    from trainer.whole_file import write_whole

    if not re.match(NAME_PATTERN, name) or ".." in name:
        raise UserError(f"NAME is {name!r}: use letters, digits, '.', '_' and '-', 64 at most, a letter or digit first")
    path = directory / f"{name}.yaml"
    if path.exists():
        raise UserError(f"{path} already exists; choose another name or remove it first")
    write_whole(path, study_template(name))
    if as_json:
        print_json({"study_file": str(path)})
    else:
        typer.echo(f"wrote {path}\nnext: scaling plan {path}   or   scaling run {path}")


@app.command("export", epilog="Example: scaling study export quickstart.yaml quickstart.tar.gz")
def export(
    study: StudyFile,
    file: Annotated[Path, typer.Argument(metavar="FILE.tar.gz", help="Where to write it.")],
    checkpoints: Annotated[bool, typer.Option("--checkpoints", help="Take the runs' checkpoints too.")] = False,
    workspace: WorkspaceOption = Path("workspace"),
    as_json: JsonFlag = False,
) -> None:
    """Write a study's plan, runs, curves, forecasts and outcomes to one file, also while it runs."""
    from scaling.quantity import format_count
    from sweeps.bundle.export import export as write_bundle
    from sweeps.ledger.ledger import Ledger
    from sweeps.study import load_study
    from sweeps.workspace import Workspace

    name, space = load_study(study).name, Workspace(workspace)
    if not file.parent.is_dir():
        raise UserError(f"FILE is {file}, but there is no folder {file.parent}")
    wrote = write_bundle(Ledger(space.ledger_url), space, name, file, checkpoints=checkpoints)
    if as_json:
        print_json({"study": name, "file": str(file), **wrote})
    else:
        typer.echo(
            f"wrote {file}: {wrote['runs']} runs, {wrote['points']} points, {wrote['checkpoints']} checkpoints, "
            f"{format_count(wrote['bytes'])}B\nnext: scaling study import {file} --workspace OTHER"
        )


@app.command("import", epilog="Example: scaling study import quickstart.tar.gz")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE.tar.gz", help="What `scaling study export` wrote.")],
    workspace: WorkspaceOption = Path("workspace"),
    as_json: JsonFlag = False,
) -> None:
    """Merge an exported study into a workspace: the same run in both is one run, and the further state wins."""
    from dataclasses import asdict

    from sweeps.bundle.merge import import_study
    from sweeps.ledger.ledger import Ledger
    from sweeps.workspace import Workspace

    space = Workspace(workspace)
    merged = import_study(Ledger(space.ledger_url), space, file)
    if as_json:
        print_json(asdict(merged))
        return
    typer.echo(
        f"{merged.study}: {len(merged.taken)} runs taken from {file}, {len(merged.kept)} as they were here, "
        f"{merged.forecasts} forecasts, {merged.checkpoints} checkpoints"
    )
    for conflict in merged.conflicts:
        typer.echo(f"! {conflict}")
