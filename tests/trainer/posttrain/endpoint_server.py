"""A real HTTP server on the loopback address that speaks the protocol of chat completions, with faults to order."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[[dict[str, Any]], str]
Fault = Callable[["_Handler", dict[str, Any]], bool]


class ChatServer:
    """Answers by ``reply`` from a request's body to the text; ``faults`` are used up first, one a request.

    A fault answers by itself and returns True, or returns False for the ordinary answer.
    """

    def __init__(self, reply: Reply, *faults: Fault, always: Fault | None = None, wait: float = 0.0) -> None:
        self.reply, self.faults, self.always, self.wait = reply, list(faults), always, wait
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"chat": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> ChatServer:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    chat: ChatServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        chat = self.chat
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with chat.lock:
            chat.bodies.append(body)
            chat.headers.append(dict(self.headers))
            chat.times.append(time.monotonic())
            chat.at_once += 1
            chat.most_at_once = max(chat.most_at_once, chat.at_once)
            fault = chat.faults.pop(0) if chat.faults else chat.always
        try:
            if self.path != "/v1/chat/completions":
                return self.send(404, {"error": {"message": f"no {self.path} here"}})
            if fault is not None and fault(self, body):
                return None
            time.sleep(chat.wait)
            return self.send(200, completion(chat.reply(body)))
        finally:
            with chat.lock:
                chat.at_once -= 1

    def send(self, status: int, content: Any, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing."""


def completion(text: str | None, **message: Any) -> dict[str, Any]:
    ended = message.pop("finish_reason", "stop")
    return {
        "choices": [{"message": {"role": "assistant", "content": text, **message}, "finish_reason": ended}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10},
    }


def status(number: int, said: Any = None, **headers: str) -> Fault:
    def fault(handler: _Handler, body: dict[str, Any]) -> bool:
        handler.send(number, {"error": {"message": said or "out of order"}}, **headers)
        return True

    return fault


def instead(content: Any) -> Fault:
    """``content`` with status 200."""

    def fault(handler: _Handler, body: dict[str, Any]) -> bool:
        handler.send(200, content)
        return True

    return fault


def hang_up(handler: _Handler, body: dict[str, Any]) -> bool:
    """In the middle of the answer."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.close_connection = True
    return True


def drip(handler: _Handler, body: dict[str, Any]) -> bool:
    """A byte now and then, so that no single read is late."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    try:
        for _ in range(100):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.1)
    except OSError:
        pass
    handler.close_connection = True
    return True
