"""The prompt: instructions (``prompt.txt``), numbered examples of people and of the model, and where to go on."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from importlib.resources import files

from trainer.posttrain.synthesis.task import Task

__all__ = ["HUMAN_EXAMPLES", "MODEL_EXAMPLES", "Parsed", "choose_examples", "parse", "prompt"]

HUMAN_EXAMPLES, MODEL_EXAMPLES = 6, 2
_NO_INPUT = "<noinput>"


def choose_examples(seeds: Sequence[Task], made: Sequence[Task], draw: random.Random) -> list[Task]:
    """6 seed tasks and 2 that the model made, mixed; more seeds while the model has made fewer than 2."""
    ours = draw.sample(made, min(MODEL_EXAMPLES, len(made)))
    theirs = draw.sample(seeds, min(HUMAN_EXAMPLES + MODEL_EXAMPLES - len(ours), len(seeds)))
    examples = [*theirs, *ours]
    draw.shuffle(examples)
    return examples


def prompt(examples: Sequence[Task], wanted: int) -> str:
    """A text that goes on with task ``len(examples) + 1``; ``wanted`` tasks are asked for."""
    instructions = files("trainer.posttrain.synthesis").joinpath("prompt.txt").read_text(encoding="utf-8")
    parts = [instructions.replace("LAST", str(len(examples) + wanted))]
    for number, task in enumerate(examples, start=1):
        instruction = " ".join(task.instruction.split()).rstrip(":")
        parts.append(
            f"###\n{number}. Instruction: {instruction}\n{number}. Input:\n{task.input or _NO_INPUT}\n"
            f"{number}. Output:\n{task.output}\n"
        )
    parts.append(f"###\n{len(examples) + 1}. Instruction:")
    return "".join(parts)


Parsed = tuple[list[Task], int]
"""Tasks, and how many pieces could not be read as one."""

_HEAD = r"^[ \t]*(?:\*\*)?(?:\d+[ \t]*\.[ \t]*)?(?:\*\*)?"
_TASK = re.compile(
    rf"{_HEAD}Instruction\s*:(?:\*\*)?(?P<instruction>.*?){_HEAD}Input\s*:(?:\*\*)?(?P<input>.*?)"
    rf"{_HEAD}Output\s*:(?:\*\*)?(?P<output>.*)\Z",
    re.DOTALL | re.MULTILINE,
)


def parse(answer: str, *, cut: bool) -> Parsed:
    """The tasks of an answer, which may begin with the first instruction's text or with its number.

    cut: the answer was ended by its length, so that its last task is not whole: left out, and counted.
    """
    text = answer.strip()
    # A model that only goes on begins behind the "Instruction:" that the prompt ends with.
    first_line = text.partition("\n")[0]
    if not re.match(r"\s*#{2,}", text) and not re.search(r"Instruction\s*:", first_line) and text:
        head = text.partition("Input")[0]
        if "Instruction" not in head:
            text = f"1. Instruction: {text}"
    pieces = [piece for piece in re.split(r"^[ \t]*#{3,}[ \t]*$", text, flags=re.MULTILINE) if piece.strip()]
    tasks, unread = [], 0
    for index, piece in enumerate(pieces):
        found = _TASK.search(piece)
        whole = not (cut and index == len(pieces) - 1)
        instruction, given, output = (
            (found[name].strip() for name in ("instruction", "input", "output")) if found else ("", "", "")
        )
        if not found or not whole or not instruction:
            unread += 1
            continue
        nothing = given.lower().strip("<>.() ") in ("noinput", "no input", "none", "n/a", "")
        tasks.append(Task(instruction=instruction, input="" if nothing else given, output=output))
    return tasks, unread
