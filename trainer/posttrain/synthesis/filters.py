"""Which tasks are dropped on sight: the rules of Self-Instruct and Alpaca, each with a name for the counts."""

from __future__ import annotations

import re
import string

from trainer.posttrain.synthesis.task import Task

__all__ = ["LONGEST_WORDS", "SHORTEST_WORDS", "fault"]

SHORTEST_WORDS, LONGEST_WORDS = 4, 150
"""Of an instruction."""
# What a model of text can't take or give.
_NOT_TEXT = re.compile(
    r"\b(?:images?|graphs?|pictures?|files?|maps?|draw|plot|go to|videos?|audio|music|flowcharts?|diagrams?)\b",
    re.IGNORECASE,
)


def fault(task: Task) -> str | None:
    """Why ``task`` is dropped, or None."""
    words = task.instruction.split()
    if len(words) < SHORTEST_WORDS:
        return "instruction too short"
    if len(words) > LONGEST_WORDS:
        return "instruction too long"
    if task.instruction[0] in string.punctuation:
        return "starts with punctuation"
    if not task.instruction[0].isascii():
        return "starts with a letter that is not ASCII"
    if _NOT_TEXT.search(task.instruction):
        return "needs more than text"
    # Such instructions confuse: it stays unclear whether a program or its output is wanted.
    if task.instruction.lower().startswith("write a program"):
        return "asks for a program"
    if not task.output:
        return "no output"
    if task.output in (task.input, task.instruction):
        return "output repeats the task"
    if task.output.endswith(":") or "###" in task.output:
        return "output breaks off"
    return None
