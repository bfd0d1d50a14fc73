"""``scaling fit`` with a law that is not of parameters and tokens: the columns it is of, and the law through them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from scaling.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from scaling.fit import LawFit
    from scaling.fits.over_optimisation import OverOptimisationFit

__all__ = ["draw_over_optimisation", "fit_columns"]

_RESAMPLINGS = ("residuals", "wild", "points")


def fit_columns(
    source: str,
    law_name: str,
    columns: Mapping[str, str],
    *,
    huber_delta: float,
    bootstrap: int,
    resample: str,
    level: float,
) -> LawFit | OverOptimisationFit:
    """The fit of the table at ``source``.

    ``columns`` names the law's inputs, the ``value`` (by default ``loss``) and the ``seed``, whose rows share noise;
    over-optimisation is of ``kl_nats``, ``gold``, ``proxy`` and ``seed``.
    """
    from scaling import laws
    from scaling.fits.curve import fit_law
    from scaling.fits.over_optimisation import fit_over_optimisation
    from scaling.laws.over_optimisation import OverOptimisation

    table, law = _table(source, law_name), laws.get(law_name)
    if isinstance(law, OverOptimisation):
        if huber_delta != 1e-3 or resample != "residuals":
            raise UserError(
                f"--huber-delta and --resample are not for {law_name}: it is fitted by least squares, with intervals "
                "over seeds"
            )
        methods = sorted(set(table["method"])) if "method" in table else []
        if len(methods) > 1:
            raise UserError(f"{source} has methods {', '.join(methods)}: give the rows of one, by the law of that one")
        return fit_over_optimisation(table, law, columns=columns, level=level, bootstrap=bootstrap)
    if resample not in _RESAMPLINGS:
        raise UserError(f"--resample is {resample!r}: with --law {law_name} choose {', '.join(_RESAMPLINGS)}")
    inputs = {ours: theirs for ours, theirs in columns.items() if ours not in ("value", "seed")}
    seed = columns.get("seed")
    if seed is not None and seed not in table:
        raise UserError(f"{source} has no column {seed!r}, which --columns calls the seed")
    return fit_law(
        law,
        table,
        value=columns.get("value", "loss"),
        columns=inputs,
        huber_delta=huber_delta,
        bootstrap=bootstrap,
        resample=resample,  # type: ignore[arg-type]
        clusters=None if seed is None else table[seed].astype(str).to_numpy(),
        level=level,
    )


def draw_over_optimisation(
    source: str, law_name: str, columns: Mapping[str, str], folder: Path, *, bootstrap: int, level: float
) -> None:
    """Gold and proxy of the table at ``source`` with the law through them, as PNG and SVG under ``folder``."""
    import pandas as pd

    from analysis.figures import over_optimisation as figure
    from analysis.figures.gallery import laid_out, write_figure
    from analysis.over_optimisation_data import over_optimisation
    from scaling.fits.over_optimisation import law_of_method

    table = _table(source, law_name).rename(columns={theirs: ours for ours, theirs in columns.items()})
    for name in {"kl_nats", "gold", "proxy"} & set(table):
        table[name] = pd.to_numeric(table[name])
    named = str(table["method"].iloc[0]) if "method" in table else ""
    if law_of_method(named).name != law_name or not named:
        named = "best-of-n" if law_of_method("best-of-n").name == law_name else "reinforcement learning"
    drawn = laid_out(figure.draw, over_optimisation(table.assign(method=named), level=level, bootstrap=bootstrap))
    try:
        paths = write_figure(drawn, "over_optimisation", folder)
    except OSError as error:
        raise UserError(f"--figures {folder} can't be written: {error.strerror}") from None
    typer.echo(f"drawn: {', '.join(str(path) for path in paths)}", err=True)


def _table(source: str, law_name: str) -> pd.DataFrame:
    from scaling.table_file import load_rows

    if not Path(source).is_file():
        raise UserError(f"{source} is not a file: --law {law_name} takes a table as .csv or .parquet")
    frame, malformed = load_rows(Path(source))
    for row, reason in malformed.items():
        raise UserError(f"{source}, row {row} {reason}")
    return frame
