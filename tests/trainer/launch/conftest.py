"""A corpus of a few kilobytes in tokens, a recommendation for it, and jobs read from that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from scaling.run_spec import OptimizerSpec, RunSpec, ScheduleSpec
from scaling.shape import ModelShape
from trainer.data.prepare import prepare
from trainer.data.shards import Corpus
from trainer.launch.job import Job, read_job
from trainer.launch.placement import Placement

MakeJob = Callable[..., Job]

VOCABULARY, CONTEXT = 260, 32
SHAPE = ModelShape(
    layers=2, width=32, heads=4, kv_heads=2, ffn_width=64, vocabulary=VOCABULARY, context=CONTEXT, tied=True
)


@pytest.fixture(scope="session")
def words(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    text = tmp_path_factory.mktemp("text")
    for number in range(120):
        (text / f"{number}.txt").write_text(f"the cat sat on mat {number} and it sat and sat. " * 5)
    corpora = tmp_path_factory.mktemp("workspace") / "corpora"
    return prepare(str(text), vocabulary=VOCABULARY, held_out=0.3, cut_bytes=256, into=corpora)


@pytest.fixture
def write_run(words: Corpus, tmp_path: Path) -> Callable[..., Path]:
    """``write_run(steps=25, shape=SHAPE, **fields)``: the file of a run as a recommendation holds it."""

    def write(steps: int = 25, shape: ModelShape = SHAPE, sequences: int = 8, **fields: Any) -> Path:
        batch = sequences * shape.context
        values = {
            "shape": shape,
            "tokens": steps * batch,
            "global_batch_tokens": batch,
            "optimizer": OptimizerSpec(learning_rate=1e-2),
            "schedule": ScheduleSpec(warmup_tokens=2 * batch, cooldown_tokens=steps // 5 * batch),
            "seed": 3,
            "data_key": words.manifest.data_key,
            "tokenizer_key": words.manifest.tokenizer_key,
            "held_out_tokens": 640,
        }
        spec = RunSpec.model_validate(values | fields)
        path = tmp_path / "large.yaml"
        path.write_text(yaml.safe_dump({"study": "small", "run": spec.model_dump(mode="json")}))
        return path

    return write


@pytest.fixture
def make_job(words: Corpus, write_run: Callable[..., Path], tmp_path: Path) -> MakeJob:
    """``make_job(placement=Placement(), **run)``"""

    def make(placement: Placement | None = None, **run: Any) -> Job:
        return read_job(
            write_run(**run),
            corpus=None,
            workspace=words.directory.parent.parent,
            corpora=words.directory.parent,
            placement=placement or Placement(),
            out=tmp_path / "out",
        )

    return make
