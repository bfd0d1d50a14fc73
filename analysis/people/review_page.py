"""Synthesised tasks one after another: keep, drop or edit."""

from __future__ import annotations

import json
import threading
from http import HTTPStatus
from typing import Any

from pydantic import ValidationError

from analysis.loopback import HTML, JSON, Answered, DecidingHandler, LoopbackServer
from analysis.offline_page import render_page
from scaling.errors import UserError
from trainer.posttrain.synthesis.review import Review
from trainer.posttrain.synthesis.task import Task

__all__ = ["ReviewServer"]


class ReviewServer(LoopbackServer):
    def __init__(self, review: Review, port: int) -> None:
        page = render_page("review.html", "served.js", "review.js", connect="'self'", annotator=review.annotator)
        super().__init__(port, _Handler, review, threading.Lock(), page.encode())


class _Handler(DecidingHandler):
    def __init__(self, review: Review, lock: threading.Lock, page: bytes, *arguments: object) -> None:
        self._review, self._lock, self._page = review, lock, page
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
            if path == "/decide":
                decision = sent.get("decision")
                if decision not in ("keep", "drop", "edit"):
                    raise UserError("a decision is keep, drop or edit")
                try:
                    edited = Task.model_validate(sent["edited"]) if decision == "edit" else None
                except (LookupError, ValidationError):
                    raise UserError("an edited task has instruction, input and output") from None
                self._review.decide(str(sent.get("task")), decision, edited)
            elif path == "/undo":
                self._review.undo()
            else:
                return None
            return self._state()

    def _state(self) -> Answered:
        task = self._review.next()
        return (
            HTTPStatus.OK,
            JSON,
            json.dumps({"task": None if task is None else task.model_dump(), **self._review.counts()}).encode(),
        )
