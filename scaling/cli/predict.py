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
    at: Annotated[
        str | None,
        typer.Option(
            metavar="INPUTS", help="Of a law of other columns, its inputs, as x=64e9,finetuning_examples=4e6."
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Predict a loss with its interval: of N and D, or of the compute-optimal run of C FLOPs.

    Example: scaling predict fit.json --flops 1e21

    Example: scaling predict tuned.json --at x=64e9,finetuning_examples=4e6
    """
    from scaling.cli.fits_on_disk import load_fit
    from scaling.cli.pages import forecast_page
    from scaling.prediction import predict as predicted

    if at is not None:
        if (params, tokens, flops) != (None, None, None):
            raise UserError("give --at alone: --params, --tokens and --flops are of laws of parameters and tokens")
        _predict_law(fit, at, as_json)
        return
    if (flops is None) == (params is None and tokens is None) or (params is None) != (tokens is None):
        raise UserError("give --params and --tokens together, or --flops alone")
    forecast = predicted(load_fit(fit), params=params, tokens=tokens, flops=flops)
    if as_json:
        print_json(forecast.model_dump(mode="json"))
    else:
        typer.echo(forecast_page(forecast))


def _predict_law(path: Path, at: str, as_json: bool) -> None:
    """One law through columns of any kind: its value where its inputs are as said, for one new measurement."""
    from scaling import laws
    from scaling.cli.fits_on_disk import load_law_fit

    made = load_law_fit(path)
    inputs = _inputs(at, laws.get(made.law).inputs)
    told = made.predict(*inputs.values())
    answer = {
        "law": made.law, "value": made.value, "inputs": inputs, "level": made.level, "estimate": float(told.estimate),
        "low": float(told.low) if made.draws else None, "high": float(told.high) if made.draws else None,
        "within_fitted_range": {
            name: made.fitted_range[name][0] <= given <= made.fitted_range[name][1] for name, given in inputs.items()
        },
    }  # fmt: skip
    if as_json:
        print_json(answer)
        return
    band = f" [{told.low:.4g}, {told.high:.4g}] at {made.level:.0%}" if made.draws else ""
    typer.echo(f"{made.value} {told.estimate:.4g}{band}, by {made.law}")
    for name, inside in answer["within_fitted_range"].items():  # type: ignore[attr-defined]
        low, high = made.fitted_range[name]
        if not inside:
            typer.echo(
                f"! {name} {inputs[name]:.3g} lies beyond the fitted {low:.3g} to {high:.3g}: only if the law holds"
            )


def _inputs(text: str, wanted: tuple[str, ...]) -> dict[str, float]:
    """``x=1e9,y=2`` in the order of the law's inputs."""
    given: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = (piece.strip() for piece in part.partition("="))
        try:
            given[name] = float(number)
        except ValueError:
            raise UserError(f"--at has {part.strip()!r}: write each input as a number, as {wanted[0]}=1e9") from None
    if set(given) != set(wanted):
        raise UserError(f"--at has {', '.join(given)}: this fit's law is of {', '.join(wanted)}")
    return {name: given[name] for name in wanted}
