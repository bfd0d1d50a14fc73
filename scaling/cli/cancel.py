"""``scaling cancel``."""

from __future__ import annotations

from pathlib import Path

import typer

from scaling.cli.options import JsonFlag, RunNames, StudyFile, WorkspaceOption, print_json


def cancel(
    study: StudyFile, runs: RunNames = None, workspace: WorkspaceOption = Path("workspace"), as_json: JsonFlag = False
) -> None:
    """Call off runs that have not ended: planned ones won't be trained, those in training save and stop.

    They become `killed`, are in no fit, and come back with `scaling retry`. Without RUN: all of the study's.

    Example: scaling cancel quickstart.yaml 3f2a91
    """
    from sweeps.ledger.control import cancel as call_off
    from sweeps.ledger.ledger import Ledger
    from sweeps.study import load_study
    from sweeps.workspace import Workspace

    name = load_study(study).name
    done = call_off(Ledger(Workspace(workspace).ledger_url), name, runs or ())
    if as_json:
        print_json({"study": name, "planned": done.planned, "running": done.running})
        return
    typer.echo(
        f"{name}: {len(done.planned)} planned runs won't be trained, {len(done.running)} in training were told to stop "
        "(within ten seconds)"
    )
