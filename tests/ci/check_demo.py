"""Checks what a finished quickstart promised, on its ledger, MLflow store and report: ``check_demo.py WORKSPACE``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from mlflow import MlflowClient

from sweeps.ledger.ledger import Ledger
from sweeps.workspace import Workspace


def check(workspace: Workspace, study: str) -> list[str]:
    """The promises as sentences with what was found; raises ``AssertionError`` at the first that is broken."""
    ledger = Ledger(workspace.ledger_url)
    sweep, held = ledger.runs(study, "sweep"), ledger.runs(study, "hold-out")
    folder = workspace.study_folder(study)
    said = []

    def promise(kept: bool, sentence: str) -> None:
        assert kept, f"broken: {sentence}"
        said.append(sentence)

    sizes, budgets = {run.spec.shape for run in sweep}, {run.budget_flops for run in sweep}
    promise(len(sweep) >= 12 and all(run.state == "finished" for run in sweep), f"{len(sweep)} runs finished")
    promise(len(sizes) >= 4 and len(budgets) >= 3, f"{len(sizes)} sizes, {len(budgets)} budgets")
    ratio = min(run.flops for run in held) / max(run.flops for run in sweep)
    promise(ratio >= 4, f"hold-out of {ratio:.2f} times the largest fitted run's compute")
    (forecast,) = ledger.forecasts(study)
    started = min(run.started_at or 0.0 for run in held)
    promise(forecast.registered_at < started, f"forecast registered {started - forecast.registered_at:.2f} s before it")
    promise(forecast.outcome is not None, f"scored: error {forecast.outcome['relative_error']:+.2%}")
    promise(ledger.broken_links() == [], "hash chain whole")
    client = MlflowClient(tracking_uri=workspace.tracking_uri("sqlite:///mlflow.db"))
    experiment = client.get_experiment_by_name(f"scaling/{study}")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    promise({run.info.status for run in runs} == {"FINISHED"}, f"{len(children)} MLflow children, all finished")
    keys = {run.data.tags["scaling.run_key"] for run in children}
    promise(keys == {run.key for run in ledger.runs(study)}, "one MLflow child a run of the ledger")
    report = (folder / "report.html").read_text(encoding="utf-8")
    outside = re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=[\"']?https?:", report)
    promise(not outside and len(report) < 6e6, f"report of {len(report) / 1e6:.1f} MB that loads nothing from outside")
    for name in ("plan.json", "observations.csv", "fit.json", "forecast.json", "outcome.json", "recommendation.yaml"):
        promise((folder / name).stat().st_size > 0, f"{name} is there")
    return said


if __name__ == "__main__":
    for line in check(Workspace(Path(sys.argv[1])), "quickstart"):
        print("kept:", line)
