"""``scaling generate``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from scaling.cli.options import JsonFlag, WorkspaceOption, print_json
from scaling.cli.run_reference import RunArgument, find_run
from scaling.cli.terminal_text import show_text


def generate(
    run: RunArgument,
    prompt: Annotated[str, typer.Argument(help="What the text begins with.")] = "",
    max_tokens: Annotated[int, typer.Option(min=1, help="It may end sooner, where the model ends the document.")] = 200,
    temperature: Annotated[float, typer.Option(min=0.0, help="Below 1 likelier tokens, above 1 rarer ones.")] = 1.0,
    top_k: Annotated[int | None, typer.Option(min=1, help="Draw among the K likeliest tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(max=1.0, help="Draw among the likeliest that make up P.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Equal seeds draw equal texts.")] = 0,
    greedy: Annotated[bool, typer.Option("--greedy", help="The likeliest token always.")] = False,
    workspace: WorkspaceOption = Path("workspace"),
    as_json: JsonFlag = False,
) -> None:
    """Let a trained run go on with a text, which it takes for the beginning of a document.

    Example: scaling generate workspace/trained/mine-a66725ab "Once upon a time" --top-p 0.9
    """
    from scaling.errors import UserError
    from trainer.data.tokenizer import separator_id
    from trainer.generate.decoding import generate as generated
    from trainer.generate.sampling import Sampling
    from trainer.generate.text_stream import TextStream

    if top_p is not None and top_p <= 0:
        raise UserError(f"--top-p is {top_p:g}: give more than 0 and at most 1")

    def note(message: str) -> None:
        typer.echo(f"\nscaling: {message}" if sys.stdout.isatty() else f"scaling: {message}", err=True)

    trained = find_run(run, workspace)
    tokenizer, model = trained.tokenizer, trained.model(note)
    separator = separator_id(tokenizer)
    sampling = Sampling(temperature=0.0 if greedy else temperature, top_k=top_k, top_p=top_p)
    stream, tokens, text = TextStream(tokenizer), [], prompt
    _show(prompt, quiet=as_json)
    for token in generated(
        model,
        [separator, *tokenizer.encode(prompt, add_special_tokens=False).ids],
        sampling,
        seed=seed,
        most=max_tokens,
        stop=separator,
        note=note,
    ):
        tokens.append(token)
        text += _show(stream.add(token), quiet=as_json)
    text += _show(stream.end(), quiet=as_json)
    if as_json:
        print_json(
            {
                "run_key": trained.spec.key,
                "prompt": prompt,
                "text": text,
                "tokens": tokens,
                "ended": "length" if len(tokens) == max_tokens else "document",
                "seed": seed,
                **sampling.model_dump(mode="json"),
            }
        )
    else:
        typer.echo()


def _show(text: str, *, quiet: bool) -> str:
    if not quiet:
        show_text(text)
    return text
