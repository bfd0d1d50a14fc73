"""Is the corpus the run's, is it whole, and are there enough tokens?"""

from __future__ import annotations

from collections.abc import Iterator

from scaling.allocation.limited_data import repetition_constants
from scaling.errors import UserError
from scaling.laws.effective_data import effective_tokens
from scaling.quantity import format_count
from scaling.run_spec import RunSpec
from trainer.data.order import BatchOrder
from trainer.data.run_data import RunData
from trainer.data.shards import Corpus
from trainer.evaluate.held_out import HeldOutSet
from trainer.preflight.check import Check

__all__ = ["check_data"]

FREE_PASSES = 4.0
"""Up to here repeated tokens are nearly as good as new ones (Muennighoff et al. 2305.16264)."""
LEAST_WORTH = 0.5
"""Of the tokens, in new ones: below it more than half of the compute is wasted."""


def check_data(spec: RunSpec, corpus: Corpus, annealing: Corpus | None) -> Check:
    """``fail`` if the corpus is not the run's, is damaged or too short, or if its tokens are repeated so often that
    they are worth less than half as many new ones; ``warn`` from the fifth pass on."""
    try:
        for each in (corpus, annealing):
            if each is not None:
                each.check_sizes()
        RunData(spec, corpus, annealing)
        HeldOutSet(corpus, spec.held_out_tokens, spec.shape.context)
    except UserError as error:
        return Check(name="data", status="fail", said=str(error))
    r_d = repetition_constants("muennighoff").r_d
    parts: list[str] = []
    figures: dict[str, float | int | str | None] = {}
    passes_most, worth_least = 0.0, 1.0
    for name, tokens, of in _streams(spec, corpus, annealing):
        order = BatchOrder(of.manifest.train.tokens, spec.shape.context, spec.sequences_per_step, spec.seed)
        unique = order.windows_per_epoch * order.context
        passes = tokens / unique
        worth = float(effective_tokens(tokens, unique, r_d)) / tokens
        passes_most, worth_least = max(passes_most, passes), min(worth_least, worth)
        parts.append(
            f"{format_count(tokens)} tokens are {passes:.3g} passes over {name}'s {format_count(unique)}"
            + (f", worth {worth:.0%} of as many new ones" if passes > FREE_PASSES else "")
        )
        prefix = "" if of is corpus else "annealing_"
        figures |= {f"{prefix}tokens": tokens, f"{prefix}unique_tokens": unique, f"{prefix}passes": passes}
        figures |= {f"{prefix}worth_share": worth}
    status = "ok"
    remedy = None
    if passes_most > FREE_PASSES:
        status = "fail" if worth_least < LEAST_WORTH else "warn"
        remedy = "prepare more text, or plan a smaller run: `scaling allocate` says what scarce text calls for"
    said = "; ".join(parts) + f"; {format_count(spec.held_out_tokens)} held-out tokens"
    return Check(name="data", status=status, said=said, remedy=remedy, figures=figures)


def _streams(spec: RunSpec, corpus: Corpus, annealing: Corpus | None) -> Iterator[tuple[str, int, Corpus]]:
    if spec.anneal is None or annealing is None:
        yield "the corpus", spec.tokens, corpus
    else:
        yield "the corpus", spec.anneal.from_tokens, corpus
        yield "the annealing corpus", spec.tokens - spec.anneal.from_tokens, annealing
