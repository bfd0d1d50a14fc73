"""``scaling fit``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaling.cli.options import JsonFlag, print_json
from scaling.errors import UserError

if TYPE_CHECKING:
    from scaling.fit import Fit
    from scaling.table import Table

METHODS = ("parametric", "isoflop", "envelope")


def fit(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Runs as .csv or .parquet (parameters, tokens, loss), or what another tool logged: "
            "mlflow:EXPERIMENT, wandb:EXPORT.csv, tensorboard:FOLDER, optuna:STORAGE#STUDY.",
        ),
    ],
    columns: Annotated[
        str | None,
        typer.Option(help="Your names for our columns, as params=n_params,tokens=tokens,loss=loss,flops=flops."),
    ] = None,
    tracking_uri: Annotated[
        str | None,
        typer.Option(envvar="MLFLOW_TRACKING_URI", metavar="URI", help="Of an MLflow experiment's store."),
    ] = None,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Also logged runs that failed, were stopped or still run.")
    ] = False,
    params_convention: Annotated[str, typer.Option(help="total, nonembedding or with-head.")] = "total",
    flops_convention: Annotated[
        str | None, typer.Option(help="exact or 6nd; by default exact where the table has FLOPs.")
    ] = None,
    law: Annotated[
        str,
        typer.Option(
            help="The parametric law: chinchilla, kaplan, skaling, over-trained, or one of a package of yours; or any "
            "other, as fine-tuning or over-optimisation-rl, fitted alone to the columns it is of."
        ),
    ] = "chinchilla",
    average: Annotated[
        str | None, typer.Option(help="Laws that forecasts average with it by their evidence, as skaling,kaplan.")
    ] = None,
    method: Annotated[str, typer.Option(help="all, parametric, isoflop or envelope.")] = "all",
    huber_delta: Annotated[float, typer.Option(help="Where the Huber loss turns linear, in log loss.")] = 1e-3,
    interpolator: Annotated[
        str, typer.Option(help="How an iso-FLOP line's minimum is found: parabola, cubic or akima.")
    ] = "parabola",
    bootstrap: Annotated[int, typer.Option(min=0, max=100_000, help="Resamples; 0 for no intervals.")] = 4000,
    resample: Annotated[
        str,
        typer.Option(help="What is drawn anew: residuals, wild, points, or whole clusters by size, budget or trunk."),
    ] = "residuals",
    level: Annotated[float, typer.Option(help="Level of every interval.")] = 0.9,
    out: Annotated[
        Path | None, typer.Option(metavar="FIT.json", help="Keep the fit, for predict and recommend.")
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Draw the fit and its diagnosis there, as PNG and SVG.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Fit scaling laws to a table of runs, by every estimator, with intervals; no study needed.

    Exits with 3 if the data supports none of the fits; the reasons are printed.

    Example: scaling fit runs.csv --columns params=N,tokens=D,loss=val_loss --out fit.json

    Example: scaling fit mlflow:ladder --columns params=params.n_params,tokens=tokens,loss=metrics.val_loss.min

    Example: scaling fit tuned.csv --law fine-tuning --columns x=params,finetuning_examples=rows,value=loss

    Example: scaling fit ppo.csv --law over-optimisation-rl --columns kl_nats=kl,gold=score,proxy=reward,seed=seed
    """
    from scaling import laws
    from scaling.cli.fit_columns import draw_over_optimisation, fit_columns
    from scaling.cli.table_source import column_names, runs_of
    from scaling.fits.over_optimisation import OverOptimisationFit
    from scaling.fits.together import fit_table
    from scaling.laws.law import LossLaw
    from scaling.laws.over_optimisation import OverOptimisation
    from scaling.table import read_table

    _check("--params-convention", params_convention, ("total", "nonembedding", "with-head"))
    _check("--method", method, ("all", *METHODS))
    _check("--interpolator", interpolator, ("parabola", "cubic", "akima"))
    _check("--resample", resample, ("residuals", "wild", "points", "size", "budget", "trunk"))
    if flops_convention is not None:
        _check("--flops-convention", flops_convention, ("exact", "6nd"))
    if not isinstance(laws.get(law), LossLaw):
        drawn = None if isinstance(laws.get(law), OverOptimisation) else figures
        of_runs = {"--average": average, "--figures": drawn, "--unfinished": unfinished or None,
                   "--flops-convention": flops_convention, "--method": None if method == "all" else method}  # fmt: skip
        for option, given in of_runs.items():
            if given is not None:
                raise UserError(f"{option} is of laws of parameters and tokens: leave it out with --law {law}")
        made_alone = fit_columns(
            source, law, column_names(columns), huber_delta=huber_delta, bootstrap=bootstrap, resample=resample,
            level=level,
        )  # fmt: skip
        if figures is not None:
            draw_over_optimisation(source, law, column_names(columns), figures, bootstrap=bootstrap, level=level)
        if out is not None:
            _write(out, made_alone.model_dump_json(indent=2))
        if as_json:
            print_json(made_alone.answer())
        else:
            typer.echo(made_alone.summary())
        if isinstance(made_alone, OverOptimisationFit) and made_alone.status == "refused":
            raise typer.Exit(3)
        return
    table, named, name = runs_of(
        source,
        column_names(columns),
        params_convention,  # type: ignore[arg-type]
        tracking_uri=tracking_uri,
        unfinished=unfinished,
    )
    runs = read_table(
        table,
        columns=named,
        params_convention=params_convention,  # type: ignore[arg-type]
        flops_convention=flops_convention,  # type: ignore[arg-type]
    )
    made = fit_table(
        runs,
        law=law,
        average=[name.strip() for name in (average or "").split(",") if name.strip()],
        methods=METHODS if method == "all" else (method,),  # type: ignore[arg-type]
        huber_delta=huber_delta,
        interpolator=interpolator,  # type: ignore[arg-type]
        bootstrap=bootstrap,
        resample=resample,  # type: ignore[arg-type]
        level=level,
    )
    if out is not None:
        _write(out, made.model_dump_json(indent=2))
    if figures is not None:
        _draw(runs, made, name, figures)
    if as_json:
        print_json(made.answer())
    else:
        typer.echo(made.summary())
    if made.parametric.status == made.isoflop.status == made.envelope.status == "refused":
        raise typer.Exit(3)


def _check(option: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UserError(f"{option} is {value!r}: choose {', '.join(allowed)}")


def _draw(runs: Table, made: Fit, name: str, folder: Path) -> None:
    from analysis.bare_table import view_of_table
    from analysis.figures.gallery import draw_all

    try:
        paths = draw_all(view_of_table(runs, made, name), folder)
    except OSError as error:
        raise UserError(f"--figures {folder} can't be written: {error.strerror}") from None
    names = list(dict.fromkeys(path.stem for path in paths))
    typer.echo(f"{len(names)} figures in {folder}, as PNG and SVG: {', '.join(names)}", err=True)


def _write(path: Path, content: str) -> None:
    from trainer.whole_file import write_whole

    try:
        write_whole(path, content)
    except OSError as error:
        raise UserError(f"--out {path} can't be written: {error.strerror}") from None
