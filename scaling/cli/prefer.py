"""``scaling prefer``."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated

import typer

from scaling.cli.options import JsonFlag
from scaling.cli.serving import BrowserFlag, PortOption, serve

AnnotatorOption = Annotated[
    str | None, typer.Option("--annotator", metavar="NAME", help="Who decides; the name of this account if not given.")
]


def prefer(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Pairs as JSON lines: prompt, and first and second (or chosen, rejected)."),
    ],
    out: Annotated[Path, typer.Option(help="The pairs that get a choice, as training takes them.")] = Path(
        "pairs.jsonl"
    ),
    annotator: AnnotatorOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the order, and of which answer stands where.")] = 0,
    port: PortOption = 8322,
    browser: BrowserFlag = True,
    as_json: JsonFlag = False,
) -> None:
    """Let a person choose between two answers, blind, on a page that this machine serves; Ctrl-C ends it.

    Every choice is written at once; started again it goes on, and several people may work on one file.

    Example: scaling prefer sampled.jsonl --out pairs.jsonl --annotator ada
    """
    from analysis.people.preference_page import PreferenceServer
    from trainer.posttrain.blind_choice import BlindChoice
    from trainer.posttrain.votes import Votes, read_comparisons

    choices = BlindChoice(Votes(read_comparisons(file), out), annotator or getpass.getuser(), seed)
    counts = choices.votes.counts(choices.annotator)
    left = counts["pairs"] - counts["voted"]
    serve(
        PreferenceServer(choices, port),
        f"{left} of {counts['pairs']} pairs wait for {choices.annotator}",
        {"annotator": choices.annotator, "out": str(out), "pairs": counts["pairs"], "left": left},
        browser=browser,
        as_json=as_json,
    )
    counts = choices.votes.counts(choices.annotator)
    typer.echo(
        f"{counts['voted']} of {counts['pairs']} pairs: {counts['preferred']} preferred ({counts['left_chosen']} of "
        f"them the left one), {counts['ties']} ties, {counts['skipped']} skipped; in {out}, each vote in "
        f"{choices.votes.log_file}",
        err=True,
    )
