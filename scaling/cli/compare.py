"""``scaling compare``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaling.cli.options import JsonFlag, print_json

if TYPE_CHECKING:
    from scaling.comparison import Arm


def compare(
    first: Annotated[Path, typer.Argument(metavar="FIRST", help="A fit (`scaling fit --out`), or a study's folder.")],
    second: Annotated[Path, typer.Argument(metavar="SECOND", help="Another, of a recipe that differs in one thing.")],
    flops: Annotated[float, typer.Option(help="Compute C of the run that is to be decided.")],
    as_json: JsonFlag = False,
) -> None:
    """Which of two recipes is better at C FLOPs, by how much, and what compute that is worth.

    Two architectures, optimisers, tokenizers or mixtures, each swept and fitted by itself. Folders of studies know
    their tokenizers: where those differ, losses are compared in bits a byte. Exits with 3 if the data does not decide.

    Example: scaling compare workspace/studies/llama workspace/studies/gpt2 --flops 1e17
    """
    from scaling.comparison import compare as compared

    names = (first.stem, second.stem) if first.stem != second.stem else (str(first), str(second))
    told = compared(_arm(first, names[0]), _arm(second, names[1]), flops)
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
