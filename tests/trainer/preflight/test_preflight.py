"""Each check, made to fail for real: by a small disk, an absurd rate, too little text, a damaged checkpoint."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from scaling.run_spec import OptimizerSpec, RunSpec, ScheduleSpec, SpikePolicy
from trainer.data.run_data import RunData
from trainer.data.shards import Corpus
from trainer.distributed.world import ALONE
from trainer.loop.checkpoint import CheckpointFolder
from trainer.loop.numerics import Numerics
from trainer.numerics_choice import NumericsWish
from trainer.preflight.check import Check, Preflight
from trainer.preflight.checkpoint import check_checkpoint
from trainer.preflight.data import check_data
from trainer.preflight.disk import check_disk, checkpoint_bytes
from trainer.preflight.finish import project_finish
from trainer.preflight.first_steps import check_first_steps
from trainer.preflight.folder import check_folder
from trainer.preflight.memory import check_memory
from trainer.preflight.restart import check_restart
from trainer.preflight.run import preflight
from trainer.preflight.trial import Steps, Trial
from trainer.run_folder import RunFolder, RunRecord
from trainer.run_from_file import RunPlaces, train_file
from trainer.tracker import NullTracker

MakeSpec = Callable[..., RunSpec]
PLAIN = NumericsWish(device="cpu", precision="fp32", compiled=False, kernels=False)


def _quiet(_what: str, _share: float) -> None:
    return


@pytest.fixture
def try_run(tiny_corpus: Corpus, tmp_path: Path) -> Callable[..., Preflight]:
    """``try_run(spec)``: the whole preflight of a file that holds it."""
    # Which a run's folder gets a copy of.
    (tiny_corpus.directory / "tokenizer.json").touch()

    def tried(spec: RunSpec, out: Path | None = None) -> Preflight:
        path = tmp_path / "large.yaml"
        path.write_text(yaml.safe_dump({"run": spec.model_dump(mode="json")}))
        places = RunPlaces(tmp_path / "corpora", tmp_path / "runs", tmp_path / "cache", out)
        return preflight(path, str(tiny_corpus.directory), places, PLAIN, progress=_quiet, checkpoint_seconds=20.0)

    return tried


def _named(found: Preflight, name: str) -> Check:
    return next(check for check in found.checks if check.name == name)


@contextmanager
def _largest_file(size: int) -> Iterator[None]:
    """Of this process; what grows beyond it is refused, as by a full disk (EFBIG in place of ENOSPC)."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


# A run that is ready


def test_a_run_that_is_ready_passes_and_nothing_is_left(
    try_run: Callable[..., Preflight], tiny_spec: MakeSpec, tmp_path: Path
) -> None:
    found = try_run(tiny_spec(steps=40))
    assert found.passed, found.checks
    assert [check.name for check in found.checks] == [
        "data", "folder", "disk", "memory", "first steps", "checkpoint", "restart", "finish",
    ]  # fmt: skip
    # Other tests may be computing on the same processor, and the finish then says so.
    assert {check.status for check in found.checks if check.name != "finish"} == {"ok"}
    assert _named(found, "restart").figures["steps_compared"] == 3
    measured = _named(found, "disk").figures["checkpoint_bytes"]
    assert isinstance(measured, int) and 1.0 < measured / checkpoint_bytes(tiny_spec(steps=40)) < 1.5
    assert found.finish_seconds is not None
    low, estimate, high = found.finish_seconds.low, found.finish_seconds.estimate, found.finish_seconds.high
    assert low is not None and high is not None and 0 < low <= estimate <= high
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())
    assert Preflight.model_validate_json(found.model_dump_json()) == found


def test_the_first_steps_are_those_of_the_run(
    try_run: Callable[..., Preflight], tiny_corpus: Corpus, tiny_spec: MakeSpec, tmp_path: Path
) -> None:
    spec = tiny_spec(steps=40)
    found = try_run(spec)
    losses: dict[int, float] = {}

    class Curve(NullTracker):
        def metrics(self, step: int, tokens: int, flops: float, values: object) -> None:
            assert isinstance(values, dict)
            losses.update({step: values["train_loss"]} if "train_loss" in values else {})

    places = RunPlaces(tmp_path / "corpora", tmp_path / "runs", tmp_path / "cache")
    train_file(
        tmp_path / "large.yaml", str(tiny_corpus.directory), places, PLAIN, tracker=Curve(), progress=_quiet,
        starting=lambda *_: None, should_stop=lambda: False,
    )  # fmt: skip
    assert _named(found, "first steps").figures["first_loss_nats"] == losses[1]


