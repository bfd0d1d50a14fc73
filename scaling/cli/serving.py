"""Serves a page on this machine until Ctrl-C: what the commands that do so have in common."""

from __future__ import annotations

import json
import os
import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from analysis.loopback import LoopbackServer

__all__ = ["BrowserFlag", "PortOption", "serve"]

PortOption = Annotated[int, typer.Option(min=0, max=65535, help="On the loopback address; 0 takes any free one.")]
BrowserFlag = Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page.")]


def serve(server: LoopbackServer, said: str, facts: dict[str, Any], *, browser: bool, as_json: bool) -> None:
    """Say where the page is (``said`` at ADDRESS, or ``facts`` with it as one JSON line), and answer until Ctrl-C."""
    if as_json:
        print(json.dumps({**facts, "address": server.address}), flush=True)
    else:
        typer.echo(f"{said} at {server.address} (Ctrl-C ends it)")
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
