"""``scaling study new``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scaling.cli.options import JsonFlag, print_json
from scaling.errors import UserError

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _study() -> None:
    """Write a study file."""


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
