"""Options that name a model which answers in text: a folder on this machine, or a name at an endpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from trainer.posttrain.text_model import TextModel

__all__ = [
    "ConcurrencyOption",
    "EndpointOption",
    "KeyOption",
    "ModelOption",
    "RateOption",
    "TimeoutOption",
    "TriesOption",
    "open_text_model",
]

ModelOption = Annotated[
    str,
    typer.Option(
        "--model", metavar="M", help="A folder in the Hugging Face layout; with --endpoint, a model's name there."
    ),
]
EndpointOption = Annotated[
    str | None,
    typer.Option(
        "--endpoint", metavar="URL", help="OpenAI-compatible, ending before /chat/completions: http://127.0.0.1:8000/v1"
    ),
]
KeyOption = Annotated[
    str | None,
    typer.Option("--key-from", metavar="VARIABLE", help="The environment variable that holds the endpoint's key."),
]
ConcurrencyOption = Annotated[
    int, typer.Option("--concurrency", min=1, help="Requests under way at once at an endpoint.")
]
RateOption = Annotated[
    float | None, typer.Option("--requests-per-minute", min=0.001, help="No more than these are begun.")
]
TimeoutOption = Annotated[float, typer.Option("--timeout", min=0.001, metavar="SECONDS", help="Of one request.")]
TriesOption = Annotated[int, typer.Option("--tries", min=1, help="Of one request, with growing waits between.")]


def open_text_model(
    model: str,
    endpoint: str | None,
    key_from: str | None,
    *,
    concurrency: int,
    requests_per_minute: float | None,
    timeout: float,
    tries: int,
) -> TextModel:
    """The model that the options name; :class:`~scaling.errors.UserError` where it can't be."""
    from scaling.errors import UserError

    if endpoint is None:
        from trainer.posttrain.local_model import FolderModel, is_model_folder

        if key_from is not None:
            raise UserError("--key-from is for an --endpoint: give its address too")
        if not is_model_folder(Path(model)):
            raise UserError(
                f"--model {model} is no folder in the Hugging Face layout: give one (`scaling export` writes it), or "
                "an --endpoint that knows a model of this name"
            )
        return FolderModel(Path(model))
    from trainer.posttrain.endpoint import Endpoint, EndpointSettings

    settings = EndpointSettings(
        base_url=endpoint,
        model=model,
        key_variable=key_from,
        timeout_seconds=timeout,
        tries=tries,
        concurrency=concurrency,
        requests_per_minute=requests_per_minute,
    )
    return Endpoint(settings, lambda message: typer.echo(f"scaling: {message}", err=True))
