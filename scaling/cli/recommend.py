"""``scaling recommend``."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaling.cli.options import JsonFlag, WorkspaceOption, print_json
from scaling.errors import UserError

if TYPE_CHECKING:
    from scaling.limits import Limits
    from scaling.recommendation import Recommendation

TARGETS = {"flops", "days", "by", "usd", "kwh", "tco2e", "loss", "gpus"}


class PickChoice(StrEnum):
    optimum = "optimum"
    serving = "serving"
    dollars = "dollars"


def recommend(
    source: Annotated[Path, typer.Argument(metavar="STUDY|FIT.json", help="A study file, or a fit kept with --out.")],
    flops: Annotated[float | None, typer.Option(help="Target compute.")] = None,
    gpus: Annotated[int | None, typer.Option(help="With --days or --by: the target as a cluster.")] = None,
    days: Annotated[float | None, typer.Option(help="With --gpus.")] = None,
    by: Annotated[
        datetime | None, typer.Option(metavar="DATE", formats=["%Y-%m-%d"], help="With --gpus: train until then.")
    ] = None,
    usd: Annotated[float | None, typer.Option(help="Target in dollars of accelerator hours.")] = None,
    kwh: Annotated[float | None, typer.Option(help="Target in energy at the site's meter.")] = None,
    tco2e: Annotated[float | None, typer.Option(help="Target in tonnes of CO2e, by the grid of --region.")] = None,
    loss: Annotated[float | None, typer.Option(help="A loss to reach, nats a token, with the least compute.")] = None,
    accelerator: Annotated[
        str | None, typer.Option("--gpu", "--accelerator", help="h100, a100, b200, mi300x, ...")
    ] = None,
    mfu: Annotated[float | None, typer.Option(help="Achieved share of the peak; by default from practice.")] = None,
    price: Annotated[float | None, typer.Option(help="Dollars a GPU-hour; by default from the price table.")] = None,
    region: Annotated[str | None, typer.Option(help="The grid: us, france, us-virginia, ... or g CO2e a kWh.")] = None,
    power_cap: Annotated[
        float | None,
        typer.Option(metavar="KW", help="Kilowatts that the site can give; with --days or --by in place of --gpus."),
    ] = None,
    max_kwh: Annotated[float | None, typer.Option(help="Energy at most, beside another target.")] = None,
    max_tco2e: Annotated[float | None, typer.Option(help="Tonnes of CO2e at most, beside another target.")] = None,
    unique_tokens: Annotated[float | None, typer.Option(help="Distinct training tokens there are.")] = None,
    serve_tokens: Annotated[float | None, typer.Option(help="Tokens that the model will process once trained.")] = None,
    pick: Annotated[
        PickChoice,
        typer.Option(
            help="serving: the size that is cheapest over training and --serve-tokens. dollars: the shape that is "
            "cheapest to train, even where that is not settled."
        ),
    ] = PickChoice.optimum,
    max_params: Annotated[float | None, typer.Option(help="Parameters at most.")] = None,
    serve_memory_gib: Annotated[float | None, typer.Option(help="The weights must fit in so much memory.")] = None,
    serve_bits: Annotated[float, typer.Option(help="Bits of a served weight.")] = 16,
    max_ms_per_token: Annotated[float | None, typer.Option(help="Decoding one stream on one accelerator.")] = None,
    max_usd_per_million: Annotated[float | None, typer.Option(help="Dollars a million tokens served.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.yaml", help="Keep the configuration, and its rungs beside it.")
    ] = None,
    register: Annotated[
        bool, typer.Option("--register", help="Register the run's forecast now; `scaling train` does so at its start.")
    ] = False,
    workspace: WorkspaceOption = Path("workspace"),
    as_json: JsonFlag = False,
) -> None:
    """Where to put a large run's compute: size, tokens, shape, learning rate, cost, and what follows, with intervals.

    Without a target a study answers its own question.

    Examples: scaling recommend quickstart.yaml --gpus 1024 --gpu h100 --days 27
              scaling recommend fit.json --usd 2e6 --serve-tokens 5e12
              scaling recommend fit.json --tco2e 100 --region france
              scaling recommend quickstart.yaml --flops 3e13 --out recommendation.yaml --register
    """
    from scaling.recommendation_page import page

    wanted: dict[str, Any] = {
        "flops": flops,
        "gpus": gpus,
        "days": days,
        "by": by and by.date(),
        "usd": usd,
        "kwh": kwh,
        "tco2e": tco2e,
        "loss": loss,
        "accelerator": accelerator,
        "mfu": mfu,
        "price": price,
        "region": region,
    }
    target = {name: value for name, value in wanted.items() if value is not None}
    limits = _limits(
        power_cap_kw=power_cap,
        max_kwh=max_kwh,
        max_tco2e=max_tco2e,
        unique_tokens=unique_tokens,
        serve_tokens=serve_tokens,
        max_params=max_params,
        serve_memory_gib=serve_memory_gib,
        serve_bits=serve_bits,
        max_ms_per_token=max_ms_per_token,
        max_usd_per_million=max_usd_per_million,
    )
    target |= {"limits": limits, "pick": pick.value}
    made, *rungs = _from_fit(source, target) if source.suffix == ".json" else _from_study(source, workspace, target)
    if register:
        _register(workspace, made)
    kept = [] if out is None else _keep(out, made, rungs)
    if as_json:
        print_json(made.model_dump(mode="json"))
    else:
        typer.echo(page(made))
        for path in kept:
            typer.echo(f"wrote {path}")


def _limits(**given: float | None) -> Limits:
    from pydantic import ValidationError

    from scaling.limits import Limits

    try:
        return Limits(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        # As `scaling cost` names it, the power cap's option leaves out its unit.
        option = str(first["loc"][0]).removesuffix("_kw").replace("_", "-") if first["loc"] else "limits"
        raise UserError(f"--{option} is {first['input']}: {first['msg']}") from None


def _from_fit(source: Path, target: dict[str, Any]) -> list[Recommendation]:
    from scaling.cli.fits_on_disk import load_fit
    from scaling.recommend import recommend as recommended

    if not TARGETS & target.keys():
        raise UserError(
            "a fit has no question of its own: give --flops, --gpus and --days or --by, --usd, --kwh, --tco2e, or "
            "--loss"
        )
    return [recommended(load_fit(source), **target)]


def _from_study(source: Path, workspace: Path, target: dict[str, Any]) -> list[Recommendation]:
    """The study's recommendation and, if it has a run, its rungs' as they are trained."""
    from scaling.cli.conducting import conducting

    with conducting(source, workspace, quiet=True) as conductor:
        name = conductor.study.name
        if conductor.ledger.plan_of(name) is None:
            raise UserError(f"study {name!r} has not been run in the workspace {workspace}: scaling run {source}")
        made = conductor.plan()
        open_runs = [run for run in conductor.ledger.runs(name, "sweep") if run.state in ("planned", "running")]
        if open_runs or not conductor.ledger.runs(name, "sweep"):
            raise UserError(f"study {name!r} is not finished in the workspace {workspace}: scaling run {source}")
        rates, fit = conductor.learning_rates(made), conductor.fit(made)
        if not TARGETS & target.keys():
            target = (
                conductor.study.question.target(target["limits"])
                | {"pick": target["pick"]}
                | {name: target[name] for name in ("mfu", "price", "accelerator", "region") if name in target}
            )
        recommended = conductor.recommender(made, fit, rates)
        final = recommended(**target)
        return [final, *(recommended(flops=rung.flops, stage="rung") for rung in final.rungs)]


def _register(workspace: Path, made: Recommendation) -> None:
    from sweeps.final_run import register
    from sweeps.ledger.ledger import Ledger
    from sweeps.workspace import Workspace

    space = Workspace(workspace)
    ledger = Ledger(space.ledger_url)
    chain = register(ledger, space, made)
    ledger.close()
    typer.echo(f"registered the forecast {chain[:12]} of run {(made.run_key or '')[:8]}", err=True)


def _keep(path: Path, made: Recommendation, rungs: list[Recommendation]) -> list[Path]:
    from analysis.recommendation_yaml import recommendation_yaml
    from trainer.whole_file import write_whole

    names = [path, *(path.with_name(f"{path.stem}.rung-{at}{path.suffix}") for at in range(1, len(rungs) + 1))]
    try:
        for name, one in zip(names, [made, *rungs], strict=True):
            write_whole(name, recommendation_yaml(one))
    except OSError as error:
        raise UserError(f"--out {path} can't be written: {error.strerror}") from None
    return names
