"""``scaling watch``."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from scaling.cli.options import JsonFlag, StudyFile, WorkspaceOption


def watch(
    study: StudyFile,
    workspace: WorkspaceOption = Path("workspace"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="On the loopback address; 0 takes any free one.")] = 8321,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page.")] = True,
    as_json: JsonFlag = False,
) -> None:
    """Serve a live page of a study on this machine: progress, curves, the fit so far, failures; Ctrl-C ends it.

    It may be started before the study and goes on after it, with links to the report and the forecast explorer.

    Example: scaling watch quickstart.yaml
    """
    from analysis.live.look import LiveStudy
    from analysis.live.server import LiveServer
    from sweeps.study import load_study

    name = load_study(study).name
    server = LiveServer(LiveStudy(name, workspace), port)
    if as_json:
        print(json.dumps({"study": name, "address": server.address}), flush=True)
    else:
        typer.echo(f"{name} is shown at {server.address} (Ctrl-C ends it)")
    if browser and not as_json and _has_screen():
        import webbrowser

        webbrowser.open(server.address)
    signal.signal(signal.SIGTERM, _stop)
    try:
        server.serve()
    except KeyboardInterrupt:
        typer.echo("the page is no longer served", err=True)


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _has_screen() -> bool:
    """Whether a browser would open beside the terminal, and not inside it."""
    return not sys.platform.startswith("linux") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
