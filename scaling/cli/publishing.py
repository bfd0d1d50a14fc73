"""From a study's result to what people open: the report, the recommendation file and the study's MLflow run."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaling.errors import UserError

if TYPE_CHECKING:
    from analysis.study_view import LargerRun, StudyView, TrainedRun
    from sweeps.conduct import Conductor, StudyResult
    from sweeps.ledger.ledger import RunRow
    from sweeps.planning.plan import Plan
    from sweeps.workspace import Workspace

__all__ = [
    "WrittenReport",
    "finished",
    "send_again",
    "tracked",
    "trained_runs",
    "ui_command",
    "ui_page",
    "view_of",
    "write_report",
]


@dataclass(frozen=True)
class WrittenReport:
    path: Path
    figures: tuple[Path, ...]
    view: StudyView
    mlflow_command: str


def write_report(conductor: Conductor, result: StudyResult, study_file: Path) -> WrittenReport:
    """Draw the figures and write report, interactive page and recommendation into the study's folder."""
    from analysis.explorer import write_explorer
    from analysis.figures.gallery import draw_all
    from analysis.interactive import write_page
    from analysis.recommendation_yaml import recommendation_yaml
    from analysis.report import write_report as write_html
    from trainer.whole_file import write_whole

    folder = result.folder
    command = _mlflow_command(conductor, study_file)
    conductor.progress.step("drawing the figures and the report")
    view = _view(conductor, result, study_file, command)
    if result.recommendation is not None:
        write_whole(folder / "recommendation.yaml", recommendation_yaml(result.recommendation))
        write_whole(folder / "recommendation.json", result.recommendation.model_dump_json(indent=2))
    figures = tuple(draw_all(view, folder / "figures"))
    write_page(view, folder / "curves.html")
    write_explorer(view, folder / "explorer.html")
    path = write_html(view, folder / "report.html")
    return WrittenReport(path, figures, view, command)


def view_of(conductor: Conductor, study_file: Path) -> StudyView:
    """A finished study as pages and figures see it. Raises :class:`UserError` if it is not finished."""
    return _view(conductor, finished(conductor, study_file), study_file, _mlflow_command(conductor, study_file))


def finished(conductor: Conductor, study_file: Path) -> StudyResult:
    """The result of a study all of whose own runs have ended; :class:`UserError` otherwise, for asking would train."""
    from sweeps.standing import standing

    name = conductor.study.name
    planned = conductor.ledger.plan_of(name) is not None
    if not planned or not standing(conductor.ledger, conductor.workspace, name).complete:
        where = conductor.workspace.root
        raise UserError(f"study {name!r} is not finished in the workspace {where}: scaling run {study_file}")
    return conductor.result(conductor.plan())


def _view(conductor: Conductor, result: StudyResult, study_file: Path, mlflow_command: str) -> StudyView:
    from analysis.study_view import StudyView
    from scaling.cli.plan_page import corpus_sentence, machine_sentence, plan_rows, question_sentence

    return StudyView(
        name=result.study.name,
        question=question_sentence(result.study),
        observations=result.observations,
        curves=result.curves,
        fit=result.fit,
        forecast=result.forecast,
        outcome=result.outcome,
        recommendation=result.recommendation,
        learning_rates=result.learning_rates,
        plan=tuple(plan_rows(result.plan)),
        corpus=corpus_sentence(result.plan),
        machine=machine_sentence(result.plan),
        reproduce_command=f"{_program()} run {shlex.quote(str(study_file))}",
        mlflow_command=mlflow_command,
        notes=tuple(f"{run.label} {run.state}: {run.error or 'its loss was not finite'}" for run in result.failed),
        trained=trained_runs(conductor, result.plan),
        larger=larger_runs(conductor),
        expected_stage_seconds={
            stage: result.plan.stage_seconds(stage) for stage in ("probe", "tune", "sweep", "hold-out")
        },
    )


def trained_runs(conductor: Conductor, plan: Plan) -> tuple[TrainedRun, ...]:
    """When each run of the plan was trained, and what its calibration expects; a branch is what its trunk left it."""
    from analysis.study_view import TrainedRun
    from sweeps.ledger.ledger import LARGE

    def expected(row: RunRow) -> float:
        whole = plan.calibration.seconds(row.spec.shape, row.spec.tokens, plan.numerics)
        return whole * row.own_flops / row.flops

    return tuple(
        TrainedRun(
            run_key=row.key,
            label=row.label,
            stage=row.stage,
            state=row.state,
            started_at=row.started_at,
            ended_at=row.ended_at,
            trained_seconds=(row.result or {}).get("wall_seconds"),
            expected_seconds=expected(row),
        )
        for row in conductor.ledger.runs(conductor.study.name)
        if row.stage not in LARGE and row.started_at is not None and row.ended_at is not None
    )


def larger_runs(conductor: Conductor) -> tuple[LargerRun, ...]:
    """The study's rungs and large runs that were forecast, the smallest first, and of one run the older forecast."""
    from analysis.study_view import LargerRun
    from sweeps.ledger.ledger import LARGE
    from sweeps.ledger.registry import registry

    name = conductor.study.name
    rows = {row.key: row for row in conductor.ledger.runs(name) if row.stage in LARGE}
    told = [
        LargerRun(row.key, row.label, row.stage, row.state, each.forecast, each.outcome, each.problems)
        for each in registry(conductor.ledger, conductor.workspace.forecasts, name).forecasts
        for row in [rows.get(each.run_keys[0])]
        if row is not None and len(each.run_keys) == 1
    ]
    return tuple(sorted(told, key=lambda run: run.forecast.flops))


