"""Trained runs of a workspace's studies by what people call them: the beginning of a key, or a label."""

from __future__ import annotations

from sweeps.ledger.ledger import Ledger
from sweeps.workspace import Workspace
from trainer.run_folder import TrainedRun

__all__ = ["find_in_ledger"]


def find_in_ledger(name: str, workspace: Workspace) -> dict[str, TrainedRun]:
    """The runs whose key begins with ``name``, or whose label it is, by their key; those without a checkpoint too."""
    if not (workspace.root / "ledger.db").is_file():
        return {}
    ledger = Ledger(workspace.ledger_url)
    try:
        rows = [row for study in ledger.study_names() for row in ledger.runs(study)]
    finally:
        ledger.close()
    return {
        row.key: TrainedRun(
            row.spec,
            workspace.run_folder(row.key),
            workspace.corpora / row.spec.data_key[:16] / "tokenizer.json",
        )
        for row in rows
        if row.key.startswith(name) or row.label == name
    }
