"""A study's corpus as the data set that MLflow shows beside the run."""

from __future__ import annotations

import json

from mlflow.entities import Dataset, DatasetInput, InputTag

from sweeps.planning.plan import Plan

__all__ = ["corpus_input"]

_DIGEST_CHARACTERS = 36
"""As many as MLflow keeps; the whole key is in the data set's source."""


def corpus_input(plan: Plan) -> DatasetInput:
    """Name, fingerprint and sizes; nothing is read or copied."""
    corpus = plan.corpus
    name = corpus.source.rstrip("/").rpartition("/")[2] or corpus.source
    source = {"uri": corpus.folder, "made_from": corpus.source, "data_key": corpus.data_key}
    profile = {
        "train_tokens": corpus.train_tokens,
        "held_out_tokens": corpus.held_out_tokens,
        "held_out_pieces": corpus.held_out_pieces,
        "vocabulary": corpus.vocabulary,
        "bytes_per_token": corpus.bytes_per_token,
        "tokenizer_key": corpus.tokenizer_key,
    }
    dataset = Dataset(
        name=f"{name} ({corpus.vocabulary:,} token types)",
        digest=corpus.data_key[:_DIGEST_CHARACTERS],
        source_type="local",
        source=json.dumps(source),
        profile=json.dumps(profile),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])
