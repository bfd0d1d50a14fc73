"""A spike is noticed, then taken, left out or gone back behind as the policy says, however often interrupted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from scaling.run_spec import RunSpec, SpikePolicy
from trainer.data.run_data import RunData
from trainer.data.shards import Corpus
from trainer.loop.numerics import Numerics
from trainer.loop.result import RunResult
from trainer.loop.spikes import SpikeWatch
from trainer.loop.train import train
from trainer.tracker import RecordingTracker

MakeSpec = Callable[..., RunSpec]
POISONED_STEP = 60


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch 60 holds one token over and over, after batches that a model has begun to predict."""
    clean = RunData.batch

    def batch(self: RunData, step: int, *, passed_over: int = 0) -> tuple[np.ndarray, np.ndarray]:
        x_BT, y_BT = clean(self, step, passed_over=passed_over)
        return (x_BT, np.zeros_like(y_BT)) if step + passed_over == POISONED_STEP else (x_BT, y_BT)

    monkeypatch.setattr(RunData, "batch", batch)


def spec_with(make: MakeSpec, action: str, **fields: object) -> RunSpec:
    policy = {"action": action, "window": 32, "sigma": 6.0}
    return make(steps=100, spikes=policy, **fields)


def run(spec: RunSpec, corpus: Corpus, folder: Path, tracker: RecordingTracker, stop_after: int = 1000) -> RunResult:
    steps = iter(range(2000))
    return train(
        spec, corpus, Numerics(), directory=folder, tracker=tracker, should_stop=lambda: next(steps) >= stop_after
    )  # fmt: skip


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("action", ["continue", "skip", "rewind"])
def test_each_policy_does_what_it_says_and_resumes_to_the_bit(
    tiny_corpus: Corpus, tiny_spec: MakeSpec, tmp_path: Path, action: str, optimizer: str
) -> None:
    spec = spec_with(tiny_spec, action, optimizer={"name": optimizer, "learning_rate": 1e-2})
    tracker = RecordingTracker()
    result = run(spec, tiny_corpus, tmp_path / "control", tracker)
    assert result.spikes == (POISONED_STEP + 1,)
    assert result.rewinds == (action == "rewind")
    note = {
        "continue": "spike at step 61: its update was taken",
        "skip": "spike at step 61: its update was left out",
        "rewind": "spike at step 61: back to step 32 and on with later data",
    }[action]
    assert note in tracker.notes
    for stop_after in (20, 45, 10):
        run(spec, tiny_corpus, tmp_path / "run", tracker, stop_after)
    again = run(spec, tiny_corpus, tmp_path / "run", tracker)
    assert (again.weights_hash, again.loss_nats) == (result.weights_hash, result.loss_nats)
    assert (again.spikes, again.rewinds) == (result.spikes, result.rewinds)


@pytest.mark.usefixtures("poisoned")
def test_a_skipped_step_leaves_weights_and_moments_as_they_were(
    tiny_corpus: Corpus, tiny_spec: MakeSpec, tmp_path: Path
) -> None:
    from trainer.loop.checkpoint import load

    states = {}
    for steps in (POISONED_STEP, POISONED_STEP + 1):
        run(spec_with(tiny_spec, "skip"), tiny_corpus, tmp_path / str(steps), RecordingTracker(), steps)
        states[steps] = load(max((tmp_path / str(steps)).iterdir()))
    before, after = states.values()
    assert all(torch.equal(before["model"][name], after["model"][name]) for name in before["model"])
    for index, state in before["optimizer"][0]["state"].items():
        for name, value in state.items():
            assert torch.equal(value, after["optimizer"][0]["state"][index][name])


def test_without_a_spike_all_policies_train_alike(tiny_corpus: Corpus, tiny_spec: MakeSpec, tmp_path: Path) -> None:
    losses = {
        action: run(spec_with(tiny_spec, action), tiny_corpus, tmp_path / action, RecordingTracker()).loss_nats
        for action in ("continue", "skip", "rewind")
    }
    assert len(set(losses.values())) == 1


def test_a_run_of_spikes_alone_ends(tiny_corpus: Corpus, tiny_spec: MakeSpec, tmp_path: Path) -> None:
    spec = tiny_spec(steps=200, spikes={"action": "rewind", "window": 8, "sigma": 1e-9})
    tracker = RecordingTracker()
    result = run(spec, tiny_corpus, tmp_path, tracker)
    assert (result.status, result.loss_nats) == ("diverged", None)
    assert any("after 8 rewinds" in note for note in tracker.notes)
    assert all(np.isfinite(value) for point in tracker.points for value in point.values.values())


def test_the_watch_keeps_its_false_alarms_rare_and_sees_a_jump() -> None:
    watch = SpikeWatch(SpikePolicy(), "cpu")
    noise = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0))
    alarms = sum(bool(watch.look(3 + 0.1 * loss, 1 + 0.1 * norm)) for loss, norm in noise)
    assert alarms == 0
    assert bool(watch.look(torch.tensor(3.0), torch.tensor(2.5)))
    assert bool(watch.look(torch.tensor(4.5), torch.tensor(1.0)))
    assert not bool(watch.look(torch.tensor(2.0), torch.tensor(0.1))), "a fall is no spike"
