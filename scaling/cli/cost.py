"""``scaling cost``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaling.cli.options import JsonFlag, print_json
from scaling.errors import UserError

if TYPE_CHECKING:
    from scaling.recommendation import Recommendation

DEFAULT_DAYS = 30
MOST = 1e30
"""Of FLOPs, parameters and tokens: beyond it every number that follows is nonsense."""


def cost(
    recommendation: Annotated[
        Path | None, typer.Argument(metavar="[RECOMMENDATION.yaml]", help="A file of `scaling recommend --out`.")
    ] = None,
    params: Annotated[float | None, typer.Option(help="Total parameters.")] = None,
    tokens: Annotated[float | None, typer.Option(help="Training tokens.")] = None,
    flops: Annotated[
        float | None, typer.Option(help="Training compute; 6 N D by default, and alone 20 tokens a parameter.")
    ] = None,
    accelerator: Annotated[
        str | None, typer.Option("--gpu", "--accelerator", help="h100, b200, tpu-v5p, epyc, ...")
    ] = None,
    gpus: Annotated[int | None, typer.Option(help="How many.")] = None,
    days: Annotated[float | None, typer.Option(help="Without --gpus: as many as train so long (30).")] = None,
    mfu: Annotated[float | None, typer.Option(help="Achieved share of the peak; by default from practice.")] = None,
    price: Annotated[float | None, typer.Option(help="Dollars a GPU-hour; by default from the price table.")] = None,
    region: Annotated[str | None, typer.Option(help="The grid: us, france, us-virginia, ... or g CO2e a kWh.")] = None,
    pue: Annotated[float | None, typer.Option(help="The site's power over its servers'.")] = None,
    watts: Annotated[
        float | None, typer.Option(help="What a device draws with its part of the server; by default from its rating.")
    ] = None,
    power_cap: Annotated[float | None, typer.Option(metavar="KW", help="Kilowatts that the site can give.")] = None,
    people: Annotated[int, typer.Option(help="Engineers to pay.")] = 0,
    salary: Annotated[float | None, typer.Option(help="Dollars a year of one, everything in it (500,000).")] = None,
    team_days: Annotated[
        float | None, typer.Option(help="How long they are paid; by default as the run takes.")
    ] = None,
    batch: Annotated[float | None, typer.Option(help="Tokens a step; by default Step Law's.")] = None,
    context: Annotated[int | None, typer.Option(help="Tokens a sequence.")] = None,
    vocabulary: Annotated[int | None, typer.Option(help="Of the shape that is made of --params.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="The accelerators, grids and thresholds known.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """What a training run costs: dollars, days, failures, energy, carbon, laws it falls under, and a layout that fits.

    Examples: scaling cost --params 405e9 --tokens 15.6e12 --gpus 16384 --people 50 --region us-virginia
              scaling cost recommendation.yaml --gpu b200 --power-cap 2000
    """
    from scaling.cost.page import listing, page

    if listed:
        if as_json:
            print_json(_tables())
        else:
            typer.echo(listing())
        return
    wanted = {
        "accelerator": accelerator,
        "gpus": gpus,
        "days": days,
        "mfu": mfu,
        "price": price,
        "region": region,
        "pue": pue,
        "drawn_watts": watts,
        "power_cap_kw": power_cap,
    }
    made = _made(
        recommendation,
        {
            "params": params,
            "tokens": tokens,
            "flops": flops,
            "batch": batch,
            "context": context,
            "vocabulary": vocabulary,
        },
        wanted,
        {"people": people, "days": team_days} | ({} if salary is None else {"salary_usd": salary}),
    )
    if as_json:
        print_json(made.model_dump(mode="json"))
    else:
        typer.echo(page(made))


def _made(source: Path | None, run: dict[str, Any], wanted: dict[str, Any], team: dict[str, Any]) -> Any:
    from scaling.cluster_wanted import DEFAULT_ACCELERATOR
    from scaling.cost.run import Team, cost_of_run, devices_within
    from scaling.hardware import cluster_estimate

    if team["people"] < 0:
        raise UserError(f"people is {team['people']}: it must be 0 or more")
    recommended = None if source is None else _read(source)
    if recommended is None:
        shape, tokens, batch, flops = _asked(run)
    else:
        given = [f"--{name}" for name, value in run.items() if value is not None]
        if given:
            raise UserError(f"{', '.join(given)} and {source} both say what is trained: give one of them")
        shape, tokens, flops = recommended.shape, recommended.tokens.estimate, recommended.flops
        batch = recommended.global_batch_tokens
        if recommended.cluster is not None:
            wanted = wanted | {
                name: getattr(recommended.cluster, name)
                for name in ("accelerator", "gpus")
                if wanted[name] is None and wanted["days"] is None
            }
    name, mfu = wanted["accelerator"] or DEFAULT_ACCELERATOR, wanted["mfu"]
    if wanted["gpus"] is not None and wanted["days"] is not None:
        raise UserError("--gpus and --days both say how many: give one of them")
    gpus, within = wanted["gpus"], DEFAULT_DAYS if wanted["days"] is None else wanted["days"]
    if gpus is None:
        gpus = devices_within(within, flops, name, mfu, width=shape.width)
    cluster = cluster_estimate(flops, gpus, name, mfu, wanted["price"], width=shape.width)
    if wanted["gpus"] is None:
        chosen = f"number of GPUs: the least power of two that trains within {within:g} days"
        cluster = cluster.model_copy(update={"source": f"{cluster.source}; {chosen}"})
    rest = {name: wanted[name] for name in ("region", "pue", "drawn_watts", "power_cap_kw")}
    return cost_of_run(shape, tokens, batch, flops, cluster, team=Team(**team), **rest)


def _asked(run: dict[str, Any]) -> tuple[Any, float, int, float]:
    """Shape, tokens, batch and FLOPs of a run that is named by numbers alone."""
    from scaling import architectures
    from scaling.compute import flops_6nd
    from scaling.model_scale import llama_at_scale
    from scaling.published import optimum
    from scaling.recipe import recipe_from_literature

    params, tokens, flops = run["params"], run["tokens"], run["flops"]
    for name in ("params", "tokens", "flops", "batch"):
        if run[name] is not None and not 1 <= run[name] <= MOST:
            raise UserError(f"{name} is {run[name]:g}: it must be a number from 1 to {MOST:g}")
    if params is None and tokens is not None and flops is not None:
        params = flops / 6 / tokens
    if params is None and flops is not None:
        params = optimum("twenty", flops).params
    if params is None or (tokens is None and flops is None):
        raise UserError(
            "what is trained is not said: give --params and --tokens, or --flops, or a recommendation's file"
        )
    tokens = flops / 6 / params if tokens is None else tokens
    flops = flops_6nd(params, tokens) if flops is None else flops
    try:
        shape = llama_at_scale(params, vocabulary=run["vocabulary"], context=run["context"])(params)
    except ValueError as error:
        raise UserError(f"params is {params:g}: {error}") from None
    counts = architectures.get("llama").count_parameters(shape)
    law = recipe_from_literature(counts, tokens, shape.context).global_batch_tokens
    return shape, tokens, law if run["batch"] is None else round(run["batch"]), flops


def _read(path: Path) -> Recommendation:
    from analysis.recommendation_yaml import read_recommendation

    made = read_recommendation(path)
    if made is None:
        raise UserError(f"{path} is no recommendation: give a file that `scaling recommend --out` wrote")
    return made


def _tables() -> dict[str, Any]:
    from scaling.cost.energy import regions
    from scaling.cost.thresholds import thresholds
    from scaling.hardware import accelerators

    held = {"accelerators": accelerators(), "regions": regions(), "thresholds": thresholds()}
    return {name: [row.model_dump(mode="json") for row in rows] for name, rows in held.items()}
