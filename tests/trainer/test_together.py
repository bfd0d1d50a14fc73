"""Runs trained together end as they would have alone, each with its own seed, rate, curve and checkpoints."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from scaling.errors import UserError
from scaling.run_spec import RunSpec
from trainer.data.shards import Corpus
from trainer.loop.numerics import Numerics
from trainer.loop.result import RunResult
from trainer.loop.together import StackedModels, train_together
from trainer.loop.train import train
from trainer.models import build
from trainer.tracker import RecordingTracker

MakeSpec = Callable[..., RunSpec]
TOLERANCE = 1e-4


def together(
    specs: list[RunSpec],
    corpus: Corpus,
    folder: Path,
    stop_after: int = 1000,
    should_leave: Callable[[RunSpec], bool] = lambda _: False,
    ended: Callable[[RunResult], None] = lambda _: None,
    **changes: object,
) -> tuple[list[RunResult], list[RecordingTracker]]:
    steps = itertools.count()
    trackers = [RecordingTracker() for _ in specs]
    results = train_together(
        specs,
        corpus,
        Numerics.model_validate({"together": len(specs), **changes}),
        directories=[folder / spec.key[:8] for spec in specs],
        trackers=trackers,
        should_stop=lambda: next(steps) >= stop_after,
        should_leave=should_leave,
        ended=ended,
    )
    return results, trackers


def different_runs(make: MakeSpec, steps: int = 20) -> list[RunSpec]:
    return [
        make(steps=steps, seed=1, learning_rate=3e-3),
        make(steps=steps, seed=2, learning_rate=1e-2),
        make(steps=steps, seed=1, optimizer={"name": "muon", "learning_rate": 1e-2, "weight_decay": 0.3}),
    ]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_each_run_ends_as_it_would_have_alone(
    tiny_corpus: Corpus, tiny_spec: MakeSpec, tmp_path: Path, precision: str
) -> None:
    specs = different_runs(tiny_spec)
    results, trackers = together(specs, tiny_corpus, tmp_path, precision=precision)
    numerics = Numerics.model_validate({"precision": precision})
    tolerance = TOLERANCE if precision == "fp32" else 5e-3
    for spec, result, tracker in zip(specs, results, trackers, strict=True):
        alone = RecordingTracker()
        expected = train(
            spec, tiny_corpus, numerics, directory=tmp_path / "alone" / spec.key[:8], tracker=alone, should_stop=bool
        )  # fmt: skip
        assert (result.status, result.run_key, result.tokens) == ("finished", spec.key, expected.tokens)
        assert result.numerics.endswith("x3")
        assert result.loss_nats == pytest.approx(expected.loss_nats, rel=tolerance)
        assert tracker.curve("train_loss") == pytest.approx(alone.curve("train_loss"), rel=tolerance)
    assert len({result.loss_nats for result in results}) == 3


def test_together_repeats_to_the_bit_and_over_interruptions(
    tiny_corpus: Corpus, tiny_spec: MakeSpec, tmp_path: Path
) -> None:
    specs = different_runs(tiny_spec)
    control, _ = together(specs, tiny_corpus, tmp_path / "control")
    parts, _ = together(specs, tiny_corpus, tmp_path / "parts", stop_after=7)
    assert {part.status for part in parts} == {"interrupted"}
    # One of them was killed after its neighbours had saved: all go on from the step that they share.
    together(specs, tiny_corpus, tmp_path / "parts", stop_after=5)
    max((tmp_path / "parts" / specs[1].key[:8]).iterdir()).unlink()
    resumed, trackers = together(specs, tiny_corpus, tmp_path / "parts")
    assert [tracker.notes for tracker in trackers] == [["resumed at step 7 of 20"]] * 3
    assert [result.weights_hash for result in resumed] == [result.weights_hash for result in control]


def test_a_diverging_run_leaves_its_neighbours_alone(tiny_corpus: Corpus, tiny_spec: MakeSpec, tmp_path: Path) -> None:
    calm = different_runs(tiny_spec)[:2]
    wild = tiny_spec(seed=9, learning_rate=1e39, schedule={"warmup_tokens": 0})
    results, trackers = together([calm[0], wild, calm[1]], tiny_corpus, tmp_path / "wild")
    assert [result.status for result in results] == ["finished", "diverged", "finished"]
    assert results[1].loss_nats is None
    assert any("diverged" in note for note in trackers[1].notes)
    # The number of neighbours changes how products are cut, and so the last digits.
    without, _ = together(calm, tiny_corpus, tmp_path / "calm")
    for one, other in zip((results[0], results[2]), without, strict=True):
        assert one.loss_nats == pytest.approx(other.loss_nats, rel=TOLERANCE)


def test_a_run_called_off_is_saved_and_let_go_of_and_its_neighbours_end_to_the_bit_as_without(
    tiny_corpus: Corpus, tiny_spec: MakeSpec, tmp_path: Path
) -> None:
    specs = different_runs(tiny_spec)
    control, _ = together(specs, tiny_corpus, tmp_path / "control")
    looks, ends = itertools.count(), []

    def called_off(spec: RunSpec) -> bool:
        return spec == specs[1] and next(looks) >= 7

    results, trackers = together(specs, tiny_corpus, tmp_path / "one", should_leave=called_off, ended=ends.append)
    assert [(each.status, each.steps) for each in results] == [("finished", 20), ("interrupted", 7), ("finished", 20)]
    assert ends == [results[1], results[0], results[2]]
    for one in (0, 2):
        assert results[one].weights_hash == control[one].weights_hash
        assert results[one].loss_nats == control[one].loss_nats
    assert max(trackers[1].curve("train_loss"), default=0) <= 7
    # It goes on by itself from where it was let go of.
    alone = RecordingTracker()
    resumed = train(
        specs[1], tiny_corpus, Numerics(), directory=tmp_path / "one" / specs[1].key[:8], tracker=alone,
        should_stop=bool,
    )  # fmt: skip
    assert "resumed at step 7 of 20" in alone.notes
    assert resumed.loss_nats == pytest.approx(control[1].loss_nats, rel=TOLERANCE)


def test_a_group_that_nobody_wants_any_more_ends(tiny_corpus: Corpus, tiny_spec: MakeSpec, tmp_path: Path) -> None:
    looks = itertools.count()
    results, _ = together(
        different_runs(tiny_spec), tiny_corpus, tmp_path, should_leave=lambda _: next(looks) >= 3
    )  # fmt: skip
    assert [(each.status, each.steps) for each in results] == [("interrupted", 1)] * 3


def test_stacked_gradients_are_each_models_own(tiny_spec: MakeSpec) -> None:
    shape = tiny_spec().shape.model_copy(update={"tied": False})
    models = [build(shape) for _ in range(3)]
    for seed, model in enumerate(models):
        model.initialise(seed)
    x_KBT, y_KBT = torch.randint(64, (2, 3, 4, 16), generator=torch.Generator().manual_seed(0))
    losses = [model.loss(x_BT, y_BT) for model, x_BT, y_BT in zip(models, x_KBT, y_KBT, strict=True)]
    wanted = [torch.autograd.grad(loss, list(m.parameters())) for loss, m in zip(losses, models, strict=True)]
    stacked = StackedModels(models, Numerics(together=3))
    torch.testing.assert_close(stacked.accumulate(x_KBT, y_KBT), torch.stack(losses).detach(), rtol=1e-5, atol=1e-5)
    for model, gradients in zip(models, wanted, strict=True):
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "change", [{"steps": 40}, {"spikes": "rewind"}, {"held_out_tokens": 1000}, {"global_batch_tokens": 64}]
)
def test_what_differs_too_much_is_refused(
    tiny_corpus: Corpus, tiny_spec: MakeSpec, tmp_path: Path, change: dict[str, object]
) -> None:
    with pytest.raises(UserError, match="can't be trained together"):
        together([tiny_spec(), tiny_spec(seed=2, **change)], tiny_corpus, tmp_path)


def test_numerics_say_how_many(tiny_corpus: Corpus, tiny_spec: MakeSpec, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"numerics.together is 5 for 2 runs"):
        together([tiny_spec(), tiny_spec(seed=2)], tiny_corpus, tmp_path, together=5)
    with pytest.raises(UserError, match="can't be stacked: use fp32 or bf16"):
        together([tiny_spec(), tiny_spec(seed=2)], tiny_corpus, tmp_path, precision="fp16")
