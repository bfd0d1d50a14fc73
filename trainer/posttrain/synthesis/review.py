"""What a person decided about synthesised tasks: a log of decisions, and the examples that follow from it.

``decisions.jsonl`` has a line a decision, the later one of a task holds; ``examples.jsonl`` has a line
``{"prompt", "completion"}`` for each task that wasn't dropped, as edited. Tasks are shown in an order drawn by a seed,
so that the first hundred tell what share of all is good.
"""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from scaling.errors import UserError
from scaling.record import Record
from trainer.posttrain.json_lines import JsonLines, as_lines
from trainer.posttrain.synthesis.synthesise import MadeTask, SynthesisFolder
from trainer.posttrain.synthesis.task import Task
from trainer.whole_file import write_whole

__all__ = ["Decision", "Review"]


class Decision(Record):
    task: str
    decision: Literal["keep", "drop", "edit", "undo"]
    """``undo``: as if nothing had been decided."""
    edited: Task | None = None
    annotator: str
    at: float = Field(default_factory=time.time)
    """Seconds since the epoch."""


class Review:
    """The tasks of ``folder`` before a person; what others decide meanwhile is seen too."""

    def __init__(self, folder: SynthesisFolder, annotator: str, seed: int = 0) -> None:
        self.annotator = annotator
        self._folder = folder.path
        self.tasks: list[MadeTask] = folder.tasks()
        if not self.tasks:
            raise UserError(f"{folder.path} holds no task yet: run `scaling synthesise {folder.path}` first")
        self._by_id = {task.id: task for task in self.tasks}
        self._order = [task.id for task in self.tasks]
        random.Random(seed).shuffle(self._order)
        self._decisions: dict[str, Decision] = {}
        self._mine: list[str] = []
        self._log = JsonLines(folder.path / "decisions.jsonl")
        self._catch_up()

    @property
    def examples_file(self) -> Path:
        return self._folder / "examples.jsonl"

    def next(self) -> MadeTask | None:
        """The first task in order about which nothing was decided; None at the end."""
        self._catch_up()
        return next((self._by_id[task] for task in self._order if task not in self._decisions), None)

    def counts(self) -> dict[str, int]:
        made = [decision.decision for decision in self._decisions.values()]
        return {"tasks": len(self.tasks), **{name: made.count(name) for name in ("keep", "drop", "edit")}}

    def decide(self, task: str, decision: Literal["keep", "drop", "edit"], edited: Task | None = None) -> None:
        """Write it down before it counts; :class:`UserError` for a task that isn't here or an edit without a text."""
        if task not in self._by_id:
            raise UserError(f"there is no task {task!r} here")
        if (decision == "edit") != (edited is not None):
            raise UserError("an edit has the edited task, and only an edit has")
        if edited is not None and not (edited.instruction.strip() and edited.output.strip()):
            raise UserError("an edited task has an instruction and an output")
        self._add(Decision(task=task, decision=decision, edited=edited, annotator=self.annotator))

    def undo(self) -> str | None:
        """Take back the last decision made here; its task, or None if there is none."""
        if not self._mine:
            return None
        task = self._mine[-1]
        self._add(Decision(task=task, decision="undo", annotator=self.annotator))
        return task

    def write_examples(self) -> None:
        """Anew from all decisions: at the end of a sitting, since tens of thousands take a second."""
        write_whole(self.examples_file, as_lines(self._examples()))

    def _examples(self) -> list[dict[str, str]]:
        examples = []
        for task in self.tasks:
            decision = self._decisions.get(task.id)
            if decision is None or decision.decision != "drop":
                used = decision.edited if decision is not None and decision.edited is not None else task
                examples.append({"prompt": used.prompt, "completion": used.output})
        return examples

    def _add(self, decision: Decision) -> None:
        self._log.add(decision.model_dump(mode="json", exclude_none=True))
        self._catch_up()

    def _catch_up(self) -> None:
        for row in self._log.news():
            try:
                decision = Decision.model_validate(row)
            except ValidationError:
                raise UserError(f"{self._log.path} is damaged or of another version: move it away") from None
            if decision.annotator == self.annotator:
                self._mine = [task for task in self._mine if task != decision.task]
            if decision.decision == "undo":
                self._decisions.pop(decision.task, None)
                continue
            self._decisions[decision.task] = decision
            if decision.annotator == self.annotator:
                self._mine.append(decision.task)
