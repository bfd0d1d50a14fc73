"""Optuna studies that other software ran, in a journal and in a database."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from analysis.readers.logged import Asked
from analysis.readers.optuna_trials import read_trials
from analysis.readers.source import read_source
from scaling.errors import UserError
from scaling.table import read_table

from .conftest import Trained

# Optuna's and SQLAlchemy's own deprecated calls in making a database.
pytestmark = pytest.mark.filterwarnings("ignore:::optuna", "ignore::sqlalchemy.exc.SADeprecationWarning")


def search(storage: optuna.storages.BaseStorage, name: str, trained: list[Trained]) -> None:
    study = optuna.create_study(storage=storage, study_name=name, sampler=optuna.samplers.RandomSampler(0))
    for run in trained:
        study.enqueue_trial({"n_params": run.params, "lr": run.lr})

    def objective(trial: optuna.Trial) -> float:
        run = trained[trial.number]
        trial.suggest_int("n_params", 1, 10**9)
        trial.suggest_float("lr", 1e-6, 1.0, log=True)
        trial.set_user_attr("tokens", run.tokens)
        for step, loss in enumerate(run.losses):
            trial.report(loss, step)
        if trial.number == 3:
            raise optuna.TrialPruned
        return run.losses[-1]

    study.optimize(objective, n_trials=len(trained))


@pytest.fixture(scope="module")
def journal(trained: list[Trained], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("optuna") / "trials.log"
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    search(JournalStorage(JournalFileBackend(str(path))), "sizes", trained)
    return path


def test_completed_trials_of_a_journal_are_a_table(journal: Path, trained: list[Trained]) -> None:
    logged = read_source(f"optuna:{journal}#sizes", Asked())
    assert logged is not None and logged.left_out == 1
    columns = logged.columns_for({"loss": "value"})
    assert columns == {"params": "params.n_params", "tokens": "user_attrs.tokens", "loss": "metrics.value"}
    runs = read_table(logged.table(columns), columns=columns)
    told = sorted(zip(runs.params, runs.tokens, runs.loss, strict=True))
    assert told == sorted((r.params, r.tokens, r.losses[-1]) for at, r in enumerate(trained) if at != 3)


def test_pruned_trials_are_read_where_they_are_asked_for_by_what_they_reported(
    journal: Path, trained: list[Trained]
) -> None:
    logged = read_trials(str(journal), None, Asked(unfinished=True))
    columns = logged.columns_for({"loss": "metrics.intermediate.min"})
    runs = read_table(logged.table(columns), columns=columns)
    assert sorted(runs.loss) == sorted(min(run.losses) for run in trained)


def test_a_database_is_read_without_being_changed(trained: list[Trained], tmp_path: Path) -> None:
    path = tmp_path / "optuna.db"
    for name in ("a", "b"):
        search(RDBStorage(f"sqlite:///{path}"), name, trained[:2])
    before = path.read_bytes()
    assert len(read_trials(f"sqlite:///{path}", "b", Asked()).frame) == 2
    assert path.read_bytes() == before
    with pytest.raises(UserError, match=r"say which study, as in optuna:STORAGE#STUDY; it has a, b"):
        read_trials(f"sqlite:///{path}", None, Asked())
    with pytest.raises(UserError, match=r"it has no study 'c'"):
        read_trials(f"sqlite:///{path}", "c", Asked())


def test_a_storage_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    for storage in (f"sqlite:///{tmp_path}/optuna.db", f"{tmp_path}/trials.log"):
        with pytest.raises(UserError, match=r"there is no such file|is not a file"):
            read_trials(storage, "sizes", Asked())
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_journal_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "trials.log").write_text("hello\nworld\n")
    with pytest.raises(UserError, match="can't be read"):
        read_trials(str(tmp_path / "trials.log"), "sizes", Asked())
