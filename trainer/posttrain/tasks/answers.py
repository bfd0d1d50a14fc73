"""Questions with one right answer each, as shell commands for what they do: scored by equality and by shared words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Literal

from scaling.record import Record
from trainer.posttrain.examples import Example, ExampleFile, read_examples

__all__ = ["Answers"]


class Answers(Record):
    """The examples of a file; the score is 1 for the very answer, else half the F1 of its words.

    Words are separated by white space, and counted as often as they stand (F1 as SQuAD's, Rajpurkar et al. 1606.05250,
    without its normalisation, since case and punctuation matter in a command).
    """

    kind: Literal["answers"] = "answers"
    data: ExampleFile

    def examples(self) -> list[Example]:
        return [row.model_copy(update={"columns": {"answer": row.completion}}) for row in read_examples(self.data)]

    def checks(self, completion: str, columns: Mapping[str, str]) -> dict[str, float]:
        said, right = completion.split(), columns["answer"].split()
        shared = sum((Counter(said) & Counter(right)).values())
        f1 = 2 * shared / (len(said) + len(right)) if said or right else 1.0
        return {"exact": float(said == right), "first_word": float(said[:1] == right[:1]), "shared_words": f1}

    def score(self, completion: str, columns: Mapping[str, str]) -> float:
        found = self.checks(completion, columns)
        return 1.0 if found["exact"] else found["shared_words"] / 2
