"""A model behind an OpenAI-compatible endpoint (``POST BASE_URL/chat/completions``), as a :class:`TextModel`.

What may pass is tried again, after 1, 2, 4, … seconds with jitter, or as long as the server's ``Retry-After`` says: no
connection, a time-out, a broken answer, and the statuses 408, 409, 425, 429 and 5xx. What won't pass (a wrong key,
an unknown model) is said in one line. The key is read from an environment variable, sent in the header alone, and
taken out of whatever a server says.
"""

from __future__ import annotations

import json
import os
import random
import re
import threading
import time
from collections.abc import Callable, Sequence
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from pydantic import Field

from scaling.errors import UserError
from scaling.record import Record
from trainer.posttrain.text_model import Answer, Asked, Message

__all__ = ["Endpoint", "EndpointSettings"]

LONGEST_WAIT_SECONDS = 300.0
LARGEST_ANSWER_BYTES = 16 * 2**20
_PASSING = {408, 409, 425, 429}
_OPTIONAL = ("response_format", "seed", "temperature", "top_p", "stop")


class EndpointSettings(Record):
    base_url: str
    """As clients take it, ending before ``/chat/completions``: ``http://127.0.0.1:8000/v1``."""
    model: str
    key_variable: str | None = None
    """Name of the environment variable that holds the key."""
    timeout_seconds: float = Field(default=120.0, gt=0)
    """Of one try, from its start to the last byte."""
    tries: int = Field(default=6, ge=1)
    concurrency: int = Field(default=4, ge=1)
    requests_per_minute: float | None = Field(default=None, gt=0)


class _MayPass(Exception):
    def __init__(self, problem: str, wait_seconds: float | None = None) -> None:
        super().__init__(problem)
        self.wait_seconds = wait_seconds