# Data


@pytest.mark.parametrize(("steps", "status"), [(40, "ok"), (600, "ok"), (2000, "warn"), (20_000, "fail")])
def test_repeated_tokens_are_told_and_weighed(
    tiny_corpus: Corpus, tiny_spec: MakeSpec, steps: int, status: str
) -> None:
    check = check_data(tiny_spec(steps=steps), tiny_corpus, None)
    passes, worth = check.figures["passes"], check.figures["worth_share"]
    assert isinstance(passes, float) and isinstance(worth, float)
    assert passes == pytest.approx(steps * 128 / tiny_corpus.manifest.train.tokens, rel=0.01)
    assert check.status == status and (status == "ok") == (passes <= 4) and (status == "fail") == (worth < 0.5)


def test_a_corpus_too_short_for_the_context_is_said_and_the_rest_not_tried(
    try_run: Callable[..., Preflight], tiny_corpus: Corpus, tiny_spec: MakeSpec
) -> None:
    spec = tiny_spec(steps=10)
    long = 2 * tiny_corpus.manifest.train.tokens
    shape = spec.shape.model_copy(update={"context": long})
    schedule = ScheduleSpec(warmup_tokens=0)
    found = try_run(
        tiny_spec(shape=shape, global_batch_tokens=long, tokens=long, schedule=schedule, held_out_tokens=2000)
    )
    assert not found.passed
    assert _named(found, "data").status == "fail" and "too long for this corpus" in _named(found, "data").said
    assert _named(found, "first steps").status == "not tried"


def test_another_corpus_and_a_damaged_one_are_told(
    tiny_corpus: Corpus, other_corpus: Corpus, tiny_spec: MakeSpec
) -> None:
    check = check_data(tiny_spec(), other_corpus, None)
    assert check.status == "fail" and "data_key" in check.said
    check = check_data(tiny_spec(held_out_tokens=10**6), tiny_corpus, None)
    assert check.status == "fail" and "held_out_tokens" in check.said


# Disk

_ON_TMPFS = """
import sys
from pathlib import Path
from scaling.run_spec import RunSpec
from trainer.preflight.disk import check_disk
check = check_disk(RunSpec.model_validate_json(sys.stdin.read()), Path(sys.argv[1]) / "run", int(sys.argv[2]), 0)
print(check.status, check.figures["free_bytes"])
"""


@pytest.mark.parametrize(("size", "status"), [(40_000, "ok"), (500_000, "warn"), (2_000_000, "fail")])
def test_a_disk_too_small_for_three_checkpoints_fails(
    tiny_spec: MakeSpec, tmp_path: Path, size: int, status: str
) -> None:
    """On a file system of 2 MB, mounted in a namespace of the child's own."""
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here")
    program = f'mount -t tmpfs -o size=2m t "$1" && exec "{sys.executable}" -c "$0" "$1" {size}'
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", program, _ON_TMPFS, str(tmp_path)], input=tiny_spec().model_dump_json(),
        capture_output=True, text=True, timeout=120, env=os.environ | {"PYTHONPATH": str(Path.cwd())},
    )  # fmt: skip
    if "Operation not permitted" in done.stderr or "permission denied" in done.stderr.lower():
        pytest.skip("this kernel lets nobody mount in a namespace of one's own")
    assert done.returncode == 0, done.stderr
    found, free = done.stdout.split()
    assert int(free) <= 2 * 2**20
    assert found == status


def test_checkpoints_that_are_there_need_no_more_room(tiny_spec: MakeSpec, tmp_path: Path) -> None:
    new = check_disk(tiny_spec(), tmp_path, 10_000, 0)
    (tmp_path / "step-000000000005.checkpoint").write_bytes(bytes(10_000))
    begun = check_disk(tiny_spec(), tmp_path, 10_000, 0)
    assert (new.figures["needed_bytes"], begun.figures["needed_bytes"]) == (30_000, 20_000)


def test_a_run_that_may_go_back_keeps_a_second_copy(tiny_spec: MakeSpec) -> None:
    plain, rewinds = tiny_spec(), tiny_spec(spikes=SpikePolicy(action="rewind"))
    assert checkpoint_bytes(rewinds) == 2 * checkpoint_bytes(plain)
    muon = tiny_spec(optimizer=OptimizerSpec(name="muon", learning_rate=1e-3))
    assert checkpoint_bytes(muon) == checkpoint_bytes(plain) * 2 / 3


