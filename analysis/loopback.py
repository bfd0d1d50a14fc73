"""Pages that this machine serves to itself.

A request must name the loopback address as its host, so that no page of another site can reach it by a name that it
points to this machine (DNS rebinding). What changes something is a POST of JSON from the page itself: another site can
send none without asking first, and is never allowed to. Each page carries its content-security policy in itself.
"""

from __future__ import annotations

import json
import threading
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from typing import Any, cast

from scaling.errors import UserError

__all__ = ["HTML", "JSON", "TEXT", "Answered", "DecidingHandler", "LoopbackHandler", "LoopbackServer"]

HTML, JSON, TEXT = "text/html; charset=utf-8", "application/json", "text/plain; charset=utf-8"
LARGEST_POST_BYTES = 2**20

Answered = tuple[HTTPStatus, str, bytes]
"""Status, content type, content."""


class LoopbackHandler(BaseHTTPRequestHandler):
    """Answers by :meth:`get`, which is called for requests of this machine alone; nothing can be sent."""

    protocol_version = "HTTP/1.1"
    timeout = 30

    def get(self, path: str) -> Answered | None:
        """The answer to a path without its query; None where there is none."""
        raise NotImplementedError

    def do_GET(self) -> None:
        if self._is_ours():
            self._send(self.get(self.path.partition("?")[0]))

    do_HEAD = do_GET

    def _is_ours(self) -> bool:
        host, _, port = self.headers.get("Host", "").rpartition(":")
        if host in ("127.0.0.1", "localhost") and port == str(cast(HTTPServer, self.server).server_port):
            return True
        self.close_connection = True
        self._send((HTTPStatus.FORBIDDEN, TEXT, b"This page is served to 127.0.0.1 alone.\n"))
        return False

    def _send(self, answered: Answered | None) -> None:
        status, kind, body = answered or (HTTPStatus.NOT_FOUND, TEXT, b"There is no such page here.\n")
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


class DecidingHandler(LoopbackHandler):
    """A page, the state that it shows, and what a person decides on it, one decision at a time."""

    def __init__(self, decisions: Any, lock: threading.Lock, page: bytes, *arguments: object) -> None:
        """decisions: what :meth:`decide` changes and :meth:`state` tells."""
        self.decisions, self._lock, self._page = decisions, lock, page
        super().__init__(*arguments)  # type: ignore[arg-type]

    def decide(self, path: str, sent: dict[str, Any]) -> bool:
        """Take a JSON object; False if nothing takes one at ``path``. :class:`UserError` is told to the page."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """What the page shows next."""
        raise NotImplementedError

    def get(self, path: str) -> Answered | None:
        if path == "/":
            return HTTPStatus.OK, HTML, self._page
        if path == "/state.json":
            with self._lock:
                return self._told()
        return None

    def _told(self) -> Answered:
        return HTTPStatus.OK, JSON, json.dumps(self.state()).encode()

    def do_POST(self) -> None:
        if not self._is_ours():
            return
        size = self.headers.get("Content-Length", "")
        own = self.headers.get("Origin") in (None, f"http://{self.headers.get('Host')}")
        if not own or self.headers.get_content_type() != JSON:
            self.close_connection = True
            self._send((HTTPStatus.FORBIDDEN, TEXT, b"Only the page itself may send something here.\n"))
            return
        if not size.isdecimal() or int(size) > LARGEST_POST_BYTES:
            self.close_connection = True
            self._send((HTTPStatus.REQUEST_ENTITY_TOO_LARGE, TEXT, b"That is too much to send at once.\n"))
            return
        try:
            sent = json.loads(self.rfile.read(int(size)))
            if not isinstance(sent, dict):
                raise ValueError
        except ValueError:
            self._send((HTTPStatus.BAD_REQUEST, TEXT, b"What was sent is no JSON object.\n"))
            return
        try:
            with self._lock:
                answer = self._told() if self.decide(self.path, sent) else None
            self._send(answer)
        except UserError as error:
            self._send((HTTPStatus.BAD_REQUEST, TEXT, f"{error}\n".encode()))


class LoopbackServer:
    """Serves at ``address`` until :meth:`serve` is interrupted or the ``with`` block ends; port 0 takes any free one.

    Each request makes a ``handler`` with ``arguments`` before those of the base class.
    """

    def __init__(self, port: int, handler: type[LoopbackHandler], *arguments: object) -> None:
        made = partial(cast(Any, handler), *arguments)
        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), made)
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
        """Answer until Ctrl-C, or until the ``with`` block ends."""
        try:
            self._server.serve_forever(poll_interval=0.2)
        finally:
            self._server.server_close()

    def __enter__(self) -> LoopbackServer:
        self._serving = threading.Thread(target=self.serve, name="page", daemon=True)
        self._serving.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        if self._serving is not None:
            self._serving.join()