class Endpoint:
    """Answers from ``settings.concurrency`` threads at once; ``note`` is told what the server doesn't take."""

    def __init__(self, settings: EndpointSettings, note: Callable[[str], None]) -> None:
        parts = urlsplit(settings.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"--endpoint {settings.base_url} is no address: give one such as http://127.0.0.1:8000/v1")
        if parts.username or parts.password or parts.query:
            raise UserError(
                "--endpoint holds a name, password or query: give the plain address, and the key by --key-from"
            )
        self.name, self.concurrency = settings.model, settings.concurrency
        self._settings, self._note = settings, note
        self._url = settings.base_url.rstrip("/") + "/chat/completions"
        self._key = _key(settings.key_variable)
        if self._key and parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
            note(f"the key travels unencrypted to {parts.hostname}: use https where the server has it")
        self._lock = threading.Lock()
        self._next_start = 0.0
        self._left_out: set[str] = set()
        self._length_name = "max_tokens"
        self._sessions = threading.local()

    def answer(self, messages: Sequence[Message], asked: Asked, *, seed: int) -> Answer:
        problem = ""
        for attempt in range(self._settings.tries):
            self._wait_for_my_turn()
            try:
                return self._try(messages, asked, seed)
            except _MayPass as error:
                problem = str(error)
                if attempt + 1 < self._settings.tries:
                    self._back_off(attempt, error.wait_seconds)
        raise UserError(
            f"{self._url} gave no answer in {self._settings.tries} tries, the last: {self._safe(problem)}; what was "
            "answered before is kept, and the same command goes on"
        )

    def _try(self, messages: Sequence[Message], asked: Asked, seed: int) -> Answer:
        # A server that doesn't take an optional part is asked again without it: at most once for each.
        while True:
            body = self._body(messages, asked, seed)
            status, headers, content = self._post(body)
            if status == 200:
                return _answer(content)
            said = self._safe(_error_of(content))
            if status in (400, 422) and self._do_without(said, body):
                continue
            if status in _PASSING or status >= 500:
                raise _MayPass(f"HTTP {status} {said}".strip(), _retry_after(headers))
            raise UserError(f"{self._url} refuses: HTTP {status} {said}; {_remedy(status, self._settings)}")

    def _body(self, messages: Sequence[Message], asked: Asked, seed: int) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._settings.model,
            "messages": [message.model_dump() for message in messages],
            self._length_name: asked.most_tokens,
            "temperature": asked.temperature,
            "seed": seed,
        }
        if asked.top_p is not None:
            body["top_p"] = asked.top_p
        if asked.stop:
            body["stop"] = list(asked.stop)
        if asked.json_schema is not None:
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "answer", "strict": True, "schema": asked.json_schema},
            }
        return {name: value for name, value in body.items() if name not in self._left_out}

    def _do_without(self, said: str, body: dict[str, Any]) -> bool:
        """Whether a part of ``body`` was refused that can be left out; another thread may have found so already."""
        with self._lock:
            if "max_tokens" in body and "max_completion_tokens" in said:
                self._length_name = "max_completion_tokens"
                return True
            for name in _OPTIONAL:
                words = rf"\b(?:{name}|json_schema)\b" if name == "response_format" else rf"\b{name}\b"
                if name in body and re.search(words, said):
                    if name not in self._left_out:
                        self._note(f"{self._settings.model} is asked without {name}, which its server doesn't take")
                    self._left_out.add(name)
                    return True
        return False

    def _post(self, body: dict[str, Any]) -> tuple[int, Any, bytes]:
        until = time.monotonic() + self._settings.timeout_seconds
        try:
            with self._session().post(
                self._url,
                json=body,
                timeout=(min(10.0, self._settings.timeout_seconds), self._settings.timeout_seconds),
                stream=True,
                allow_redirects=False,
            ) as response:
                parts, size = [], 0
                # Not iter_content, which waits for whole pieces however slowly they come.
                while part := response.raw.read1(65536, decode_content=True):
                    parts.append(part)
                    size += len(part)
                    if size > LARGEST_ANSWER_BYTES:
                        raise _MayPass(f"an answer of more than {LARGEST_ANSWER_BYTES >> 20} MiB")
                    if time.monotonic() > until:
                        raise requests.Timeout
                return response.status_code, response.headers, b"".join(parts)
        except (requests.Timeout, urllib3.exceptions.TimeoutError):
            raise _MayPass(f"no whole answer within {self._settings.timeout_seconds:g} s") from None
        except (requests.ConnectionError, urllib3.exceptions.HTTPError):
            raise _MayPass("the connection was refused or closed") from None
        except requests.RequestException as error:
            raise _MayPass(type(error).__name__) from None

    def _session(self) -> requests.Session:
        """One a thread; its own way to authorise, or requests would put in what a .netrc says."""
        session = getattr(self._sessions, "session", None)
        if session is None:
            session = self._sessions.session = requests.Session()
            session.auth = self._authorise
        return session

    def _authorise(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def _wait_for_my_turn(self) -> None:
        gap = 60.0 / self._settings.requests_per_minute if self._settings.requests_per_minute else 0.0
        with self._lock:
            start = max(time.monotonic(), self._next_start)
            self._next_start = start + gap
        time.sleep(max(0.0, start - time.monotonic()))

    def _back_off(self, attempt: int, told_seconds: float | None) -> None:
        if told_seconds is None:
            time.sleep(min(2.0**attempt, 60.0) * random.uniform(0.5, 1.0))
            return
        # Told to one, meant for all of us.
        with self._lock:
            self._next_start = max(self._next_start, time.monotonic() + min(told_seconds, LONGEST_WAIT_SECONDS))

    def _safe(self, text: str) -> str:
        return text.replace(self._key, "(the key)") if self._key else text


def _key(variable: str | None) -> str:
    if variable is None:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UserError(f"--key-from {variable}: this environment variable is empty or not set; put the key there")
    if not key.isascii() or not key.isprintable():
        raise UserError(f"--key-from {variable}: the key has characters that no header may have; copy it again")
    return key


def _answer(content: bytes) -> Answer:
    try:
        body = json.loads(content)
        choice = body["choices"][0]
        message, ended = choice["message"], choice.get("finish_reason")
        refusal, text = message.get("refusal"), message.get("content")
        usage = body.get("usage") or {}
        if not isinstance(text, str | None) or not isinstance(refusal, str | None):
            raise TypeError
        if text is None and not refusal and ended not in ("length", "content_filter"):
            raise TypeError
        return Answer(
            text=text or refusal or "",
            ended="refused" if refusal or ended == "content_filter" else "length" if ended == "length" else "stop",
            prompt_tokens=usage.get("prompt_tokens"),
            completion_tokens=usage.get("completion_tokens"),
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise _MayPass("an answer that is no chat completion") from None


def _error_of(content: bytes) -> str:
    """What the server says in one short line, whatever form it has."""
    try:
        said = json.loads(content)
        while isinstance(said, dict):
            said = said.get("error") or said.get("message") or said.get("detail") or json.dumps(said)
        text = said if isinstance(said, str) else json.dumps(said)
    except (ValueError, RecursionError):
        text = content.decode(errors="replace")
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:300]


def _retry_after(headers: Any) -> float | None:
    """Seconds, from a number of them or a date."""
    told = headers.get("Retry-After")
    if told is None:
        return None
    try:
        return max(0.0, float(told))
    except ValueError:
        try:
            return max(0.0, parsedate_to_datetime(told).timestamp() - time.time())
        except ValueError:
            return None


def _remedy(status: int, settings: EndpointSettings) -> str:
    if status in (401, 403):
        return (
            "name the environment variable of the key by --key-from"
            if settings.key_variable is None
            else f"look at the key in {settings.key_variable}"
        )
    if status == 404:
        return f"look at --endpoint and at the model's name {settings.model!r}"
    if 300 <= status < 400:
        return "it leads elsewhere: give the address that it leads to as --endpoint"
    return "look at what it says"
