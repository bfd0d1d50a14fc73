"""Runs to fit, from a table or from what another tool logged."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from scaling.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from scaling.observation import ParamsConvention

__all__ = ["column_names", "runs_of"]

_LINE_EVERY_SECONDS = 2.0


def column_names(text: str | None) -> dict[str, str]:
    """``params=N,tokens=D`` as ours to theirs."""
    pairs = [part.partition("=") for part in (text or "").split(",") if part.strip()]
    for ours, equals, theirs in pairs:
        if not equals or not theirs.strip():
            raise UserError(
                f"--columns has {ours!r}: write ours=yours, as params=n_params,tokens=n_tokens,loss=val_loss"
            )
    return {ours.strip(): theirs.strip() for ours, _, theirs in pairs}


def runs_of(
    source: str,
    columns: Mapping[str, str],
    params_convention: ParamsConvention,
    *,
    tracking_uri: str | None = None,
    unfinished: bool = False,
) -> tuple[Path | pd.DataFrame, Mapping[str, str], str]:
    """What ``read_table`` takes: the table, the columns of its fields, and a name for the whole."""
    from analysis.readers.logged import Asked
    from analysis.readers.source import SOURCES, read_source

    asked = Asked(frozenset(columns.values()), unfinished, tracking_uri, _Reading())
    logged = read_source(source, asked)
    if logged is None:
        scheme, colon, _ = source.partition(":")
        if colon and not Path(source).exists():
            raise UserError(f"{source}: there is no such file, and no source {scheme}: known are a table, "
                            f"{', '.join(SOURCES.values())}")  # fmt: skip
        return Path(source), columns, Path(source).stem
    found = logged.columns_for(columns, params_convention)
    table = logged.table(found)
    others = f" ({logged.left_out} that did not finish are left out: --unfinished)" if logged.left_out else ""
    named = ", ".join(f"{ours} = {theirs}" for ours, theirs in found.items())
    typer.echo(f"{logged.source}: {len(table)} runs{others}; {named}", err=True)
    return table, found, logged.name


class _Reading:
    """Says how far reading is, once it takes over two seconds."""

    def __init__(self) -> None:
        self._started = self._said = 0.0

    def __call__(self, done: int, total: int | None) -> None:
        from scaling.quantity import format_duration

        now = time.monotonic()
        if not self._started:
            self._started = self._said = now
        if now - self._said < _LINE_EVERY_SECONDS:
            return
        self._said = now
        left = f" of {total:,}, {format_duration((now - self._started) * (total / done - 1))} left" if total else ""
        print(f"reading runs: {done:,}{left}", file=sys.stderr)
