"""``scaling compare``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaling.cli.options import JsonFlag, print_json
from scaling.errors import UserError

if TYPE_CHECKING:
    from scaling.comparison import Arm


def compare(
    first: Annotated[Path, typer.Argument(metavar="FIRST", help="A fit (`scaling fit --out`), or a study's folder.")],
    second: Annotated[Path, typer.Argument(metavar="SECOND", help="Another, of a recipe that differs in one thing.")],
    flops: Annotated[float, typer.Option(help="Compute C of the run that is to be decided.")],
    figures: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Draw runs, frontiers and the compute multiplier there.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Which of two recipes is better at C FLOPs, by how much, and what compute that is worth.

    Two architectures, optimisers, tokenizers or mixtures, each swept and fitted by itself. Folders of studies know
    their tokenizers: where those differ, losses are compared in bits a byte. Exits with 3 if the data does not decide.

    Example: scaling compare workspace/studies/llama workspace/studies/gpt2 --flops 1e17 --figures drawn
    """
    from scaling.comparison import compare as compared

    names = (first.stem, second.stem) if first.stem != second.stem else (str(first), str(second))
    arms = _arm(first, names[0]), _arm(second, names[1])
    told = compared(*arms, flops)
    if figures is not None:
        _draw(arms, (first, second), flops, figures)
    if as_json:
        print_json(told.model_dump(mode="json") | {"decided": told.decided})
    else:
        typer.echo(told.summary())
    if not told.decided:
        raise typer.Exit(3)


def _arm(path: Path, name: str) -> Arm:
    from scaling.cli.fits_on_disk import load_fit
    from scaling.comparison import Arm

    if not path.is_dir():
        return Arm(name, load_fit(path))
    fit = load_fit(path / "fit.json")
    plan = path / "plan.json"
    corpus = json.loads(plan.read_bytes())["corpus"] if plan.is_file() else {}
    return Arm(name, fit, corpus.get("tokenizer_key"), corpus.get("bytes_per_token"))


def _draw(arms: Sequence[Arm], places: Sequence[Path], flops: float, folder: Path) -> None:
    import pandas as pd

    from analysis.comparison_data import compare_arms, runs_of_fit, runs_of_table
    from analysis.figures import comparison
    from analysis.figures.gallery import laid_out, write_figure

    # A study's folder knows the exact compute of each run; a fit alone has what it fitted.
    tables = [place / "observations.csv" for place in places]
    runs = [
        runs_of_table(pd.read_csv(table), arm.fit) if table.is_file() else runs_of_fit(arm.fit)
        for table, arm in zip(tables, arms, strict=True)
    ]
    figure = laid_out(comparison.draw, compare_arms(arms, runs, flops))
    try:
        paths = write_figure(figure, "comparison", folder)
    except OSError as error:
        raise UserError(f"--figures {folder} can't be written: {error.strerror}") from None
    typer.echo(f"drawn: {', '.join(str(path) for path in paths)}", err=True)
