"""Two answers to a prompt, blind: which is better."""

from __future__ import annotations

import threading
from dataclasses import asdict
from typing import Any

from analysis.loopback import DecidingHandler, LoopbackServer
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
    decisions: BlindChoice

    def decide(self, path: str, sent: dict[str, Any]) -> bool:
        if path == "/choose":
            pair, side = sent.get("pair"), sent.get("side")
            if not isinstance(pair, str) or side not in _SIDES:
                raise UserError(f"a choice has a pair, and a side of {', '.join(_SIDES)}")
            self.decisions.choose(pair, side)
        elif path == "/undo":
            self.decisions.undo()
        else:
            return False
        return True

    def state(self) -> dict[str, Any]:
        """Nothing of it tells which answer is which, or who voted how."""
        shown = self.decisions.next()
        counts = self.decisions.votes.counts(self.decisions.annotator)
        return {
            "shown": None if shown is None else asdict(shown),
            "pairs": counts["pairs"],
            "voted": counts["voted"],
            "out": self.decisions.votes.out.name,
        }