def test_a_disk_that_takes_no_checkpoint_is_said(try_run: Callable[..., Preflight], tiny_spec: MakeSpec) -> None:
    with _largest_file(16_384):
        found = try_run(tiny_spec(steps=40))
    check = _named(found, "checkpoint")
    assert check.status == "fail" and "File too large" in check.said and check.remedy
    assert _named(found, "restart").status == "not tried"
    assert not found.passed


# Memory


def test_a_model_larger_than_memory_fails_and_is_not_tried(
    try_run: Callable[..., Preflight], tiny_spec: MakeSpec
) -> None:
    shape = tiny_spec().shape.model_copy(update={"width": 65_536, "ffn_width": 262_144, "heads": 512, "kv_heads": 512})
    found = try_run(tiny_spec(shape=shape))
    assert _named(found, "memory").status == "fail" and "needs" in _named(found, "memory").said
    assert _named(found, "first steps").status == "not tried"
    assert _named(found, "data").status == "ok"


def test_memory_is_what_was_estimated_or_measured_whichever_is_more(tiny_spec: MakeSpec) -> None:
    spec, numerics = tiny_spec(), Numerics()

    def status(available: int, measured: int | None) -> str:
        return check_memory(spec, numerics, available, measured, 8).status

    estimated = check_memory(spec, numerics, 10**9, None, 8).figures["estimated_bytes"]
    assert isinstance(estimated, int)
    assert status(estimated - 1, None) == "fail"
    assert status(2 * estimated, None) == "ok"
    assert status(2 * estimated, 2 * estimated + 1) == "fail"
    assert status(2 * estimated, int(1.9 * estimated)) == "warn"
    fewer = check_memory(spec, numerics, 10**9, 1, 4)
    assert fewer.status == "warn" and "8 did not fit" in fewer.said


# First steps


def test_an_absurd_learning_rate_is_found_in_the_first_steps(
    try_run: Callable[..., Preflight], tiny_spec: MakeSpec
) -> None:
    found = try_run(tiny_spec(steps=60, learning_rate=1e30, schedule=ScheduleSpec(warmup_tokens=0)))
    check = _named(found, "first steps")
    assert check.status == "fail" and check.remedy is not None and "1e+30" in check.remedy
    assert _named(found, "restart").status == "not tried"


def test_a_loss_that_rises_far_above_chance_is_warned_of(tiny_spec: MakeSpec) -> None:
    steps = Steps(losses=[4.2, 9.0, 4.0], norms=[1.0, 50.0, 1.0], seconds=[1.0] * 3)
    assert check_first_steps(tiny_spec(), steps).status == "warn"


# Checkpoint and restart


@pytest.fixture
def trial(tiny_corpus: Corpus, tiny_spec: MakeSpec, tmp_path: Path) -> Trial:
    spec = tiny_spec(steps=20)
    return Trial(spec, RunData(spec, tiny_corpus), Numerics(), tmp_path / "scratch", ALONE, _quiet)


def _restarted(trial: Trial, between: Callable[[], None]) -> Check:
    first = trial.first()
    _, _, size = trial.save()
    straight = trial.go_on()
    between()
    at, seconds, again = trial.restart(len(straight.losses))
    return check_restart(len(first.losses), at, straight, again, seconds, size, trial.notes.said)


def test_a_restart_gives_the_same_losses(trial: Trial) -> None:
    assert _restarted(trial, lambda: None).status == "ok"


def test_a_checkpoint_that_the_disk_damages_is_found(trial: Trial) -> None:
    def damage() -> None:
        (path,) = trial.folder.glob("step-*.checkpoint")
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

    check = _restarted(trial, damage)
    assert check.status == "fail" and "damaged" in check.said


def test_a_checkpoint_that_is_gone_is_found(trial: Trial) -> None:
    def lose() -> None:
        for path in trial.folder.glob("step-*.checkpoint"):
            path.unlink()

    check = _restarted(trial, lose)
    assert check.status == "fail" and "went on from step 0" in check.said


def test_other_bits_after_a_restart_are_found(trial: Trial) -> None:
    def other_numbers() -> None:
        # Whole, but of weights that lie one bit aside: what faulty memory would have written.
        checkpoints = CheckpointFolder(trial.folder, trial.notes.note)
        saved = checkpoints.newest()
        assert saved is not None
        weight = next(iter(saved["model"].values()))
        weight.view(-1)[0] += 1e-3
        checkpoints.save(checkpoints.newest_step(), saved)

    check = _restarted(trial, other_numbers)
    assert check.status == "fail" and "after a restart" in check.said


