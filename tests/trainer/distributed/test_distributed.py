"""Several processes train what one trains; killing one costs the steps since the last checkpoint, and no digit."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scaling.run_spec import RunSpec
from scaling.shape import ModelShape
from trainer.data.shards import Corpus
from trainer.loop.checkpoint import load
from trainer.loop.numerics import Numerics
from trainer.loop.result import RunResult
from trainer.loop.state import weights_hash
from trainer.loop.train import train
from trainer.models import build
from trainer.tracker import RecordingTracker

from .conftest import Given, Job, Launch, curve, job

MakeSpec = Callable[..., RunSpec]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

GPT2 = ModelShape(architecture="gpt2", layers=2, width=16, heads=2, kv_heads=2, ffn_width=32, vocabulary=64, context=16)
LSTM = ModelShape(
    architecture="lstm", layers=2, width=16, heads=1, kv_heads=1, ffn_width=16, vocabulary=64, context=16, tied=False
)
MAMBA2 = ModelShape(
    architecture="mamba2", layers=2, width=16, heads=2, kv_heads=1, ffn_width=32, vocabulary=64, context=16,
    state_width=16,
)  # fmt: skip
SPIKES = {"window": 8, "sigma": 1.0}
LIKE_ONE: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "ddp": ("ddp", {}, {}),
    "fsdp": ("fsdp", {}, {}),
    "ddp in micro-batches": ("ddp", {"micro_batch_sequences": 2}, {}),
    "fsdp in micro-batches, recomputed": ("fsdp", {"micro_batch_sequences": 2, "recompute": True}, {}),
    "ddp on our kernels": ("ddp", {"kernels": True}, {}),
    "fsdp on our kernels": ("fsdp", {"kernels": True}, {}),
    "ddp bf16": ("ddp", {"precision": "bf16"}, {}),
    "fsdp bf16": ("fsdp", {"precision": "bf16"}, {}),
    "ddp fp16": ("ddp", {"precision": "fp16"}, {}),
    "fsdp fp16": ("fsdp", {"precision": "fp16"}, {}),
    "ddp muon": ("ddp", {}, {"optimizer": {"name": "muon", "learning_rate": 1e-2}}),
    "fsdp gpt2": ("fsdp", {}, {"shape": GPT2}),
    "fsdp mamba2": ("fsdp", {}, {"shape": MAMBA2}),
    "ddp lstm": ("ddp", {}, {"shape": LSTM}),
    "fsdp lstm": ("fsdp", {"recompute": True}, {"shape": LSTM}),
    "fsdp skips spikes": ("fsdp", {}, {"spikes": {"action": "skip", **SPIKES}}),
    "ddp goes back": ("ddp", {}, {"spikes": {"action": "rewind", **SPIKES}}),
    "fsdp goes back": ("fsdp", {}, {"spikes": {"action": "rewind", **SPIKES}}),
    "fsdp diverges": ("fsdp", {}, {"learning_rate": 1e25}),
}
"""Settings that two processes and one train alike: how it is shared, numerics, and what the specification says."""

TOLERANCE = {"fp32": 1e-6, "fp16": 1e-3, "bf16": 3e-3}
"""Of a loss, relative, after 20 to 30 steps. Muon takes its products in bf16 always."""

REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "muon in shards": (
        "fsdp",
        {"optimizer": {"name": "muon", "learning_rate": 1e-2}},
        "parallel fsdp cuts the matrices that muon needs whole: use ddp",
    ),
    "seven sequences": (
        "ddp",
        {"global_batch_tokens": 7 * 16, "tokens": 20 * 7 * 16},
        "global_batch_tokens 112 is 7 sequences a step, which 2 processes can't share equally: start as many as "
        "divide 7",
    ),
    "no way to share": (
        "none",
        {},
        "parallel is none and 2 processes were started: take ddp or fsdp, or start one",
    ),
}


def alone(
    spec: RunSpec, corpus: Corpus, folder: Path, numerics: dict[str, Any] | None = None, stop_after: int | None = None
) -> tuple[RunResult, RecordingTracker]:
    tracker, steps = RecordingTracker(), iter(range(10_000))
    result = train(
        spec,
        corpus,
        Numerics(**(numerics or {})),
        directory=folder,
        tracker=tracker,
        should_stop=lambda: next(steps) == stop_after,
        checkpoint_seconds=1e9,
    )
    return result, tracker


def steps_of(name: str) -> int:
    return 30 if "spikes" in LIKE_ONE[name][2] else 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def two(launch: Launch, tiny_spec: MakeSpec, folder: Path) -> dict[str, list[Given]]:
    """What two processes gave of all that is asked below."""
    jobs: list[Job] = []
    for name, (parallel, numerics, fields) in LIKE_ONE.items():
        jobs.append(job(name, tiny_spec(steps_of(name), **fields), folder / name, parallel, numerics=numerics))
    for name, (parallel, fields, _) in REFUSED.items():
        jobs.append(job(name, tiny_spec(**fields), folder / name, parallel))
    for parallel in ("ddp", "fsdp"):
        spec = tiny_spec(24)
        trunk = {"trunk": str(folder / f"trunk {parallel}")}
        jobs += [
            job(f"stopped {parallel}", tiny_spec(), folder / f"stopped {parallel}", parallel, stop=[1, 7]),
            job(f"goes on {parallel}", tiny_spec(), folder / f"stopped {parallel}", parallel),
            job(f"trunk {parallel}", spec.trunk(18 * 128), folder / f"trunk {parallel}", parallel, branches=[18]),
            job(f"branch {parallel}", spec, folder / f"branch {parallel}", parallel, **trunk),
            job(f"straight {parallel}", spec, folder / f"straight {parallel}", parallel),
        ]
    shared = folder / "shared"
    jobs.append(job("first part", twelve(tiny_spec), shared, "fsdp", stop=[0, 7], checkpoint_seconds=0))
    return launch(jobs)


def twelve(make: MakeSpec) -> RunSpec:
    """A run whose batch two and three processes can share."""
    return make(global_batch_tokens=12 * 16, tokens=20 * 12 * 16)


def science(given: Given) -> dict[str, Any]:
    return {name: given["result"][name] for name in ("status", "steps", "loss_nats", "bits_per_byte", "weights_hash")}


@pytest.mark.parametrize("name", LIKE_ONE)
def test_two_processes_train_what_one_trains(
    two: dict[str, list[Given]], tiny_corpus: Corpus, tiny_spec: MakeSpec, tmp_path: Path, name: str
) -> None:
    _, numerics, fields = LIKE_ONE[name]
    result, tracker = alone(tiny_spec(steps_of(name), **fields), tiny_corpus, tmp_path, numerics)
    first, second = two[name]
    within = pytest.approx
    share = TOLERANCE["bf16" if "muon" in name else numerics.get("precision", "fp32")]
    for metric in ("train_loss", "held_out_loss", "gradient_norm"):
        found, wanted = curve(first, metric), tracker.curve(metric)
        assert found.keys() == wanted.keys()
        assert found == within(wanted, rel=share * (20 if metric == "gradient_norm" else 1))
    told = first["result"]
    assert (told["status"], told["steps"], tuple(told["spikes"]), told["rewinds"]) == (
        result.status, result.steps, result.spikes, result.rewinds
    )  # fmt: skip
    assert [note.split(" ", 4)[:4] for note in first["notes"]] == [note.split(" ", 4)[:4] for note in tracker.notes]
    if result.loss_nats is not None:
        assert told["loss_nats"] == within(result.loss_nats, rel=share)
        assert told["loss_sem"] == within(result.loss_sem, rel=10 * share)
    # What only one of two may say, and both must know.
    assert science(second) == science(first)
    assert second["points"] == second["notes"] == []


@pytest.mark.parametrize("name", REFUSED)
def test_what_processes_cannot_share_is_refused_by_all_in_a_line(two: dict[str, list[Given]], name: str) -> None:
    assert [given["error"] for given in two[name]] == [REFUSED[name][2]] * 2


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_the_weights_hash_is_that_of_the_whole_weights(
    two: dict[str, list[Given]], tiny_spec: MakeSpec, folder: Path, parallel: str
) -> None:
    (path,) = (folder / parallel).glob("step-*")
    model = build(tiny_spec().shape)
    model.load_state_dict(load(path)["model"])
    assert weights_hash(model) == two[parallel][0]["result"]["weights_hash"]


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_signal_to_one_process_stops_all_at_one_step_and_costs_no_digit(
    two: dict[str, list[Given]], parallel: str
) -> None:
    assert [(given["result"]["status"], given["result"]["steps"]) for given in two[f"stopped {parallel}"]] == [
        ("interrupted", 6)
    ] * 2
    after, control = two[f"goes on {parallel}"][0], two[parallel][0]
    assert after["notes"] == ["resumed at step 6 of 20"]
    assert curve(two[f"stopped {parallel}"][0]) | curve(after) == curve(control)
    assert science(after) == science(control)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_branch_equals_the_run_trained_straight_through(two: dict[str, list[Given]], parallel: str) -> None:
    branch, straight = two[f"branch {parallel}"][0], two[f"straight {parallel}"][0]
    assert branch["notes"] == ["left its trunk at step 18 of 24"]
    assert science(branch) == science(straight)


@pytest.fixture(scope="module")
def three(
    two: dict[str, list[Given]], launch: Launch, tiny_corpus: Corpus, tiny_spec: MakeSpec, folder: Path
) -> dict[str, list[Given]]:
    """Three processes, of which one is killed in the first attempt and another in the second; and what two began."""
    spec, shared, damaged = twelve(tiny_spec), folder / "shared", folder / "damaged"
    shutil.copytree(shared, damaged)
    file = max(max(damaged.glob("step-*")).glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    one, tracker = alone(spec, tiny_corpus, shared, stop_after=6)
    assert (one.steps, tracker.notes[0]) == (12, "resumed at step 6 of 20")
    jobs = [
        job("killed ddp", spec, folder / "killed ddp", "ddp", kill={"0": [1, 9]}, checkpoint_seconds=0),
        job("killed fsdp", spec, folder / "killed fsdp", "fsdp", kill={"1": [0, 6]}, checkpoint_seconds=0),
        job("control ddp", spec, folder / "control ddp", "ddp"),
        job("control fsdp", spec, folder / "control fsdp", "fsdp"),
        job("after two and one", spec, shared, "fsdp"),
        job("after two", spec, damaged, "ddp"),
    ]
    return launch(jobs, ranks=3, restarts=2)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_killed_process_costs_the_steps_since_the_last_checkpoint_and_no_digit(
    three: dict[str, list[Given]], parallel: str
) -> None:
    killed, control = three[f"killed {parallel}"][0], three[f"control {parallel}"][0]
    (note,) = killed["notes"]
    resumed = int(re.fullmatch(r"resumed at step (\d+) of 20", note)[1])  # type: ignore[index]
    assert 2 <= resumed <= {"ddp": 8, "fsdp": 5}[parallel]
    assert curve(killed) == {step: loss for step, loss in curve(control).items() if step > resumed}
    assert science(killed) == science(control)


def test_a_run_goes_on_with_another_number_of_processes(
    three: dict[str, list[Given]], tiny_corpus: Corpus, tiny_spec: MakeSpec, tmp_path: Path
) -> None:
    straight, tracker = alone(twelve(tiny_spec), tiny_corpus, tmp_path)
    for name, resumed in (("after two and one", 12), ("after two", 5)):
        given = three[name][0]
        assert f"resumed at step {resumed} of 20" in given["notes"]
        assert "numerics changed" in given["notes"][-1]
        wanted = {step: loss for step, loss in tracker.curve("train_loss").items() if step > resumed}
        assert curve(given) == pytest.approx(wanted, rel=TOLERANCE["fp32"])
        assert given["result"]["loss_nats"] == pytest.approx(straight.loss_nats, rel=TOLERANCE["fp32"])
    labels = three["after two and one"][0]["result"]["numerics"]
    assert labels == "cpu fp32 eager t1 fsdp2, then cpu fp32 eager t1, then cpu fp32 eager t1 fsdp3"


def test_a_damaged_checkpoint_is_said_and_the_one_before_taken(three: dict[str, list[Given]]) -> None:
    assert "checkpoint of step 6 is damaged and was removed" in three["after two"][0]["notes"][0]
    assert three["after two"][0]["notes"][1] == "resumed at step 5 of 20"


def test_compiled_processes_train_what_one_trains(
    launch: Launch, tiny_corpus: Corpus, tiny_spec: MakeSpec, tmp_path: Path
) -> None:
    result, tracker = alone(tiny_spec(), tiny_corpus, tmp_path / "one")
    given = launch([job(p, tiny_spec(), tmp_path / p, p, numerics={"compiled": True}) for p in ("ddp", "fsdp")])
    for by_rank in given.values():
        assert curve(by_rank[0]) == pytest.approx(tracker.curve("train_loss"), rel=TOLERANCE["fp32"])
        assert by_rank[0]["result"]["loss_nats"] == pytest.approx(result.loss_nats, rel=TOLERANCE["fp32"])
