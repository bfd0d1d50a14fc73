"""Serves the live page of one study on the loopback address: it can be read there, and nothing can be changed.

Only the paths below are answered: no path of a request reaches a file's.
"""

from __future__ import annotations

import json
from http import HTTPStatus

from analysis.live.look import PAGES, LiveStudy
from analysis.loopback import HTML, JSON, TEXT, Answered, LoopbackHandler, LoopbackServer
from analysis.offline_page import render_plots

__all__ = ["LiveServer"]

_NOT_YET = "This page is written when the study has ended.\n"


class LiveServer(LoopbackServer):
    def __init__(self, study: LiveStudy, port: int) -> None:
        super().__init__(port, _Handler, study, _live_page(study.name).encode())


def _live_page(study: str) -> str:
    return render_plots("live.html", "{}", "live.js", connect="'self'", study=study)


class _Handler(LoopbackHandler):
    def __init__(self, study: LiveStudy, page: bytes, *arguments: object) -> None:
        self._study, self._page = study, page
        super().__init__(*arguments)  # type: ignore[arg-type]

    def get(self, path: str) -> Answered | None:
        """The page, what it asks for, or a file of the study that ``PAGES`` names."""
        if path == "/":
            return HTTPStatus.OK, HTML, self._page
        if path == "/state.json":
            return HTTPStatus.OK, JSON, json.dumps(self._study.state(), allow_nan=False).encode()
        if path == "/figures.json":
            return HTTPStatus.OK, JSON, self._study.figures().encode()
        for name in PAGES:
            if path in (f"/{name}", f"/{name.removesuffix('.html')}"):
                file = self._study.folder / name
                if not file.is_file():
                    return HTTPStatus.NOT_FOUND, TEXT, _NOT_YET.encode()
                return HTTPStatus.OK, HTML, file.read_bytes()
        return None
