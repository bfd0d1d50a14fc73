"""A corpus of a few thousand tokens and a run that takes a second, for everything that trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from scaling.run_spec import OptimizerSpec, RunSpec, ScheduleSpec
from scaling.shape import ModelShape
from trainer.data.shards import Corpus, CorpusManifest, Split

VOCABULARY = 64
CONTEXT = 16


def _stream(generator: np.random.Generator, documents: int) -> tuple[np.ndarray, np.ndarray]:
    """Documents of a noisy walk through the vocabulary, each ended by separator 0; a model can learn its steps."""
    parts, starts, at = [], [], 0
    for _ in range(documents):
        steps = generator.choice([1, 2, 7], p=[0.7, 0.2, 0.1], size=int(generator.integers(80, 200)))
        tokens = 1 + (np.cumsum(steps) + generator.integers(VOCABULARY)) % (VOCABULARY - 1)
        parts.append(np.append(tokens, 0))
        starts.append(at)
        at += len(parts[-1])
    return np.concatenate(parts).astype(np.uint16), np.array(starts, dtype=np.int64)


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return _corpus(tmp_path_factory.mktemp("corpus"), seed=0, data_key="d" * 64)


@pytest.fixture(scope="session")
def other_corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Other documents, tokenised alike."""
    return _corpus(tmp_path_factory.mktemp("other_corpus"), seed=1, data_key="c" * 64)


def _corpus(folder: Path, seed: int, data_key: str) -> Corpus:
    generator = np.random.default_rng(seed)
    token_bytes = np.append(0, generator.integers(1, 5, VOCABULARY - 1)).astype(np.uint16)
    np.save(folder / "token_bytes.npy", token_bytes)
    splits = {}
    for name, documents in (("train", 200), ("held_out", 24)):
        tokens, starts = _stream(generator, documents)
        np.save(folder / f"{name}.tokens.npy", tokens)
        np.save(folder / f"{name}.documents.npy", starts)
        utf8_bytes = int(token_bytes[tokens].sum())
        splits[name] = Split(
            tokens=len(tokens), utf8_bytes=utf8_bytes, documents=documents, works=documents, sha256="0" * 64
        )
    np.save(folder / "held_out.works.npy", np.arange(24) // 2)
    manifest = CorpusManifest(
        data_key=data_key,
        tokenizer_key="t" * 64,
        vocabulary=VOCABULARY,
        separator_id=0,
        source="test",
        cut_bytes=0,
        **splits,
    )
    (folder / "manifest.json").write_text(manifest.model_dump_json(), encoding="utf-8")
    return Corpus(folder)


@pytest.fixture(scope="session")
def tiny_spec() -> Callable[..., RunSpec]:
    """A specification of a 5,000-parameter run on the tiny corpus; ``steps`` and any field of it can be given."""

    def make(steps: int = 20, learning_rate: float = 1e-2, **fields: object) -> RunSpec:
        batch = 8 * CONTEXT
        shape = ModelShape(
            layers=2, width=16, heads=2, kv_heads=1, ffn_width=32, vocabulary=VOCABULARY, context=CONTEXT
        )
        values = {
            "shape": shape,
            "tokens": steps * batch,
            "global_batch_tokens": batch,
            "optimizer": OptimizerSpec(learning_rate=learning_rate),
            "schedule": ScheduleSpec(warmup_tokens=2 * batch, cooldown_tokens=steps // 4 * batch),
            "seed": 1,
            "data_key": "d" * 64,
            "tokenizer_key": "t" * 64,
            "held_out_tokens": 2000,
        }
        return RunSpec.model_validate(values | fields)

    return make
