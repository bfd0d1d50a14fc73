"""A task (instruction, input, output), and the seed tasks that people wrote."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from scaling.errors import UserError
from scaling.record import Record
from trainer.posttrain.json_lines import read_json_lines

__all__ = ["Task", "read_seed_tasks"]


class Task(Record):
    instruction: str
    input: str = ""
    """What the instruction is to be applied to; often nothing."""
    output: str

    @property
    def prompt(self) -> str:
        return f"{self.instruction}\n\n{self.input}" if self.input else self.instruction


def read_seed_tasks(path: Path) -> list[Task]:
    """From JSON lines with ``instruction``, ``input``, ``output``, or Self-Instruct's ``instances`` (the first)."""
    tasks = []
    for number, row in enumerate(read_json_lines(path), start=1):
        instances = row.get("instances")
        found = instances[0] if isinstance(instances, list) and instances else row
        try:
            tasks.append(
                Task(
                    instruction=row["instruction"].strip(),
                    input=(found.get("input") or "").strip(),
                    output=found["output"].strip(),
                )
            )
        except (LookupError, AttributeError, ValidationError):
            raise UserError(
                f"{path}, task {number}: a seed task has the texts instruction and output, and may have input"
            ) from None
    if not tasks:
        raise UserError(f"{path} holds no seed task: give a file of JSON lines with instruction, input and output")
    return tasks
