"""``scaling chat``."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaling.cli.options import JsonFlag, WorkspaceOption, print_json
from scaling.cli.run_reference import find_run

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainer.posttrain.conversation import Conversation, Reply
    from trainer.posttrain.local_model import LocalModel

_HELP = (
    "/reset forgets what was said · /save [FILE] writes it as JSON · /quit (or Ctrl-D) ends · Ctrl-C stops an answer"
)


def chat(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A folder in the Hugging Face layout, or a run as `generate` takes it.")
    ],
    system: Annotated[str | None, typer.Option(help="What the model is told before anything is said.")] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token always.")] = 0.7,
    top_p: Annotated[float | None, typer.Option(max=1.0, help="Draw among the likeliest that make up P.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of one answer.")] = 512,
    seed: Annotated[int, typer.Option(min=0, help="Equal seeds and words give equal answers.")] = 0,
    workspace: WorkspaceOption = Path("workspace"),
    as_json: JsonFlag = False,
) -> None:
    """Talk to a model on this machine; where the input is no terminal, all of it is the one thing that is said.

    A model whose tokenizer has a chat template answers; a base model goes on from the text.

    Example: echo "What is a scaling law?" | scaling chat my-model --json
    """
    from scaling.errors import UserError
    from trainer.posttrain.conversation import Conversation
    from trainer.posttrain.text_model import Asked

    if top_p is not None and top_p <= 0:
        raise UserError(f"--top-p is {top_p:g}: give more than 0 and at most 1")

    def note(message: str) -> None:
        typer.echo(f"scaling: {message}", err=True)

    model = _open(run, workspace, note)
    asked = Asked(most_tokens=max_tokens, temperature=temperature, top_p=top_p)
    conversation = Conversation(model, asked, system=system, seed=seed, note=note)
    if sys.stdin.isatty() and not as_json:
        _talk(conversation, model)
        return
    said = sys.stdin.read().removesuffix("\n")
    if not said.strip():
        raise UserError("nothing was said on standard input: give it a text, or start without a pipe and --json")
    reply = _say(conversation, said, quiet=as_json)
    if as_json:
        print_json(
            {
                "model": model.name,
                "chat_template": model.has_template,
                "messages": [message.model_dump() for message in conversation.messages],
                **reply.model_dump(mode="json"),
                **asked.model_dump(mode="json", include={"temperature", "top_p"}),
                "max_tokens": max_tokens,
                "seed": seed,
            }
        )
    else:
        typer.echo()
    if reply.ended == "interrupted":
        raise KeyboardInterrupt


def _open(run: str, workspace: Path, note: Callable[[str], None]) -> LocalModel:
    from trainer.posttrain.local_model import FolderModel, RunModel, is_model_folder

    if is_model_folder(Path(run)):
        return FolderModel(Path(run))
    return RunModel(find_run(run, workspace), note)


def _talk(conversation: Conversation, model: LocalModel) -> None:
    import contextlib

    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 (the line can be edited, and earlier ones recalled)

    kind = (
        "answers by its chat template"
        if model.has_template
        else "a base model without a chat template: it goes on from your text"
    )
    limit = "" if model.context is None else f" · context {model.context:,} tokens"
    typer.echo(f"{model.name}: {kind}{limit}\n{_HELP}", err=True)
    while True:
        try:
            said = input("\n> ")
        except EOFError:
            typer.echo()
            return
        except KeyboardInterrupt:
            typer.echo("\n/quit or Ctrl-D ends", err=True)
            continue
        if said.strip() == "/quit":
            return
        if said.startswith("/"):
            _command(said.strip(), conversation)
        elif said.strip():
            reply = _say(conversation, said, quiet=False)
            typer.echo()
            if reply.ended != "stop":
                typer.echo(
                    "[stopped]" if reply.ended == "interrupted" else "[cut: --max-tokens or the context]", err=True
                )


def _say(conversation: Conversation, said: str, *, quiet: bool) -> Reply:
    from scaling.cli.terminal_text import show_text

    return conversation.say(said, (lambda text: None) if quiet else show_text)


def _command(said: str, conversation: Conversation) -> None:
    from scaling.errors import UserError

    name, _, rest = said.partition(" ")
    if name == "/reset":
        conversation.reset()
        typer.echo("forgotten", err=True)
    elif name == "/save":
        path = Path(rest.strip() or time.strftime("chat-%Y%m%d-%H%M%S.json"))
        try:
            conversation.save(path)
        except UserError as error:
            typer.echo(f"scaling: {error}", err=True)
        else:
            typer.echo(f"wrote {path}", err=True)
    else:
        typer.echo(f"{name} is no command. {_HELP}", err=True)
