"""A run is reproducible to the bit however often it is interrupted, and never reports a loss it did not measure."""

from __future__ import annotations

import itertools
import math
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.architectures.llama import training_flops_per_token
from scaling.errors import UserError
from scaling.run_spec import RunSpec
from trainer.data.shards import Corpus
from trainer.loop.looks import evaluation_steps, report_steps
from trainer.loop.numerics import Numerics
from trainer.loop.result import RunResult
from trainer.loop.train import train
from trainer.tracker import NullTracker, RecordingTracker, Tracker

MakeSpec = Callable[..., RunSpec]
CPU = Numerics()


def run(
    spec: RunSpec,
    corpus: Corpus,
    folder: Path,
    tracker: Tracker | None = None,
    *,
    stop_after: int | None = None,
    numerics: Numerics = CPU,
    checkpoint_seconds: float = 1e9,
    peak_flops_per_second: float | None = None,
) -> RunResult:
    """Train until the end, or for ``stop_after`` steps."""
    calls = itertools.count()
    return train(
        spec,
        corpus,
        numerics,
        directory=folder,
        tracker=tracker or NullTracker(),
        should_stop=lambda: stop_after is not None and next(calls) >= stop_after,
        checkpoint_seconds=checkpoint_seconds,
        peak_flops_per_second=peak_flops_per_second,
    )


def science(result: RunResult) -> dict[str, object]:
    """All of a result but what it took and how often it was taken up again."""
    took = {"wall_seconds", "tokens_per_second", "flops_per_second", "mfu", "peak_memory_bytes", "energy_joules"}
    return result.model_dump(exclude={*took, "resumed"})


def test_a_run_learns_and_reports_its_curve(tiny_corpus: Corpus, tiny_spec: MakeSpec, tmp_path: Path) -> None:
    spec, tracker = tiny_spec(steps=60), RecordingTracker()
    result = run(spec, tiny_corpus, tmp_path, tracker)
    assert result.status == "finished"
    assert result.loss_nats is not None
    assert result.loss_nats < 0.7 * math.log(64)
    assert (result.steps, result.tokens, result.held_out_tokens) == (60, spec.tokens, 2000)
    assert list(tracker.curve("train_loss")) == list(range(1, 61))
    assert tracker.curve("held_out_loss")[60] == result.loss_nats
    assert len(tracker.curve("held_out_loss")) >= 8
    for point in tracker.points:
        assert point.tokens == point.step * spec.global_batch_tokens
        assert point.flops == point.tokens * training_flops_per_token(spec.shape)
    assert tracker.notes == []


@pytest.mark.parametrize("stops", [[0], [1], [7], [19], [3, 0, 5, 1]])
def test_an_interrupted_run_ends_as_if_it_never_was(
    tiny_corpus: Corpus, tiny_spec: MakeSpec, tmp_path: Path, stops: list[int]
) -> None:
    spec, control, tracker = tiny_spec(), RecordingTracker(), RecordingTracker()
    expected = run(spec, tiny_corpus, tmp_path / "control", control)
    for stop_after in stops:
        part = run(spec, tiny_corpus, tmp_path / "run", tracker, stop_after=stop_after)
        assert part.status == "interrupted"
        assert part.loss_nats is None
    result = run(spec, tiny_corpus, tmp_path / "run", tracker)
    assert science(result) == science(expected)
    assert result.resumed == len(stops)
    for name in ("train_loss", "gradient_norm", "learning_rate", "held_out_loss"):
        assert tracker.curve(name) == control.curve(name)


def test_a_stop_between_two_reports_keeps_the_mean_of_both_parts(
    tiny_corpus: Corpus, tiny_spec: MakeSpec, tmp_path: Path
) -> None:
    spec, control, tracker = tiny_spec(steps=400), RecordingTracker(), RecordingTracker()
    gap = next(b for a, b in itertools.pairwise(report_steps(400)) if b - a > 2)
    run(spec, tiny_corpus, tmp_path / "control", control)
    run(spec, tiny_corpus, tmp_path / "run", tracker, stop_after=gap - 1)
    run(spec, tiny_corpus, tmp_path / "run", tracker)
    assert tracker.curve("train_loss") == control.curve("train_loss")


SCRIPT = """
import sys
from pathlib import Path
from scaling.run_spec import RunSpec
from trainer.data.shards import Corpus
from trainer.loop.numerics import Numerics
from trainer.loop.train import train
from trainer.tracker import NullTracker

class Printing(NullTracker):
    def metrics(self, step, tokens, flops, values):
        print(step, flush=True)

spec, corpus, folder = sys.argv[1:]
train(RunSpec.model_validate_json(spec), Corpus(Path(corpus)), Numerics(), directory=Path(folder), tracker=Printing(),
      should_stop=lambda: False, checkpoint_seconds=0.02)
"""


