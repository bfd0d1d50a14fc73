"""A branch of a trunk is, to the bit, the run trained straight through; and costs its cooldown alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.run_spec import RunSpec
from trainer.data.shards import Corpus
from trainer.loop.numerics import Numerics
from trainer.loop.result import RunResult
from trainer.loop.train import train
from trainer.tracker import RecordingTracker

MakeSpec = Callable[..., RunSpec]
BATCH = 128
MEASURED = ("status", "run_key", "loss_nats", "loss_sem", "bits_per_byte", "weights_hash", "steps", "tokens")


def run(spec: RunSpec, corpus: Corpus, folder: Path, tracker: RecordingTracker | None = None, **options: object):
    return train(
        spec, corpus, Numerics(), directory=folder, tracker=tracker or RecordingTracker(),
        **({"should_stop": lambda: False} | options),
    )  # fmt: skip


def measured(result: RunResult) -> dict[str, object]:
    return result.model_dump(include=set(MEASURED))


def branch(make: MakeSpec, steps: int, cooldown: int, **fields: object) -> RunSpec:
    schedule = {"warmup_tokens": 4 * BATCH, "cooldown_tokens": cooldown * BATCH}
    return make(steps=steps, schedule=schedule, **fields)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_branch_equals_the_run_trained_straight_through(
    tiny_corpus: Corpus, tiny_spec: MakeSpec, tmp_path: Path, optimizer: str
) -> None:
    fields = {"optimizer": {"name": optimizer, "learning_rate": 1e-2}}
    short, long = branch(tiny_spec, 24, 6, **fields), branch(tiny_spec, 40, 10, **fields)
    trunk = long.trunk(30 * BATCH)
    assert short.trunk_key == long.trunk_key == trunk.trunk_key
    assert (short.branch_step, long.branch_step, trunk.branch_step) == (18, 30, 30)
    run(trunk, tiny_corpus, tmp_path / "trunk", branches=(18, 30))
    for spec in (short, long):
        straight_curve, branch_curve = RecordingTracker(), RecordingTracker()
        straight = run(spec, tiny_corpus, tmp_path / f"straight{spec.steps}", straight_curve)
        left = run(spec, tiny_corpus, tmp_path / f"branch{spec.steps}", branch_curve, trunk=tmp_path / "trunk")
        assert measured(left) == measured(straight)
        assert left.first_step == spec.branch_step
        for name in ("train_loss", "gradient_norm", "held_out_loss"):
            after = {step: value for step, value in straight_curve.curve(name).items() if step > spec.branch_step}
            assert branch_curve.curve(name) == after


def test_a_branch_killed_in_its_cooldown_goes_on_from_its_own_checkpoint(
    tiny_corpus: Corpus, tiny_spec: MakeSpec, tmp_path: Path
) -> None:
    spec = branch(tiny_spec, 24, 8)
    run(spec.trunk(16 * BATCH), tiny_corpus, tmp_path / "trunk", branches=(16,))
    steps = iter(range(100))
    part = run(
        spec, tiny_corpus, tmp_path / "branch", trunk=tmp_path / "trunk", should_stop=lambda: next(steps) >= 3
    )  # fmt: skip
    assert (part.status, part.steps) == ("interrupted", 19)
    tracker = RecordingTracker()
    result = run(spec, tiny_corpus, tmp_path / "branch", tracker, trunk=tmp_path / "trunk")
    assert tracker.notes == ["resumed at step 19 of 24"]
    assert measured(result) == measured(run(spec, tiny_corpus, tmp_path / "straight"))


def test_a_trunk_of_other_settings_is_no_trunk(tiny_corpus: Corpus, tiny_spec: MakeSpec, tmp_path: Path) -> None:
    run(branch(tiny_spec, 20, 0, seed=5), tiny_corpus, tmp_path / "trunk", branches=(16,))
    with pytest.raises(ValueError, match="the checkpoint is of trunk"):
        run(branch(tiny_spec, 24, 8, seed=6), tiny_corpus, tmp_path / "branch", trunk=tmp_path / "trunk")


def test_a_damaged_trunk_costs_work_and_is_said(tiny_corpus: Corpus, tiny_spec: MakeSpec, tmp_path: Path) -> None:
    spec = branch(tiny_spec, 24, 8)
    run(spec.trunk(16 * BATCH), tiny_corpus, tmp_path / "trunk", branches=(10, 16))
    kept = max((tmp_path / "trunk").glob("branch-*"))
    kept.write_bytes(kept.read_bytes()[:-10])
    tracker = RecordingTracker()
    result = run(spec, tiny_corpus, tmp_path / "branch", tracker, trunk=tmp_path / "trunk")
    assert "checkpoint of step 16 is damaged" in tracker.notes[0]
    assert "the trunk's checkpoint of step 16 is missing: left it at step 10" in tracker.notes[1]
    (tmp_path / "nothing").mkdir()
    alone = run(spec, tiny_corpus, tmp_path / "alone", tracker, trunk=tmp_path / "nothing")
    assert "no checkpoint of the trunk up to step 16: trained from the start" in tracker.notes[-1]
    straight = run(spec, tiny_corpus, tmp_path / "straight")
    assert measured(result) == measured(alone) == measured(straight)


def test_branches_may_turn_to_other_data_on_the_way(
    tiny_corpus: Corpus, other_corpus: Corpus, tiny_spec: MakeSpec, tmp_path: Path
) -> None:
    anneal = {"data_key": other_corpus.manifest.data_key, "from_tokens": 16 * BATCH}
    spec = branch(tiny_spec, 24, 8, anneal=anneal)
    plain = branch(tiny_spec, 24, 8)
    assert spec.trunk_key == plain.trunk_key
    assert spec.key != plain.key
    run(spec.trunk(16 * BATCH), tiny_corpus, tmp_path / "trunk", branches=(16,))
    straight = run(spec, tiny_corpus, tmp_path / "straight", annealing_corpus=other_corpus)
    left = run(spec, tiny_corpus, tmp_path / "branch", annealing_corpus=other_corpus, trunk=tmp_path / "trunk")
    assert measured(left) == measured(straight)
    assert straight.weights_hash != run(plain, tiny_corpus, tmp_path / "plain").weights_hash


@given(st.integers(2, 60), st.integers(0, 20), st.integers(0, 30), st.booleans())
def test_equal_trunks_mean_equal_rates_and_batches_up_to_the_branch(
    steps: int, cooldown: int, switch: int, cosine: bool
) -> None:
    from scaling.run_spec import AnnealSpec, OptimizerSpec, ScheduleSpec
    from scaling.shape import ModelShape
    from trainer.loop.schedule import learning_rate

    shape = ModelShape(layers=1, width=8, heads=1, kv_heads=1, ffn_width=8, vocabulary=64, context=16)
    cooldown, switch = min(cooldown, steps - 1), min(switch, steps - 1)
    schedule = (
        ScheduleSpec(kind="cosine", warmup_tokens=16)
        if cosine
        else ScheduleSpec(warmup_tokens=16, cooldown_tokens=cooldown * 16)
    )
    spec = RunSpec(
        shape=shape, tokens=steps * 16, global_batch_tokens=16, optimizer=OptimizerSpec(learning_rate=1e-2), seed=0,
        schedule=schedule, data_key="d", tokenizer_key="t", held_out_tokens=100,
        anneal=AnnealSpec(data_key="e", from_tokens=switch * 16) if switch else None,
    )  # fmt: skip
    trunk = spec.trunk(spec.tokens)
    if cosine:
        assert spec.trunk_key == spec.key
        assert spec.branch_step == 0
        return
    assert trunk.trunk_key == spec.trunk_key
    assert all(learning_rate(spec, step) == learning_rate(trunk, step) for step in range(spec.branch_step))
    assert spec.branch_step <= (switch or steps)
