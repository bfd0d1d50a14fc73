"""Two answers to a prompt, blind: which is better."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict
from http import HTTPStatus
from typing import Any

from analysis.loopback import HTML, JSON, Answered, DecidingHandler, LoopbackServer
from analysis.offline_page import render_page
from scaling.errors import UserError
from trainer.posttrain.blind_choice import BlindChoice

__all__ = ["PreferenceServer"]

_SIDES = ("left", "right", "tie", "skip")


class PreferenceServer(LoopbackServer):
    def __init__(self, preferences: BlindChoice, port: int) -> None:
        page = render_page("prefer.html", "served.js", "prefer.js", connect="'self'", annotator=preferences.annotator)
        super().__init__(port, _Handler, preferences, threading.Lock(), page.encode())


class _Handler(DecidingHandler):
    def __init__(self, preferences: BlindChoice, lock: threading.Lock, page: bytes, *arguments: object) -> None:
        self._preferences, self._lock, self._page = preferences, lock, page
        super().__init__(*arguments)  # type: ignore[arg-type]

    def get(self, path: str) -> Answered | None:
        if path == "/":
            return HTTPStatus.OK, HTML, self._page
        if path == "/state.json":
            with self._lock:
                return self._state()
        return None

    def post(self, path: str, sent: dict[str, Any]) -> Answered | None:
        with self._lock:
            if path == "/choose":
                pair, side = sent.get("pair"), sent.get("side")
                if not isinstance(pair, str) or side not in _SIDES:
                    raise UserError(f"a choice has a pair, and a side of {', '.join(_SIDES)}")
                self._preferences.choose(pair, side)
            elif path == "/undo":
                self._preferences.undo()
            else:
                return None
            return self._state()

    def _state(self) -> Answered:
        """What comes next; nothing tells which answer is which, or who voted how."""
        shown = self._preferences.next()
        counts = self._preferences.votes.counts(self._preferences.annotator)
        state = {
            "shown": None if shown is None else asdict(shown),
            "pairs": counts["pairs"],
            "voted": counts["voted"],
            "out": self._preferences.votes.out.name,
        }
        return HTTPStatus.OK, JSON, json.dumps(state).encode()
