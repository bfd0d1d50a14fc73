"""``scaling review``."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated

import typer

from scaling.cli.options import JsonFlag
from scaling.cli.prefer import AnnotatorOption
from scaling.cli.serving import BrowserFlag, PortOption, serve


def review(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="What `scaling synthesise` made.")],
    annotator: AnnotatorOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the order in which tasks are shown.")] = 0,
    port: PortOption = 8323,
    browser: BrowserFlag = True,
    as_json: JsonFlag = False,
) -> None:
    """Keep, drop or edit synthesised tasks on a page that this machine serves; Ctrl-C writes examples.jsonl.

    Tasks come in a drawn order, so that the share dropped among the first hundred speaks for all.

    Example: scaling review my-tasks --annotator ada
    """
    from analysis.people.review_page import ReviewServer
    from trainer.posttrain.synthesis.review import Review
    from trainer.posttrain.synthesis.synthesise import SynthesisFolder

    reviewed = Review(SynthesisFolder(folder), annotator or getpass.getuser(), seed)
    tasks = len(reviewed.tasks)
    left = tasks - sum(reviewed.counts()[name] for name in ("keep", "drop", "edit"))
    try:
        serve(
            ReviewServer(reviewed, port),
            f"{left} of {tasks} tasks wait for a decision",
            {"annotator": reviewed.annotator, "folder": str(folder), "tasks": tasks, "left": left},
            browser=browser,
            as_json=as_json,
        )
    finally:
        reviewed.write_examples()
    counts = reviewed.counts()
    typer.echo(
        f"{counts['keep']} kept, {counts['edit']} edited, {counts['drop']} dropped; the rest as it is: "
        f"{reviewed.examples_file}",
        err=True,
    )
