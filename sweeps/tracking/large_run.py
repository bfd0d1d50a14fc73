"""A large run that has ended, on its way to MLflow: `scaling train` is no study's conductor, and sends it itself."""

from __future__ import annotations

from collections.abc import Callable

from scaling.errors import UserError
from sweeps.ledger.ledger import Ledger
from sweeps.planning.plan import Plan
from sweeps.standing import standing
from sweeps.study import load_study
from sweeps.tracking.projection import MlflowProjection
from sweeps.tracking.records import study_status
from sweeps.workspace import Workspace

__all__ = ["send_large_run"]


def send_large_run(
    workspace: Workspace, study: str, key: str, say: Callable[[str], None], progress: Callable[[str, float], None]
) -> str | None:
    """Bring the study's MLflow runs up to the ledger and return the address of the registered model of run ``key``.

    It raises nothing, for the run is trained and written down: what can't be sent is told in a line, and
    `scaling track` sends it.
    """
    try:
        return _sent(workspace, study, key, say, progress)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        say(f"MLflow was not told of the run ({reason}): `scaling track` of its study does")
        return None


def _sent(
    workspace: Workspace, study: str, key: str, say: Callable[[str], None], progress: Callable[[str, float], None]
) -> str | None:
    ledger = Ledger(workspace.ledger_url)
    try:
        frozen, file = ledger.plan_of(study), workspace.study_folder(study) / "study.yaml"
        # As it was conducted last; the ledger holds no more of a study than its plan depends on.
        uri = load_study(file).track.mlflow if file.is_file() else None
        if frozen is None or uri is None:
            return None
        plan, absolute = Plan.model_validate(frozen[1]), workspace.tracking_uri(uri)
        with workspace.conducting(study, _busy):
            artifacts, folder_of = workspace.artifacts_uri(absolute), workspace.run_folder
            projection = MlflowProjection(ledger.url, absolute, artifacts, study, plan, folder_of, say)
            projection.sync(progress=progress)
            projection.end(study_status(standing(ledger, workspace, study)))
        return projection.model_of(key)
    finally:
        ledger.close()


def _busy() -> None:
    raise UserError("another process has the study in hand")
