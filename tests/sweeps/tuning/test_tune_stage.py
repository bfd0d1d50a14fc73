"""The stage ``tune`` with real training and real processes; started again it repeats nothing."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend

from scaling.errors import UserError
from sweeps.conduct import Conductor
from sweeps.ledger.ledger import Ledger
from sweeps.study import Study
from sweeps.workspace import Workspace

BATCHES = {"global_batch_tokens": [256, 1024]}
"""Few steps, so that a trial takes a second."""


def tuned(study: Study, **tune: object) -> Study:
    data = study.model_dump(mode="json")
    data["hyperparameters"] = {"global_batch_tokens": 128, "tune": {"trials": 4, "sizes": 2, "ranges": BATCHES, **tune}}
    return Study.model_validate(data | {"execute": {"workers": 1}})


def keys(ledger: Ledger, study: Study) -> dict[str, tuple[str, float | None, float | None]]:
    return {row.key: (row.state, row.loss, row.started_at) for row in ledger.runs(study.name, "tune")}


@pytest.mark.slow
def test_tuning_trains_each_trial_once_goes_on_where_it_was_and_writes_its_storage_anew(
    tiny_study: Study, tmp_path: Path, silent: object
) -> None:
    study, workspace = tuned(tiny_study), Workspace(tmp_path)
    conductor = Conductor(study, workspace, silent)  # type: ignore[arg-type]
    plan = conductor.plan()
    assert len(plan.tune) == 4
    try:
        conductor.tune(plan)
    except UserError as error:
        assert "hyperparameters.tune" in str(error), "so few trials may say nothing, with the reason"
    before = keys(conductor.ledger, study)
    assert before
    assert all(state in ("finished", "pruned", "diverged") for state, _, _ in before.values())
    storage = conductor.folder / "optuna"
    shown = _trials(storage)
    shutil.rmtree(storage)
    again = Conductor(study, workspace, silent)  # type: ignore[arg-type]
    with contextlib.suppress(UserError):
        again.tune(plan)
    assert keys(again.ledger, study) == before, "nothing was trained twice"
    assert _trials(storage) == shown, "Optuna's storage follows from the ledger"
    assert sum(map(len, shown.values())) == 16


def _trials(folder: Path) -> dict[str, list[tuple[object, object, object]]]:
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / "trials.log")))
    return {
        summary.study_name: [
            (trial.state, trial.value, trial.params)
            for trial in optuna.load_study(study_name=summary.study_name, storage=storage).trials
        ]
        for summary in optuna.get_all_study_summaries(storage)
    }


@pytest.mark.slow
def test_two_workspaces_tune_alike(tiny_study: Study, tmp_path: Path, silent: object) -> None:
    """Without pruning: it looks at what is there when it is asked, so that it is a matter of time."""
    seen = []
    for name in ("one", "two"):
        study, workspace = tuned(tiny_study, sizes=1, prune=False), Workspace(tmp_path / name)
        conductor = Conductor(study, workspace, silent)  # type: ignore[arg-type]
        with pytest.raises(UserError, match="2 sizes and lengths have finished trials and 4 are needed"):
            conductor.tune(conductor.plan())
        seen.append({key: loss for key, (_, loss, _) in keys(conductor.ledger, study).items()})
    assert seen[0] == seen[1]
