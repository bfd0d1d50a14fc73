"""How long and how various the kept tasks are, as counts that need no parser."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from scaling.record import Record
from trainer.posttrain.synthesis.rouge import words_of
from trainer.posttrain.synthesis.synthesise import MadeTask

__all__ = ["Diversity", "Quantiles", "diversity"]

_MOST = 20


class Quantiles(Record):
    least: float
    p10: float
    median: float
    p90: float
    most: float


class Diversity(Record):
    tasks: int
    with_input: int
    instruction_words: Quantiles | None
    input_words: Quantiles | None
    """Of the tasks that have one."""
    output_words: Quantiles | None
    first_words: dict[str, int]
    """The commonest first words of an instruction, most often a verb, with their counts."""
    first_pairs: dict[str, int]
    distinct_first_pairs: int
    nearest_by_tenth: tuple[int, ...]
    """Tasks by the ROUGE-L of their instruction with its nearest before it: [0, 0.1), [0.1, 0.2), … [0.9, 1]."""
    repeated_outputs: int
    """Tasks whose output is, but for case and spaces, that of an earlier one."""
    repeated_inputs: int


def diversity(tasks: Sequence[MadeTask]) -> Diversity:
    words = [words_of(task.instruction) for task in tasks]
    firsts = Counter(each[0] for each in words if each)
    pairs = Counter(" ".join(each[:2]) for each in words if len(each) > 1)
    tenths = np.bincount([min(9, int(10 * task.nearest)) for task in tasks], minlength=10)
    return Diversity(
        tasks=len(tasks),
        with_input=sum(bool(task.input) for task in tasks),
        instruction_words=_quantiles([task.instruction for task in tasks]),
        input_words=_quantiles([task.input for task in tasks if task.input]),
        output_words=_quantiles([task.output for task in tasks]),
        first_words=dict(firsts.most_common(_MOST)),
        first_pairs=dict(pairs.most_common(_MOST)),
        distinct_first_pairs=len(pairs),
        nearest_by_tenth=tuple(int(count) for count in tenths),
        repeated_outputs=_repeated([task.output for task in tasks]),
        repeated_inputs=_repeated([task.input for task in tasks if task.input]),
    )


def _quantiles(texts: Sequence[str]) -> Quantiles | None:
    if not texts:
        return None
    least, p10, median, p90, most = np.quantile([len(text.split()) for text in texts], [0, 0.1, 0.5, 0.9, 1]).tolist()
    return Quantiles(least=least, p10=p10, median=median, p90=p90, most=most)


def _repeated(texts: Sequence[str]) -> int:
    return len(texts) - len({" ".join(text.lower().split()) for text in texts})