def test_a_slow_disk_is_warned_of_with_the_interval_that_suits_it() -> None:
    assert check_checkpoint(0.1, 0.1, 10**6, 20.0).status == "ok"
    slow = check_checkpoint(30.0, 30.0, 10**9, 20.0)
    assert slow.status == "warn" and slow.remedy is not None
    seconds = float(slow.remedy.split("--checkpoint-seconds ")[1].split(",")[0])
    assert check_checkpoint(30.0, 30.0, 10**9, seconds).status == "ok"


# The run's folder


def test_a_run_under_way_is_seen_and_not_touched(
    try_run: Callable[..., Preflight], tiny_corpus: Corpus, tiny_spec: MakeSpec, tmp_path: Path
) -> None:
    spec, out = tiny_spec(steps=40), tmp_path / "run"
    try_run(spec, out)  # writes the file
    places = RunPlaces(tmp_path / "corpora", tmp_path / "runs", tmp_path / "cache", out)
    asked = iter([False] * 12 + [True])
    train_file(
        tmp_path / "large.yaml", str(tiny_corpus.directory), places, PLAIN, tracker=NullTracker(), progress=_quiet,
        starting=lambda *_: None, should_stop=lambda: next(asked),
    )  # fmt: skip
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    found = try_run(spec, out)
    assert "up to step 12, whole" in _named(found, "folder").said
    assert _named(found, "finish").figures["remaining_steps"] == 28
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before

    (checkpoint,) = out.glob("step-*.checkpoint")
    content = bytearray(checkpoint.read_bytes())
    content[-100] ^= 1
    checkpoint.write_bytes(content)
    check, step = check_folder(RunFolder(out), spec)
    assert (check.status, step) == ("fail", 0) and "does not match its checksum" in check.said
    assert checkpoint.exists()
    other, _ = check_folder(RunFolder(out), tiny_spec(steps=41))
    assert other.status == "fail" and "holds the run" in other.said


def test_an_older_whole_checkpoint_stands_in_for_a_damaged_one(
    tiny_corpus: Corpus, tiny_spec: MakeSpec, tmp_path: Path
) -> None:
    spec = tiny_spec(steps=20)
    folder = RunFolder(tmp_path / "run")
    trial = Trial(spec, RunData(spec, tiny_corpus), Numerics(), folder.path, ALONE, _quiet)
    trial.first()
    trial.save()
    (whole,) = folder.path.glob("step-*.checkpoint")
    whole.with_name("step-000000000019.checkpoint").write_bytes(whole.read_bytes()[:-1])
    write = RunRecord(spec=spec, numerics=Numerics(), corpus="").model_dump_json()
    (folder.path / "run.json").write_text(write)
    check, step = check_folder(folder, spec)
    assert (check.status, step) == ("warn", 17) and "goes on from step 17" in check.said


# The finish


def test_the_finish_scales_with_what_is_left_and_holds_its_own_steps(tiny_spec: MakeSpec) -> None:
    spec = tiny_spec(steps=1000)
    seconds = [0.1] * 8 + [0.2, 0.1]
    _, whole = project_finish(spec, 0, seconds, 0.0, 20.0)
    _, half = project_finish(spec, 500, seconds, 0.0, 20.0)
    assert whole.low is not None and whole.high is not None
    assert 100 < whole.low <= whole.estimate <= whole.high < 250
    assert 0.5 < half.estimate / whole.estimate < 0.55
    _, saving = project_finish(spec, 0, seconds, 2.0, 20.0)
    assert saving.estimate == pytest.approx(1.1 * whole.estimate)


def test_what_others_took_of_the_processor_is_told_and_widens_the_finish(tiny_spec: MakeSpec) -> None:
    spec = tiny_spec(steps=1000)
    alone, quiet = project_finish(spec, 0, [0.1] * 10, 0.0, 20.0)
    check, busy = project_finish(spec, 0, [0.1] * 10, 0.0, 20.0, processor_share=0.5)
    assert (alone.status, check.status) == ("ok", "warn") and "others took 50%" in check.said
    assert quiet.low is not None and busy.low == pytest.approx(quiet.low / 2)
    assert (busy.estimate, busy.high) == (quiet.estimate, quiet.high)


def test_two_trials_begin_alike(trial: Trial) -> None:
    first = trial.first()
    again = Trial(trial.spec, trial._data, trial.numerics, trial.folder.with_name("other"), ALONE, _quiet).first()
    assert first.losses == again.losses and first.norms == again.norms
