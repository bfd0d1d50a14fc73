"""Optuna's storage as people look at it, with optuna-dashboard or in Python: a projection of what was told.

Trials are appended once they have ended, in their order, so that a storage that was deleted is written anew and one
that was cut off goes on. Nothing is read back from it but how far it is. The journal lies in a folder that only its
owner may enter, for Optuna's snapshots of a journal are pickles, and to read one is to trust whoever wrote it.
"""

from __future__ import annotations

import json
from pathlib import Path

import optuna
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, create_trial

from scaling.errors import UserError
from sweeps.tuning.asking import CellAsking

__all__ = ["TrialStore"]

JOURNAL = "trials.log"


class TrialStore:
    """Where the trials of a study are shown: a journal under ``folder``, or the database at ``url``."""

    def __init__(self, folder: Path, url: str = "journal") -> None:
        """Open or create it; :class:`UserError` if the database can't be reached."""
        self.storage: optuna.storages.BaseStorage
        if url == "journal":
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)
            backend = JournalFileBackend(str(folder / JOURNAL))
            self.storage = optuna.storages.JournalStorage(backend)
        else:
            try:
                self.storage = optuna.storages.RDBStorage(url)
            except Exception as error:
                raise UserError(
                    f"hyperparameters.tune.storage is {url.split('@')[-1]!r}: {' '.join(str(error).split())[:200]}; "
                    "give journal, or a database that SQLAlchemy can open"
                ) from None
        self._studies: dict[str, optuna.Study] = {}

    def write(self, name: str, asking: CellAsking) -> None:
        """Append what was told since the last time."""
        study = self._studies.get(name) or optuna.create_study(
            storage=self.storage, study_name=name, load_if_exists=True, direction="minimize"
        )
        self._studies[name] = study
        trials = asking.study.get_trials(deepcopy=False)
        there = len(study.get_trials(deepcopy=False))
        for asked, _outcome in asking.told[there:]:
            study.add_trial(_shown(trials[asked.number], asked.values))


def _shown(trial: FrozenTrial, values: dict[str, float]) -> FrozenTrial:
    return create_trial(
        state=trial.state,
        value=trial.value,
        params=trial.params,
        distributions=trial.distributions,
        intermediate_values=trial.intermediate_values,
        user_attrs={"values": json.dumps(values)},
    )
