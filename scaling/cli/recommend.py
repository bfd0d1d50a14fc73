"""``scaling recommend``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from scaling.cli.options import JsonFlag, WorkspaceOption, print_json
from scaling.errors import UserError


def recommend(
    source: Annotated[Path, typer.Argument(metavar="STUDY|FIT.json", help="A study file, or a fit kept with --out.")],
    flops: Annotated[float | None, typer.Option(help="Target compute.")] = None,
    gpus: Annotated[int | None, typer.Option(help="With --days: the target as a cluster.")] = None,
    days: Annotated[float | None, typer.Option(help="With --gpus.")] = None,
    accelerator: Annotated[
        str | None, typer.Option("--gpu", "--accelerator", help="h100, a100, b200, mi300x, ...")
    ] = None,
    mfu: Annotated[float | None, typer.Option(help="Achieved share of the peak; by default from practice.")] = None,
    price: Annotated[float | None, typer.Option(help="Dollars a GPU-hour; by default from the price table.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE.yaml", help="Keep the configuration.")] = None,
    register: Annotated[
        bool, typer.Option("--register", help="Register the run's forecast now; `scaling train` does so at its start.")
    ] = False,
    workspace: WorkspaceOption = Path("workspace"),
    as_json: JsonFlag = False,
) -> None:
    """Where to put a large run's compute: size, tokens, shape, learning rate, cost, and what follows, with intervals.

    Without a target a study answers its own question.

    Examples: scaling recommend quickstart.yaml --gpus 1024 --gpu h100 --days 27
              scaling recommend fit.json --flops 1e21
    """
    from scaling.recommendation_page import page

    wanted: dict[str, Any] = {
        "flops": flops,
        "gpus": gpus,
        "days": days,
        "accelerator": accelerator,
        "mfu": mfu,
        "price": price,
    }
    target = {name: value for name, value in wanted.items() if value is not None}
    made = _from_fit(source, target) if source.suffix == ".json" else _from_study(source, workspace, target)
    if register:
        _register(workspace, made)
    if out is not None:
        _keep(out, made)
    if as_json:
        print_json(made.model_dump(mode="json"))
    else:
        typer.echo(page(made))
        if out is not None:
            typer.echo(f"wrote {out}")


def _from_fit(source: Path, target: dict[str, Any]) -> Any:
    from scaling.cli.fits_on_disk import load_fit
    from scaling.recommend import recommend as recommended

    if not {"flops", "gpus", "days"} & target.keys():
        raise UserError("a fit has no question of its own: give --flops, or --gpus and --days (and --gpu)")
    return recommended(load_fit(source), **target)


def _from_study(source: Path, workspace: Path, target: dict[str, Any]) -> Any:
    from scaling.cli.conducting import conducting

    with conducting(source, workspace, quiet=True) as conductor:
        name = conductor.study.name
        if conductor.ledger.plan_of(name) is None:
            raise UserError(f"study {name!r} has not been run in the workspace {workspace}: scaling run {source}")
        made = conductor.plan()
        open_runs = [run for run in conductor.ledger.runs(name, "sweep") if run.state in ("planned", "running")]
        if open_runs or not conductor.ledger.runs(name, "sweep"):
            raise UserError(f"study {name!r} is not finished in the workspace {workspace}: scaling run {source}")
        rates = conductor.learning_rates(made)
        return conductor.recommend(made, conductor.fit(made), rates, **target)


def _register(workspace: Path, made: Any) -> None:
    from sweeps.final_run import register
    from sweeps.ledger.ledger import Ledger
    from sweeps.workspace import Workspace

    space = Workspace(workspace)
    ledger = Ledger(space.ledger_url)
    chain = register(ledger, space, made)
    ledger.close()
    typer.echo(f"registered the forecast {chain[:12]} of run {made.run_key[:8]}", err=True)


def _keep(path: Path, made: Any) -> None:
    from analysis.recommendation_yaml import recommendation_yaml
    from trainer.whole_file import write_whole

    try:
        write_whole(path, recommendation_yaml(made))
    except OSError as error:
        raise UserError(f"--out {path} can't be written: {error.strerror}") from None
