"""``scaling allocate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scaling.cli.options import JsonFlag, print_json
from scaling.errors import UserError


def allocate(
    fit: Annotated[Path, typer.Argument(metavar="FIT.json", help="A fit kept with `scaling fit --out`.")],
    flops: Annotated[float, typer.Option(help="Training compute C, as 6 N D.")],
    serve_tokens: Annotated[
        float | None, typer.Option(help="Tokens the model will process once trained: cheapest over its life.")
    ] = None,
    unique_tokens: Annotated[float | None, typer.Option(help="Distinct tokens there are: the rest is repeats.")] = None,
    shrink: Annotated[float | None, typer.Option(help="Train a model so many times smaller: what it costs.")] = None,
    curve: Annotated[bool, typer.Option("--curve", help="Every size that reaches the same loss.")] = False,
    sweep_flops: Annotated[
        float | None, typer.Option(help="What the fitted sweep took: is one more FLOP of it worth it?")
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Beside the published laws, in dollars.")] = False,
    beside: Annotated[
        list[Path] | None, typer.Option(metavar="FIT.json", help="With --compare: another fit; may be repeated.")
    ] = None,
    accelerator: Annotated[str, typer.Option("--gpu", "--accelerator", help="For dollars: h100, b200, ...")] = "h100",
    price: Annotated[float | None, typer.Option(help="Dollars a GPU-hour; by default from the price table.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Where to put a compute: N and D, and what serving, scarce text, a smaller model or another law would change.

    Exits with 3 if the data supports none of the alternatives asked for; the reason is printed.

    Example: scaling allocate fit.json --flops 1e23 --serve-tokens 1e13 --unique-tokens 5e11 --shrink 4
    """
    from scaling.allocation.answer import answer
    from scaling.cli.fits_on_disk import load_fit

    if beside and not compare:
        raise UserError("--beside names fits to compare with: give --compare too")
    made = answer(
        load_fit(fit),
        flops,
        serve_tokens=serve_tokens,
        unique_tokens=unique_tokens,
        shrink_by=shrink,
        curve=curve,
        sweep_flops=sweep_flops,
        beside={str(path.with_suffix("")): load_fit(path) for path in beside or ()} if compare else None,
        accelerator=accelerator,
        price=price,
    )
    if as_json:
        print_json(made.model_dump(mode="json"))
    else:
        typer.echo(made.summary())
    if made.refusal is not None and made.beside is None:
        raise typer.Exit(3)
