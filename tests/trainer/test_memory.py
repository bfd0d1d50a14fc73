"""Memory is foretold to the byte, and running out of it costs a smaller micro-batch and not the run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from scaling.architectures import llama, total_params
from scaling.errors import UserError
from scaling.run_spec import OptimizerSpec, RunSpec
from trainer.data.shards import Corpus
from trainer.loop import step as step_module
from trainer.loop.memory import USABLE_SHARE, estimate_memory, micro_batch_that_fits
from trainer.loop.numerics import Numerics
from trainer.loop.step import OutOfMemory
from trainer.loop.train import train
from trainer.models import build
from trainer.tracker import RecordingTracker

MakeSpec = Callable[..., RunSpec]
ADAMW = OptimizerSpec(learning_rate=1e-3)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_activations_are_those_that_a_real_step_keeps(precision: str) -> None:
    shape = llama.shape_for(2e5, vocabulary=512, context=64)
    numerics = Numerics.model_validate({"precision": precision})
    model = build(shape)
    model.initialise(0)
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, tuple[int, torch.Tensor]] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = (tensor.untyped_storage().nbytes(), tensor)
        return tensor

    x_BT = torch.zeros(4, shape.context, dtype=torch.int64)
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        model.loss(x_BT, x_BT)
    measured = sum(size for pointer, (size, _) in kept.items() if pointer not in own)
    estimate = estimate_memory(shape, 4, numerics, ADAMW)
    assert estimate.activations == pytest.approx(measured, rel=0.01)
    assert estimate.weights == estimate.gradients == estimate.optimizer / 2 == 4 * total_params(shape)


def test_recomputing_keeps_less(tiny_spec: MakeSpec) -> None:
    shape = llama.shape_for(5e6, vocabulary=512, context=64)
    kept, again = (
        estimate_memory(shape, 8, Numerics(recompute=recompute), ADAMW).activations for recompute in (False, True)
    )
    assert again < kept / 2


def test_the_micro_batch_that_fits_is_the_largest_that_does(tiny_spec: MakeSpec) -> None:
    spec = tiny_spec(global_batch_tokens=48 * 16, tokens=48 * 16 * 10)
    for wanted in (1, 2, 3, 12, 48):
        needs = estimate_memory(spec.shape, wanted, Numerics(), spec.optimizer).total
        assert micro_batch_that_fits(spec, Numerics(), round(needs / USABLE_SHARE) + 8) == wanted
    with pytest.raises(UserError, match="one sequence of context 16 needs"):
        micro_batch_that_fits(spec, Numerics(), 1000)


def test_shards_need_less_and_each_process_has_its_rows(tiny_spec: MakeSpec) -> None:
    spec = tiny_spec(global_batch_tokens=48 * 16, tokens=48 * 16 * 10)
    one = estimate_memory(spec.shape, 1, Numerics(), spec.optimizer)
    shards = estimate_memory(spec.shape, 1, Numerics(parallel="fsdp", ranks=4), spec.optimizer)
    assert shards.optimizer == pytest.approx(one.optimizer / 4, rel=0.01)
    assert one.weights / 4 < shards.weights < 2 * one.weights
    for parallel in ("ddp", "fsdp"):
        assert micro_batch_that_fits(spec, Numerics(parallel=parallel, ranks=4), 2**40) == 12


SCRIPT = """
import json, resource, sys
from pathlib import Path
from scaling.run_spec import RunSpec
from trainer.data.shards import Corpus
from trainer.loop.numerics import Numerics
from trainer.loop.train import train
from trainer.tracker import RecordingTracker

spec, corpus, folder, room = sys.argv[1:]
spec, corpus, tracker = RunSpec.model_validate_json(spec), Corpus(Path(corpus)), RecordingTracker()
plain = {"numerics": Numerics(), "tracker": tracker, "should_stop": lambda: False}
# Once in a small way first, so that threads and code are there when room gets scarce.
small = spec.model_copy(update={"global_batch_tokens": 128, "tokens": 256})
train(small, corpus, directory=Path(folder) / "small", **plain)
if int(room):
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + int(room), -1))
result = train(spec, corpus, directory=Path(folder), **plain)
print(json.dumps({"loss": result.loss_nats, "numerics": result.numerics, "notes": tracker.notes}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits a process's memory by RLIMIT_AS")
def test_out_of_memory_halves_the_micro_batch_and_keeps_the_batch(
    tiny_corpus: Corpus, tiny_spec: MakeSpec, tmp_path: Path
) -> None:
    batch = 4096 * 16
    spec = tiny_spec(
        global_batch_tokens=batch, tokens=2 * batch, schedule={"warmup_tokens": 0, "cooldown_tokens": batch}
    )

    def run(name: str, room_bytes: int) -> dict[str, object]:
        arguments = [spec.model_dump_json(), str(tiny_corpus.directory), str(tmp_path / name), str(room_bytes)]
        done = subprocess.run([sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    needs = estimate_memory(spec.shape, 4096, Numerics(), spec.optimizer).total
    roomy, scarce = run("roomy", 0), run("scarce", needs // 2)
    assert roomy["numerics"] == "cpu fp32 eager t1"
    # The room that is left moves with what else is alive, so that the second step may halve once more.
    assert str(scarce["numerics"]).split(", then ")[-1] in {
        f"cpu fp32 eager t1 m{rows}" for rows in (2048, 1024, 512, 256)
    }
    assert any("out of memory: on with micro-batches of" in str(note) for note in scarce["notes"])
    assert scarce["loss"] == pytest.approx(roomy["loss"], rel=1e-4)


def test_what_does_not_fit_at_all_says_what_to_do(
    tiny_corpus: Corpus, tiny_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(step_module.TrainingStep, "_accumulate", never)
    with pytest.raises(OutOfMemory, match="one sequence of 16 tokens does not fit into memory: take recomputed"):
        train(
            tiny_spec(), tiny_corpus, Numerics(), directory=tmp_path, tracker=RecordingTracker(), should_stop=bool
        )  # fmt: skip


def test_what_was_found_to_fit_is_kept_over_an_interruption(
    tiny_corpus: Corpus, tiny_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accumulate = step_module.TrainingStep._accumulate

    def scarce(self: step_module.TrainingStep, x_BT: torch.Tensor, y_BT: torch.Tensor, rows: int) -> torch.Tensor:
        if rows > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return accumulate(self, x_BT, y_BT, rows)

    monkeypatch.setattr(step_module.TrainingStep, "_accumulate", scarce)
    trackers = [RecordingTracker(), RecordingTracker()]
    for tracker, stop_after in zip(trackers, (5, 100), strict=True):
        steps = iter(range(1000))
        result = train(
            tiny_spec(),
            tiny_corpus,
            Numerics(),
            directory=tmp_path / "scarce",
            tracker=tracker,
            should_stop=lambda steps=steps, stop_after=stop_after: next(steps) >= stop_after,
        )
    assert result.numerics == "cpu fp32 eager t1 m2"
    assert [note.startswith("out of memory") for note in trackers[0].notes] == [True]
    assert trackers[1].notes == ["resumed at step 5 of 20"]
    monkeypatch.undo()
    told = train(
        tiny_spec(),
        tiny_corpus,
        Numerics(micro_batch_sequences=2),
        directory=tmp_path / "told",
        tracker=RecordingTracker(),
        should_stop=lambda: False,
    )
    assert told.weights_hash == result.weights_hash
