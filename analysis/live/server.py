"""Serves the live page of one study on the loopback address: it can be read there, and nothing can be changed.

A request must name the loopback address as its host, so that no page of another site can reach it by a name that it
points to this machine (DNS rebinding), and only the paths below are answered: no path of a request reaches a file's.
Each page carries its content-security policy in itself.
"""

from __future__ import annotations

import json
import threading
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from typing import cast

from analysis.live.look import PAGES, LiveStudy
from analysis.offline_page import render_plots
from scaling.errors import UserError

__all__ = ["LiveServer"]

_HTML, _JSON = "text/html; charset=utf-8", "application/json"
_NOT_YET = "This page is written when the study has ended.\n"


class LiveServer:
    """Serves ``study`` at ``address`` until ``close``; port 0 takes any that is free."""

    def __init__(self, study: LiveStudy, port: int) -> None:
        page = _live_page(study.name).encode()
        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), partial(_Handler, study, page))
        except OSError as error:
            raise UserError(
                f"--port {port} can't be used: {error.strerror}; choose another, or 0 for any that is free"
            ) from None
        self._server.daemon_threads = True
        self._serving: threading.Thread | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/"

    def serve(self) -> None:
        """Answer until ``close`` is called from another thread, or Ctrl-C."""
        try:
            self._server.serve_forever(poll_interval=0.2)
        finally:
            self._server.server_close()

    def __enter__(self) -> LiveServer:
        self._serving = threading.Thread(target=self.serve, name="live page", daemon=True)
        self._serving.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        if self._serving is not None:
            self._serving.join()


def _live_page(study: str) -> str:
    return render_plots("live.html", "{}", "live.js", connect="'self'", study=study)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def __init__(self, study: LiveStudy, page: bytes, *arguments: object) -> None:
        self._study, self._page = study, page
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        """The page, what it asks for, or a file of the study that ``PAGES`` names."""
        if not self._is_ours():
            return self._send(HTTPStatus.FORBIDDEN, "text/plain", b"This page is served to 127.0.0.1 alone.\n")
        path = self.path.partition("?")[0]
        if path == "/":
            return self._send(HTTPStatus.OK, _HTML, self._page)
        if path == "/state.json":
            state = json.dumps(self._study.state(), allow_nan=False)
            return self._send(HTTPStatus.OK, _JSON, state.encode())
        if path == "/figures.json":
            return self._send(HTTPStatus.OK, _JSON, self._study.figures().encode())
        for name in PAGES:
            if path in (f"/{name}", f"/{name.removesuffix('.html')}"):
                file = self._study.folder / name
                if not file.is_file():
                    return self._send(HTTPStatus.NOT_FOUND, "text/plain", _NOT_YET.encode())
                return self._send(HTTPStatus.OK, _HTML, file.read_bytes())
        return self._send(HTTPStatus.NOT_FOUND, "text/plain", b"There is no such page here.\n")

    do_HEAD = do_GET

    def _is_ours(self) -> bool:
        host, _, port = self.headers.get("Host", "").rpartition(":")
        return host in ("127.0.0.1", "localhost") and port == str(cast(HTTPServer, self.server).server_port)

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "DENY"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
        ):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: a page that asks every two seconds would bury everything else."""
