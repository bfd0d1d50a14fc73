"""``scaling preference``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaling.cli.options import JsonFlag, print_json
from scaling.errors import UserError

if TYPE_CHECKING:
    from scaling.preference.pairs import Cleaned


def preference(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="Pairs as .jsonl (also .xz, .gz, .bz2), .csv or .parquet: prompt, chosen, rejected."
        ),
    ],
    columns: Annotated[
        str | None, typer.Option(help="Your names for our columns, as chosen=preferred,chosen_model=winner.")
    ] = None,
    length: Annotated[str, typer.Option(help="What lengths are counted in: characters or words.")] = "characters",
    model: Annotated[
        str | None, typer.Option(help="Whose win rate, where more than two models wrote the answers.")
    ] = None,
    clean: Annotated[
        Path | None, typer.Option(metavar="OUT", help="Write the pairs that are left as .jsonl, .csv or .parquet.")
    ] = None,
    bootstrap: Annotated[int, typer.Option(min=0, max=100_000, help="Resamples; 0 for no intervals.")] = 1000,
    level: Annotated[float, typer.Option(help="Level of every interval.")] = 0.9,
    as_json: JsonFlag = False,
) -> None:
    """What a file of preference pairs holds: faults, lengths, agreement, and win rates with length taken out.

    Columns beside the three: annotator; chosen_model, rejected_model; chosen_score, rejected_score of a reward model;
    judge_chosen_first, judge_rejected_first, how far a judge prefers the chosen answer in either order, 0 to 1.

    Example: scaling preference pairs.jsonl --clean cleaned.jsonl
    """
    from scaling.cli.table_source import column_names
    from scaling.preference.pairs import clean as cleaned_of
    from scaling.preference.pairs import read_pairs
    from scaling.preference.report import report

    pairs = read_pairs(file, column_names(columns))
    told = report(pairs, unit=length, model=model, level=level, bootstrap=bootstrap, say=_Slowly())
    if clean is not None:
        _write(clean, cleaned_of(pairs))
    if as_json:
        print_json(told.model_dump(mode="json"))
    else:
        typer.echo(told.summary())


class _Slowly:
    """Says which part is worked on, once the whole takes over two seconds."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def __call__(self, part: str) -> None:
        if time.monotonic() - self._started > 2:
            typer.echo(f"resampling: {part}", err=True)


def _write(path: Path, cleaned: Cleaned) -> None:
    import io

    from trainer.whole_file import write_whole

    pairs, kind = cleaned.pairs, path.suffix.lower()
    if kind == ".jsonl":
        content: str | bytes = pairs.to_json(orient="records", lines=True, force_ascii=False)
    elif kind == ".csv":
        content = pairs.to_csv(index=False)
    elif kind == ".parquet":
        buffer = io.BytesIO()
        pairs.to_parquet(buffer, index=False)
        content = buffer.getvalue()
    else:
        raise UserError(f"--clean is {path}: its name ends in .jsonl, .csv or .parquet")
    try:
        write_whole(path, content)
    except OSError as error:
        raise UserError(f"--clean {path} can't be written: {error.strerror}") from None
    why = ", ".join(f"{count:,} {reason}" for reason, count in cleaned.counts.items() if count)
    typer.echo(f"{path}: {len(pairs):,} pairs; {len(cleaned.dropped):,} dropped{f' ({why})' if why else ''}", err=True)
