"""Synthesised tasks one after another: keep, drop or edit."""

from __future__ import annotations

import threading
from typing import Any

from pydantic import ValidationError

from analysis.loopback import DecidingHandler, LoopbackServer
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
    decisions: Review

    def decide(self, path: str, sent: dict[str, Any]) -> bool:
        if path == "/decide":
            decision = sent.get("decision")
            if decision not in ("keep", "drop", "edit"):
                raise UserError("a decision is keep, drop or edit")
            try:
                edited = Task.model_validate(sent["edited"]) if decision == "edit" else None
            except (LookupError, ValidationError):
                raise UserError("an edited task has instruction, input and output") from None
            self.decisions.decide(str(sent.get("task")), decision, edited)
        elif path == "/undo":
            self.decisions.undo()
        else:
            return False
        return True

    def state(self) -> dict[str, Any]:
        task = self.decisions.next()
        return {"task": None if task is None else task.model_dump(), **self.decisions.counts()}