def test_a_killed_run_ends_as_if_it_never_was(tiny_corpus: Corpus, tiny_spec: MakeSpec, tmp_path: Path) -> None:
    spec, control, tracker = tiny_spec(steps=150), RecordingTracker(), RecordingTracker()
    expected = run(spec, tiny_corpus, tmp_path / "control", control)
    folder = tmp_path / "run"
    command = [sys.executable, "-c", SCRIPT, spec.model_dump_json(), str(tiny_corpus.directory), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 60 and any(folder.glob("*.checkpoint")):
                process.kill()
                break
        assert process.wait() == -signal.SIGKILL
    result = run(spec, tiny_corpus, folder, tracker)
    assert result.resumed == 1
    assert min(tracker.curve("train_loss")) > 1, "nothing was taken over from the killed process"
    assert science(result) == science(expected)
    assert tracker.curve("train_loss").items() <= control.curve("train_loss").items()


class Crash(Exception):
    pass


class CrashingTracker(RecordingTracker):
    """Loses what was not flushed, as a process that is killed does."""

    def __init__(self, crash_at: int) -> None:
        super().__init__()
        self.crash_at, self.durable = crash_at, 0

    def flush(self) -> None:
        self.durable = len(self.points)

    def metrics(self, step: int, tokens: int, flops: float, values: Mapping[str, float]) -> None:
        if step == self.crash_at:
            del self.points[self.durable :]
            raise Crash
        super().metrics(step, tokens, flops, values)


@pytest.mark.parametrize("crash_at", [1, 6, 20])
@pytest.mark.parametrize("checkpoint_seconds", [0.0, 0.02, 1e9])
def test_no_point_of_the_curve_is_lost_with_a_buffer(
    tiny_corpus: Corpus, tiny_spec: MakeSpec, tmp_path: Path, crash_at: int, checkpoint_seconds: float
) -> None:
    spec, control, tracker = tiny_spec(), RecordingTracker(), CrashingTracker(crash_at)
    run(spec, tiny_corpus, tmp_path / "control", control)
    with pytest.raises(Crash):
        run(spec, tiny_corpus, tmp_path / "run", tracker, checkpoint_seconds=checkpoint_seconds)
    tracker.crash_at = -1
    run(spec, tiny_corpus, tmp_path / "run", tracker, checkpoint_seconds=checkpoint_seconds)
    for name in ("train_loss", "held_out_loss"):
        assert tracker.curve(name) == control.curve(name)


def test_a_damaged_checkpoint_costs_work_and_no_run(tiny_corpus: Corpus, tiny_spec: MakeSpec, tmp_path: Path) -> None:
    spec, tracker = tiny_spec(), RecordingTracker()
    expected = run(spec, tiny_corpus, tmp_path / "control")
    run(spec, tiny_corpus, tmp_path / "run", stop_after=9, checkpoint_seconds=0.0)
    newest = max((tmp_path / "run").iterdir())
    newest.write_bytes(newest.read_bytes()[:-100])
    assert science(run(spec, tiny_corpus, tmp_path / "run", tracker)) == science(expected)
    assert "damaged" in tracker.notes[0]
    assert tracker.notes[1] == "resumed at step 8 of 20"


def test_a_finished_run_asked_for_again_trains_nothing(
    tiny_corpus: Corpus, tiny_spec: MakeSpec, tmp_path: Path
) -> None:
    spec, tracker = tiny_spec(), RecordingTracker()
    first = run(spec, tiny_corpus, tmp_path)
    assert science(run(spec, tiny_corpus, tmp_path, tracker)) == science(first)
    assert tracker.curve("train_loss") == {}
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("steps", [1, 30])
def test_a_run_that_diverges_never_has_a_loss(
    tiny_corpus: Corpus, tiny_spec: MakeSpec, tmp_path: Path, steps: int
) -> None:
    spec, tracker = (
        tiny_spec(
            steps=steps,
            learning_rate=1e39,
            schedule=tiny_spec().schedule.model_copy(update={"warmup_tokens": 0, "cooldown_tokens": 0}),
        ),
        RecordingTracker(),
    )
    result = run(spec, tiny_corpus, tmp_path / "one", tracker)
    assert result.status == "diverged"
    assert result.loss_nats is result.loss_sem is result.bits_per_byte is result.weights_hash is None
    assert all(math.isfinite(value) for point in tracker.points for value in point.values.values())
    assert any("diverged" in note for note in tracker.notes)
    # However often it looks and saves, it ends at the same step.
    saved_often = run(spec, tiny_corpus, tmp_path / "two", checkpoint_seconds=0.0)
    assert science(saved_often) == science(result)


def test_micro_batches_change_only_the_last_digits(tiny_corpus: Corpus, tiny_spec: MakeSpec, tmp_path: Path) -> None:
    spec = tiny_spec()
    whole = run(spec, tiny_corpus, tmp_path / "whole")
    for rows in (1, 3, 4):
        parts = run(
            spec, tiny_corpus, tmp_path / str(rows), numerics=CPU.model_copy(update={"micro_batch_sequences": rows})
        )
        assert parts.loss_nats == pytest.approx(whole.loss_nats, rel=1e-4)


def test_a_change_of_numerics_in_the_middle_is_flagged(
    tiny_corpus: Corpus, tiny_spec: MakeSpec, tmp_path: Path
) -> None:
    spec, tracker = tiny_spec(), RecordingTracker()
    run(spec, tiny_corpus, tmp_path, stop_after=5)
    changed = CPU.model_copy(update={"micro_batch_sequences": 4})
    result = run(spec, tiny_corpus, tmp_path, tracker, numerics=changed)
    assert result.numerics == "cpu fp32 eager t1, then cpu fp32 eager t1 m4"
    assert any("numerics changed at step 5" in note for note in tracker.notes)


def test_the_seed_decides_weights_and_order(tiny_corpus: Corpus, tiny_spec: MakeSpec, tmp_path: Path) -> None:
    hashes = {run(tiny_spec(seed=seed), tiny_corpus, tmp_path / str(seed)).weights_hash for seed in (1, 2, 3)}
    assert len(hashes) == 3


@pytest.mark.parametrize("field", ["data_key", "tokenizer_key"])
def test_another_corpus_is_refused(tiny_corpus: Corpus, tiny_spec: MakeSpec, tmp_path: Path, field: str) -> None:
    with pytest.raises(UserError, match=f"{field} of the run is eeee.* prepare the corpus"):
        run(tiny_spec(**{field: "e" * 64}), tiny_corpus, tmp_path)


def test_an_architecture_without_a_model_is_refused(tiny_corpus: Corpus, tiny_spec: MakeSpec, tmp_path: Path) -> None:
    spec = tiny_spec()
    other = spec.model_copy(update={"shape": spec.shape.model_copy(update={"architecture": "transformer-xl"})})
    with pytest.raises(UserError, match="architecture 'transformer-xl' can't be trained here: use one of"):
        run(other, tiny_corpus, tmp_path)


def test_a_result_says_what_the_run_took(tiny_corpus: Corpus, tiny_spec: MakeSpec, tmp_path: Path) -> None:
    spec, tracker = tiny_spec(), RecordingTracker()
    peak = {"peak_flops_per_second": 1e12}
    part = run(spec, tiny_corpus, tmp_path, tracker, stop_after=8, **peak)
    result = run(spec, tiny_corpus, tmp_path, tracker, **peak)
    assert result.flops_per_second == pytest.approx(result.tokens_per_second * training_flops_per_token(spec.shape))
    assert result.mfu == pytest.approx(result.flops_per_second / 1e12)
    assert result.peak_memory_bytes is not None
    assert result.peak_memory_bytes > 50e6, "torch alone takes more"
    assert result.wall_seconds > part.wall_seconds
    # The first step of each part is not timed.
    assert 18 * spec.global_batch_tokens / result.tokens_per_second < result.wall_seconds
    assert result.system is not None
    assert result.system.torch == CPU.torch
    assert result.system.threads == CPU.threads
    assert (result.energy_joules is None) == (result.energy_source is None)
    at = tracker.curve("held_out_loss").keys()
    assert tracker.curve("bits_per_byte").keys() == at
    assert tracker.curve("bits_per_byte")[20] == result.bits_per_byte
    for name in ("tokens_per_second", "mfu"):
        assert tracker.curve(name)
        assert tracker.curve(name).keys() < at
        assert min(tracker.curve(name).values()) > 0


def test_without_a_known_peak_there_is_no_mfu(tiny_corpus: Corpus, tiny_spec: MakeSpec, tmp_path: Path) -> None:
    tracker = RecordingTracker()
    assert run(tiny_spec(), tiny_corpus, tmp_path, tracker).mfu is None
    assert tracker.curve("mfu") == {}


def test_a_result_from_before_it_said_so_much_can_still_be_read() -> None:
    old = {"status": "diverged", "run_key": "k", "numerics": "cpu", "steps": 1, "tokens": 2, "wall_seconds": 1.0,
           "tokens_per_second": 2.0, "resumed": 0}  # fmt: skip
    result = RunResult.model_validate(old)
    assert result.system is result.mfu is result.energy_joules is None
    assert result.domains == {}


@given(st.integers(2, 10**6), st.integers(2, 30))
def test_evaluations_are_spaced_by_the_log_of_tokens(steps: int, count: int) -> None:
    evaluations = evaluation_steps(steps, count)
    assert evaluations[0] == max(1, round(steps / 100))
    # The last of `count` equal intervals of the log ends at the run's own end, which is always measured.
    exact = [max(1.0, steps / 100) * min(100.0, steps) ** (i / count) for i in range(count)]
    assert all(min(abs(step - point) for point in exact) < 0.501 for step in evaluations)
    assert all(min(abs(step - point) for step in evaluations) < 0.501 for point in exact if point < steps - 0.501)


@given(st.integers(1, 10**7), st.integers(1, 30))
def test_reports_and_evaluations_are_few_spread_and_within_the_run(steps: int, count: int) -> None:
    reports, evaluations = report_steps(steps), evaluation_steps(steps, count)
    assert reports[-1] == steps
    assert len(reports) == min(steps, len(reports)) <= 181
    assert len(reports) >= min(steps, 100)
    assert len(evaluations) <= count
    assert all(1 <= step < steps for step in evaluations)
    assert reports == tuple(sorted(set(reports)))
