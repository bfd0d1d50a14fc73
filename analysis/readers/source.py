"""Which reader a source is for, by its first word: ``mlflow:``, ``wandb:``, ``tensorboard:``, ``optuna:``.

Readers are imported when their source is named, for each of their libraries costs up to a second.
"""

from __future__ import annotations

from pathlib import Path

from analysis.readers.logged import Asked, LoggedRuns
from scaling.errors import UserError

__all__ = ["SOURCES", "read_source"]

SOURCES = {
    "mlflow": "mlflow:EXPERIMENT",
    "wandb": "wandb:EXPORT.csv",
    "tensorboard": "tensorboard:FOLDER",
    "optuna": "optuna:STORAGE#STUDY",
}


def read_source(source: str, asked: Asked) -> LoggedRuns | None:
    """The runs that ``source`` names; None where it is a plain table. Raises ``UserError`` where it can't be read."""
    scheme, colon, rest = source.partition(":")
    if not colon or scheme not in SOURCES:
        from analysis.readers.wandb_export import is_export, read_export

        path = Path(source)
        return read_export([path], asked) if path.suffix.lower() == ".csv" and is_export(path) else None
    if not rest.strip():
        raise UserError(f"{source} names nothing: write {SOURCES[scheme]}")
    if scheme == "mlflow":
        from analysis.readers.mlflow_runs import read_experiment

        return read_experiment(rest, asked)
    if scheme == "wandb":
        from analysis.readers.wandb_export import read_export

        return read_export([Path(part) for part in rest.split(",")], asked)
    if scheme == "tensorboard":
        from analysis.readers.tensorboard_events import read_events

        return read_events(Path(rest), asked)
    from analysis.readers.optuna_trials import read_trials

    storage, _, study = rest.partition("#")
    return read_trials(storage, study or None, asked)
