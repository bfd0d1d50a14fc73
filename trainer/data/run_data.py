"""What a run is fed: its corpus, and the one that it switches to where its specification says so."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling.errors import UserError
from scaling.run_spec import RunSpec
from trainer.data.order import BatchOrder
from trainer.data.shards import Corpus

__all__ = ["RunData"]


class RunData:
    """Batches by step: a pure function of the specification, the step, and the batches passed over before it."""

    def __init__(self, spec: RunSpec, corpus: Corpus, annealing_corpus: Corpus | None = None) -> None:
        """:class:`UserError` if a corpus is missing or not the specification's."""
        _check(spec, corpus, "data_key", spec.data_key)
        self.corpus = corpus
        self._main = _Stream(spec, corpus)
        self._annealing: _Stream | None = None
        self._switch_step = spec.steps
        if spec.anneal is not None:
            if annealing_corpus is None:
                raise UserError(
                    f"anneal.data_key {spec.anneal.data_key[:12]} is a corpus of its own: give it beside the run's"
                )
            _check(spec, annealing_corpus, "anneal.data_key", spec.anneal.data_key)
            self._annealing = _Stream(spec, annealing_corpus)
            self._switch_step = spec.anneal.from_tokens // spec.global_batch_tokens

    def batch(self, step: int, *, passed_over: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Inputs and targets of ``step`` (from 0), each [B, T]."""
        if self._annealing is not None and step >= self._switch_step:
            return self._annealing.batch(step - self._switch_step + passed_over)
        return self._main.batch(step + passed_over)


class _Stream:
    def __init__(self, spec: RunSpec, corpus: Corpus) -> None:
        # An array over the same map: indexing numpy's own kind of it costs half as much again.
        self._tokens: NDArray[Any] = np.asarray(corpus.tokens("train"))
        self._order = BatchOrder(len(self._tokens), spec.shape.context, spec.sequences_per_step, spec.seed)

    def batch(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return self._order.batch(self._tokens, step)


def _check(spec: RunSpec, corpus: Corpus, name: str, wanted_data: str) -> None:
    manifest = corpus.manifest
    for field, wanted, found in (
        (name, wanted_data, manifest.data_key),
        ("tokenizer_key", spec.tokenizer_key, manifest.tokenizer_key),
    ):
        if wanted != found:
            raise UserError(
                f"{field} of the run is {wanted[:12]} and of the corpus in {corpus.directory} {found[:12]}: "
                "prepare the corpus that the run was planned with"
            )
    if manifest.vocabulary > spec.shape.vocabulary:
        raise UserError(
            f"shape.vocabulary {spec.shape.vocabulary} is smaller than the corpus's {manifest.vocabulary}: "
            "plan the run with the corpus's vocabulary"
        )
