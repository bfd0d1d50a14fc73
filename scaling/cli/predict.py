"""``scaling predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scaling.cli.options import JsonFlag, print_json
from scaling.errors import UserError


def predict(
    fit: Annotated[Path, typer.Argument(metavar="FIT.json", help="A fit kept with `scaling fit --out`.")],
    params: Annotated[float | None, typer.Option(help="Parameters N, under the fit's convention.")] = None,
    tokens: Annotated[float | None, typer.Option(help="Training tokens D.")] = None,
    flops: Annotated[float | None, typer.Option(help="Compute C: N and D are then the optimal ones.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Predict a loss with its interval: of N and D, or of the compute-optimal run of C FLOPs.

    Example: scaling predict fit.json --flops 1e21
    """
    from scaling.cli.fits_on_disk import load_fit
    from scaling.cli.pages import forecast_page
    from scaling.prediction import predict as predicted

    if (flops is None) == (params is None and tokens is None) or (params is None) != (tokens is None):
        raise UserError("give --params and --tokens together, or --flops alone")
    forecast = predicted(load_fit(fit), params=params, tokens=tokens, flops=flops)
    if as_json:
        print_json(forecast.model_dump(mode="json"))
    else:
        typer.echo(forecast_page(forecast))
