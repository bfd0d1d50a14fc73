"""Different numerics agree within 0.5% of the loss on a tiny run: bf16 with fp32, compiled with eager."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from scaling.errors import UserError
from scaling.run_spec import RunSpec
from trainer.data.shards import Corpus
from trainer.loop.checkpoint import load
from trainer.loop.numerics import Numerics, cxx_compiler_available, processor_name
from trainer.loop.result import RunResult
from trainer.loop.train import train
from trainer.tracker import NullTracker, RecordingTracker

PRECISION_TOLERANCE = 5e-3
COMPILED_TOLERANCE = 1e-4


def finished(spec: RunSpec, corpus: Corpus, numerics: Numerics, folder: Path) -> RunResult:
    return train(spec, corpus, numerics, directory=folder, tracker=NullTracker(), should_stop=lambda: False)


def test_bf16_agrees_with_fp32(tiny_corpus: Corpus, tiny_spec: Callable[..., RunSpec], tmp_path: Path) -> None:
    results = {
        precision: finished(tiny_spec(steps=60), tiny_corpus, Numerics(precision=precision), tmp_path / precision)
        for precision in ("fp32", "bf16")
    }
    assert results["bf16"].weights_hash != results["fp32"].weights_hash
    assert results["bf16"].loss_nats == pytest.approx(results["fp32"].loss_nats, rel=PRECISION_TOLERANCE)
    assert results["bf16"].numerics == "cpu bf16 eager t1"


def test_bf16_keeps_fp32_weights_and_repeats_to_the_bit(
    tiny_corpus: Corpus, tiny_spec: Callable[..., RunSpec], tmp_path: Path
) -> None:
    numerics = Numerics(precision="bf16")
    runs = [finished(tiny_spec(), tiny_corpus, numerics, tmp_path / name) for name in ("a", "b")]
    assert runs[0].weights_hash == runs[1].weights_hash
    saved = load(max((tmp_path / "a").iterdir()))
    assert {weight.dtype for weight in saved["model"].values()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.skipif(not cxx_compiler_available(), reason="compiling needs a C++ compiler and there is none")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_agrees_with_eager_and_resumes_to_the_bit(
    tiny_corpus: Corpus, tiny_spec: Callable[..., RunSpec], tmp_path: Path
) -> None:
    spec, numerics = tiny_spec(), Numerics(compiled=True)
    eager = finished(spec, tiny_corpus, Numerics(), tmp_path / "eager")
    compiled = finished(spec, tiny_corpus, numerics, tmp_path / "compiled")
    assert compiled.loss_nats == pytest.approx(eager.loss_nats, rel=COMPILED_TOLERANCE)
    steps = iter(range(100))
    train(
        spec,
        tiny_corpus,
        numerics,
        directory=tmp_path / "parts",
        tracker=RecordingTracker(),
        should_stop=lambda: next(steps) >= 7,
    )
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    resumed = finished(spec, tiny_corpus, numerics, tmp_path / "parts")
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs > 0  # a shape is compiled once a process
    assert resumed.weights_hash == compiled.weights_hash
    assert resumed.loss_nats == compiled.loss_nats


def test_label_and_key_name_what_changes_the_bits() -> None:
    numerics = Numerics(precision="bf16", compiled=True)
    assert numerics.label == "cpu bf16 compiled t1"
    assert numerics.key == Numerics.model_validate_json(numerics.model_dump_json()).key
    assert numerics.key != numerics.model_copy(update={"processor": "another"}).key
    assert processor_name() in numerics.model_dump_json()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_missing_device_is_refused(tiny_corpus: Corpus, tiny_spec: Callable[..., RunSpec], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="device cuda is not available here: use device cpu"):
        finished(tiny_spec(), tiny_corpus, Numerics(device="cuda"), tmp_path)


def test_compiling_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    cxx_compiler_available.cache_clear()
    try:
        with pytest.raises(UserError, match=r"need a C\+\+ compiler"):
            Numerics(compiled=True).check_available()
        Numerics().check_available()
    finally:
        cxx_compiler_available.cache_clear()
