"""One run has one key: what a setting does not read can't tell two runs apart, and what changes a run does."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import ValidationError

from scaling.errors import UserError
from scaling.run_spec import SCHEMA_VERSION, OptimizerSpec, RunSpec, ScheduleSpec, SpikePolicy


def spec(**fields: Any) -> RunSpec:
    values: dict[str, Any] = {
        "shape": {
            "layers": 1, "width": 16, "heads": 2, "kv_heads": 2, "ffn_width": 32, "vocabulary": 64, "context": 16,
        },
        "tokens": 1600, "global_batch_tokens": 16, "optimizer": {"learning_rate": 1e-2},
        "schedule": {"warmup_tokens": 160, "cooldown_tokens": 320}, "data_key": "d", "tokenizer_key": "t",
        "held_out_tokens": 100,
    }  # fmt: skip
    return RunSpec.model_validate(values | fields)


def test_equal_schedules_are_equal_records() -> None:
    constant = ScheduleSpec.model_validate({"kind": "constant", "warmup_tokens": 5})
    assert constant == ScheduleSpec(warmup_tokens=5)
    assert constant == ScheduleSpec(warmup_tokens=5, cooldown_shape="linear", floor=0.5)
    cosine = ScheduleSpec(kind="cosine", warmup_tokens=5, floor=0.1)
    assert cosine == ScheduleSpec(kind="cosine", warmup_tokens=5, floor=0.1, cooldown_shape="linear")
    assert cosine != ScheduleSpec(kind="cosine", warmup_tokens=5)


@pytest.mark.parametrize("kind", ["cosine", "constant"])
def test_a_cooldown_belongs_to_wsd(kind: str) -> None:
    with pytest.raises(ValidationError, match=f"cooldown_tokens is 9, but a {kind} schedule has no cooldown"):
        ScheduleSpec.model_validate({"kind": kind, "warmup_tokens": 5, "cooldown_tokens": 9})


def test_momentum_is_muons() -> None:
    assert OptimizerSpec(name="muon", learning_rate=1.0).muon_momentum == 0.95
    assert OptimizerSpec(learning_rate=1.0).muon_momentum is None
    with pytest.raises(ValidationError, match="muon_momentum is given, but the optimizer is adamw"):
        OptimizerSpec(learning_rate=1.0, muon_momentum=0.9)


@pytest.mark.parametrize(
    ("parametrisation", "complaint"),
    [
        ({"name": "mup"}, "mup needs base_width"),
        ({"name": "completep", "base_width": 64}, "completep needs base_layers"),
        ({"name": "standard", "base_width": 64}, "standard takes no base_width"),
    ],
)
def test_a_parametrisation_has_its_base_and_no_other(parametrisation: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        spec(parametrisation=parametrisation)


@pytest.mark.parametrize(
    "change",
    [
        {"spikes": "skip"},
        {"optimizer": {"name": "muon", "learning_rate": 1e-2}},
        {"schedule": {"kind": "cosine", "warmup_tokens": 160}},
        {"parametrisation": {"name": "mup", "base_width": 16}},
        {"anneal": {"data_key": "e", "from_tokens": 800}},
        {"seed": 1},
    ],
)
def test_whatever_changes_a_run_changes_its_key(change: dict[str, Any]) -> None:
    assert spec(**change).key != spec().key
    assert RunSpec.model_validate_json(spec(**change).model_dump_json()).key == spec(**change).key


def test_a_word_says_the_policy() -> None:
    assert spec(spikes="rewind").spikes == SpikePolicy(action="rewind")


@pytest.mark.parametrize("from_tokens", [7, 1600, 3200])
def test_annealing_begins_at_a_step_of_the_run(from_tokens: int) -> None:
    with pytest.raises(ValidationError, match=f"anneal.from_tokens {from_tokens} is not a multiple of global_batch"):
        spec(anneal={"data_key": "e", "from_tokens": from_tokens})


def test_runs_leave_their_trunk_at_the_cooldown_or_the_other_data() -> None:
    assert spec().branch_step == 80
    assert spec(anneal={"data_key": "e", "from_tokens": 800}).branch_step == 50
    longer = spec(tokens=3200, schedule={"warmup_tokens": 160, "cooldown_tokens": 640})
    assert longer.trunk_key == spec().trunk_key == longer.trunk(2560).trunk_key
    assert spec(schedule={"warmup_tokens": 320, "cooldown_tokens": 320}).trunk_key != spec().trunk_key


def test_a_specification_of_another_schema_is_refused_and_never_another_run() -> None:
    old = spec().model_dump(mode="json") | {"schema_version": SCHEMA_VERSION - 1}
    with pytest.raises(UserError, match=re.escape(f"schema_version {SCHEMA_VERSION - 1} is from another version")):
        RunSpec.model_validate(old)
