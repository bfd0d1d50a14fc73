"""``scaling watch``."""

from __future__ import annotations

from pathlib import Path

from scaling.cli.options import JsonFlag, StudyFile, WorkspaceOption
from scaling.cli.serving import BrowserFlag, PortOption, serve


def watch(
    study: StudyFile,
    workspace: WorkspaceOption = Path("workspace"),
    port: PortOption = 8321,
    browser: BrowserFlag = True,
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
    serve(server, f"{name} is shown", {"study": name}, browser=browser, as_json=as_json)
