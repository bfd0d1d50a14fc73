"""The trials of an Optuna study: parameters, objective values, intermediate values and what users attached.

The storage is opened to read: no table is made, nothing is upgraded. A journal is read from its file, which is JSON; in
Redis its snapshots are pickles, and to read one is to trust whoever wrote it.
"""

from __future__ import annotations

import math
from pathlib import Path

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from analysis.readers.logged import MINIMUM, Asked, LoggedRuns, frame_of
from scaling.errors import UserError

__all__ = ["read_trials"]


def read_trials(storage: str, study: str | None, asked: Asked) -> LoggedRuns:
    """The completed trials of ``study``, which need not be named where the storage has one alone.

    ``storage`` is a journal's file or a database's URL. Raises ``UserError`` where it can't be read or has no such
    study, with the names that it has.
    """
    try:
        opened = _open(storage)
        names = optuna.get_all_study_names(opened)
        if study is None and len(names) == 1:
            study = names[0]
        if study is None or study not in names:
            remedy = f"it has no study {study!r}" if study is not None else "say which study"
            known = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
            raise UserError(f"{_shown(storage)}: {remedy}, as in optuna:STORAGE#STUDY; it has {known or 'none'}")
        loaded = optuna.load_study(study_name=study, storage=opened)
        trials = loaded.get_trials(deepcopy=False)
        named = loaded.metric_names
    except UserError:
        raise
    except Exception as error:  # optuna, SQLAlchemy, the database's driver and the operating system each have their own
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"Optuna storage {_shown(storage)} can't be read: {reason}") from None
    kept = [trial for trial in trials if asked.unfinished or trial.state == TrialState.COMPLETE]
    rows = [_row(trial, named, with_state=not asked.unfinished) for trial in kept]
    return LoggedRuns(frame_of(rows), f"Optuna study {study}", study, len(trials) - len(kept))


def _open(storage: str) -> BaseStorage:
    if "://" in storage:
        if storage.startswith("sqlite:///") and not Path(storage.removeprefix("sqlite:///")).is_file():
            raise UserError(f"{storage}: there is no such file")
        return RDBStorage(storage, skip_table_creation=True)
    if not Path(storage).is_file():
        raise UserError(f"{storage} is not a file: give a journal of Optuna's, or a URL as sqlite:///optuna.db")
    return JournalStorage(JournalFileBackend(storage))


def _shown(storage: str) -> str:
    """Without a password."""
    scheme, apart, rest = storage.partition("://")
    return f"{scheme}{apart}{rest.rpartition('@')[2]}" if apart else storage


def _row(trial: FrozenTrial, named: list[str] | None, *, with_state: bool) -> dict[str, object]:
    row: dict[str, object] = {"name": f"trial {trial.number}", "number": trial.number}
    if with_state:
        row["status"] = trial.state.name
    row |= {f"params.{name}": value for name, value in trial.params.items()}
    values = trial.values or []
    names = named or (["value"] if len(values) == 1 else [f"value_{at}" for at in range(len(values))])
    row |= {f"metrics.{name}": value for name, value in zip(names, values, strict=True)}
    steps = sorted(trial.intermediate_values)
    if steps:
        told = [value for value in trial.intermediate_values.values() if not math.isnan(value)]
        row["metrics.intermediate"] = trial.intermediate_values[steps[-1]]
        row[f"metrics.intermediate{MINIMUM}"] = min(told, default=None)
        row["metrics.step"] = steps[-1]
    return row | {f"user_attrs.{name}": value for name, value in trial.user_attrs.items()}
