"""The large run's model in MLflow's registry: a version of its study's model, whose files are the run's export.

The version is made without a flavour of MLflow's: those for transformers import it, and ours is a folder that
transformers loads from wherever MLflow has put it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos import databricks_pb2 as codes

from scaling import architectures
from scaling.errors import UserError
from scaling.forecast import Forecast
from scaling.prediction import score
from scaling.quantity import format_count
from sweeps.ledger.ledger import RunRow

__all__ = ["MODEL_PREFIX", "register_model", "registered_model"]

MODEL_PREFIX = "scaling-"
"""As ``scaling/`` of experiments, but that MLflow allows no slash here."""
_FILES = "model"
_REFUSED = {
    codes.ErrorCode.Name(code)
    for code in (
        codes.BAD_REQUEST,
        codes.ENDPOINT_NOT_FOUND,
        codes.FEATURE_DISABLED,
        codes.INVALID_PARAMETER_VALUE,
        codes.NOT_IMPLEMENTED,
        codes.PERMISSION_DENIED,
    )
}
"""What a store answers that has no registry, or none for us; anything else may go well the next time."""


def registered_model(client: MlflowClient, mlflow_run_id: str, study: str) -> str | None:
    """The address of the model that the MLflow run was registered as, ``models:/NAME/VERSION``; None if it was not."""
    name = MODEL_PREFIX + study
    try:
        found = client.search_model_versions(f"run_id = '{mlflow_run_id}'")
    except MlflowException as error:
        if error.error_code not in _REFUSED:
            raise
        return None
    return next((f"models:/{name}/{each.version}" for each in found if each.name == name), None)


def register_model(
    client: MlflowClient, mlflow_run_id: str, study: str, row: RunRow, folder: Path, forecast: Forecast | None
) -> None:
    """Log the export of the finished run ``row``, trained in ``folder``, to its MLflow run and register it, if it is
    not registered.

    Raises :class:`UserError` where the run can't be exported, or the store has no registry: its files are logged then.
    """
    if registered_model(client, mlflow_run_id, study) is not None:
        return
    name = MODEL_PREFIX + study
    _log_export(client, mlflow_run_id, folder)
    source = f"{client.get_run(mlflow_run_id).info.artifact_uri}/{_FILES}"
    try:
        _add_model(client, name, study)
        client.create_model_version(
            name,
            source,
            mlflow_run_id,
            tags=_tags(study, row, forecast),
            description=_description(study, row, forecast),
            await_creation_for=0,
        )
    except MlflowException as error:
        if error.error_code not in _REFUSED:
            raise
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"the store has no model registry, or it refuses ({reason}); the export is under the run, in {_FILES}/"
        ) from None


def _log_export(client: MlflowClient, mlflow_run_id: str, folder: Path) -> None:
    # torch takes a second, and few projections have a large run to send.
    from trainer.export.hugging_face import export
    from trainer.run_folder import RunFolder

    def refuse(message: str) -> None:
        raise UserError(message)

    trained = RunFolder(folder).trained()
    with tempfile.TemporaryDirectory(dir=folder.resolve(), prefix=".export.", ignore_cleanup_errors=True) as beside:
        export(trained, Path(beside, _FILES), force=False, note=refuse)
        client.log_artifacts(mlflow_run_id, str(Path(beside, _FILES)), _FILES)


def _add_model(client: MlflowClient, name: str, study: str) -> None:
    loaded = f'AutoModelForCausalLM.from_pretrained(mlflow.artifacts.download_artifacts("models:/{name}/1"))'
    words = f"The large runs of the scaling study {study}, a version each. In transformers: `{loaded}`"
    try:
        client.create_registered_model(name, {"scaling.study": study}, words)
    except MlflowException as error:
        if error.error_code != codes.ErrorCode.Name(codes.RESOURCE_ALREADY_EXISTS):
            raise


def _tags(study: str, row: RunRow, forecast: Forecast | None) -> dict[str, str]:
    result = row.result or {}
    found = {
        "study": study,
        "run_key": row.key,
        "architecture": row.spec.shape.architecture,
        "params_total": architectures.total_params(row.spec.shape),
        "tokens": row.spec.tokens,
        "flops": f"{row.flops:.6e}",
        "loss_nats": row.loss,
        "bits_per_byte": result.get("bits_per_byte"),
    }
    if forecast is not None and row.loss is not None:
        loss, outcome = forecast.loss, score(forecast, [row.loss], [row.key])
        found |= {
            "forecast_loss": loss.estimate,
            "forecast_loss_low": loss.low,
            "forecast_loss_high": loss.high,
            "forecast_relative_error": outcome.relative_error,
            "forecast_outcome": "inside" if outcome.inside else "outside",
        }
    return {f"scaling.{name}": str(value) for name, value in found.items() if value is not None}


def _description(study: str, row: RunRow, forecast: Forecast | None) -> str:
    size = format_count(architectures.total_params(row.spec.shape))
    words = f"{size} parameters on {format_count(row.spec.tokens)} tokens, run {row.key[:8]} of the study {study}: "
    words += f"loss {row.loss:.4f} nats a token"
    if forecast is None or row.loss is None:
        return words
    loss, outcome = forecast.loss, score(forecast, [row.loss], [row.key])
    bounds = "" if loss.low is None or loss.high is None else f" [{loss.low:.4f}, {loss.high:.4f}]"
    where = "inside" if outcome.inside else "outside"
    return f"{words}; forecast {loss.estimate:.4f}{bounds} before it started, {where} ({outcome.relative_error:+.2%})"