@contextmanager
def tracked(conductor: Conductor, plan: Plan) -> Iterator[Callable[[StudyResult, WrittenReport], None]]:
    """Project the study to MLflow while the block runs; yields what publishes the result onto the study's run.

    Tracking never stops a study: where MLflow can't be reached, the user is told, and the next run sends the rest.
    """
    uri = conductor.study.track.mlflow
    if uri is None:
        yield lambda result, report: None
        return
    from sweeps.tracking.thread import ProjectionThread

    absolute = conductor.workspace.tracking_uri(uri)
    artifacts = conductor.workspace.artifacts_uri(absolute)
    folder_of = conductor.workspace.run_folder
    thread = ProjectionThread(conductor.ledger.url, absolute, artifacts, conductor.study.name, plan, folder_of)
    published: list[tuple[StudyResult, WrittenReport]] = []
    status = "KILLED"
    try:
        yield lambda result, report: published.append((result, report))
        status = "FINISHED"
    except Exception as error:
        status = "KILLED" if hasattr(error, "exit_code") else "FAILED"
        raise
    finally:
        conductor.progress.step("sending to MLflow")
        projection = thread.finish()
        if projection is None:
            conductor.progress.say(
                f"MLflow at {absolute} could not be reached ({thread.fault}); nothing is lost: "
                "`scaling track` sends what is missing, and so does the same command"
            )
        else:
            try:
                for result, report in published:
                    _publish(absolute, projection.parent_run_id, result, report)
                projection.end(status)
            except Exception as error:
                conductor.progress.say(f"MLflow at {absolute} took the runs, but not the report: {error}")


def send_again(conductor: Conductor, plan: Plan, study_file: Path, uri: str, *, anew: bool) -> dict[str, Any]:
    """Send to MLflow at ``uri`` what it lacks of the study, or all of it ``anew``; with the report, if all is trained.

    Raises :class:`UserError` where MLflow can't be reached.
    """
    from sweeps.standing import standing
    from sweeps.tracking.projection import MlflowProjection
    from sweeps.tracking.records import study_status
    from sweeps.tracking.store import STORE_FAULTS

    space, name = conductor.workspace, conductor.study.name
    absolute = space.tracking_uri(uri)
    conductor.ledger.reap()
    now = standing(conductor.ledger, space, name)
    status = study_status(now)
    try:
        artifacts = space.artifacts_uri(absolute)
        say = conductor.progress.say
        projection = MlflowProjection(conductor.ledger.url, absolute, artifacts, name, plan, space.run_folder, say)
        projection.sync(anew=anew, progress=conductor.progress.step)
        if now.complete:
            result = conductor.result(plan)
            _publish(absolute, projection.parent_run_id, result, write_report(conductor, result, study_file))
        projection.end(status)
    except STORE_FAULTS as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"MLflow at {absolute} can't be reached: {reason}; start it, or give another --uri") from error
    started = sum(row.started_at is not None for row in now.rows)
    return {"study": name, "uri": absolute, "mlflow_run_id": projection.parent_run_id, "runs": started,
            "status": status, "report": now.complete}  # fmt: skip


def _publish(uri: str, parent_run_id: str, result: StudyResult, report: WrittenReport) -> None:
    from analysis.publish import publish

    publish(report.view, tracking_uri=uri, run_id=parent_run_id, folder=result.folder, files=_beside(result))


def _beside(result: StudyResult) -> list[Path]:
    """The study's own files that MLflow's parent run keeps next to the report."""
    names = ("study.yaml", "plan.json", "learning_rates.json", "tuning.json", "forecast.json", "outcome.json")
    return [path for name in names if (path := result.folder / name).is_file()]


def ui_command(uri: str, workspace: Workspace, port: int) -> list[str]:
    """Starts MLflow's server on the loopback address, with the workspace's database and files."""
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--host", "127.0.0.1"]
    artifacts = workspace.artifacts_uri(uri)
    root = ["--default-artifact-root", artifacts] if artifacts else []
    return [*command, "--port", str(port), "--workers", "1", *root]


def ui_page(study: str, workspace: Workspace, uri: str, port: int) -> str:
    """The address of the study's parent run, or of the server where the study has none yet."""
    from sweeps.ledger.ledger import Ledger

    base = uri if uri.startswith("http") else f"http://127.0.0.1:{port}"
    known = Ledger(workspace.ledger_url).mlflow_run(uri, study, "")
    # MLflow opens in a mode for GenAI applications unless the address says otherwise.
    mode = "?workflowType=machine_learning"
    return f"{base}/#/experiments/{known.experiment_id}/runs/{known.mlflow_run_id}{mode}" if known else base


def _mlflow_command(conductor: Conductor, study_file: Path) -> str:
    from sweeps.workspace import shown

    if conductor.study.track.mlflow is None:
        return ""
    return f"{_program()} ui {shlex.quote(str(study_file))} --workspace {shlex.quote(shown(conductor.workspace.root))}"


def _program() -> str:
    """``scaling`` as this shell finds it: with its folder where that is not on the path, as under `make demo`."""
    from sweeps.workspace import shown

    return "scaling" if shutil.which("scaling") else shlex.quote(shown(Path(sys.argv[0]).absolute()))
