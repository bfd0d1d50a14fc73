"""The ledger: a run is leased once, a dead owner's run is planned again, forecasts can't change unseen."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from scaling import architectures
from scaling.errors import UserError
from scaling.forecast import Forecast, Outcome
from scaling.record import Interval
from scaling.run_spec import OptimizerSpec, RunSpec, ScheduleSpec
from sweeps import failures
from sweeps.failures import MAX_FAILURES, MAX_MACHINE_FAILURES, FailureKind
from sweeps.ledger.control import retry
from sweeps.ledger.ledger import Ledger, PlannedRun
from sweeps.ledger.owner import Owner


def spec(tokens: int = 4096, seed: int = 0) -> RunSpec:
    shape = architectures.get("llama").shape_for(4e4, vocabulary=512, context=32)
    return RunSpec(
        shape=shape, tokens=tokens, global_batch_tokens=256, optimizer=OptimizerSpec(learning_rate=1e-3), seed=seed,
        schedule=ScheduleSpec(warmup_tokens=256, cooldown_tokens=512), data_key="d", tokenizer_key="t",
        held_out_tokens=64,
    )  # fmt: skip


def planned(*specs: RunSpec) -> list[PlannedRun]:
    return [PlannedRun(spec=one, stage="sweep", label=f"run {one.seed}") for one in specs]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")


def forecast(loss: float = 3.0) -> Forecast:
    one = Interval(estimate=loss, low=loss - 0.1, high=loss + 0.1)
    return Forecast(fit_key="f", flops=1e12, params=one, tokens=one, loss=one, level=0.9, extrapolation_orders=0.6,
                    params_convention="total", flops_convention="exact", assumptions=("chinchilla",))  # fmt: skip


def test_the_longest_planned_run_is_leased_first(ledger: Ledger) -> None:
    ledger.add("s", planned(spec(1024), spec(8192), spec(4096)))
    me = Owner.me()
    assert [leased.tokens for _ in range(3) if (leased := ledger.lease("s", "sweep", me))] == [8192, 4096, 1024]
    assert ledger.lease("s", "sweep", me) is None


def test_a_run_that_the_workspace_has_is_not_planned_anew(ledger: Ledger) -> None:
    ledger.add("first", planned(spec()))
    me = Owner.me()
    leased = ledger.lease("first", "sweep", me)
    assert leased
    assert ledger.finish(leased.key, me, "finished", {"steps": 16, "loss_nats": 3.5})
    ledger.add("second", planned(spec()))
    (row,) = ledger.runs("second")
    assert (row.state, row.loss) == ("finished", 3.5)
    assert ledger.lease("second", "sweep", me) is None


def test_progress_and_points_are_written_together_or_not_at_all(ledger: Ledger) -> None:
    ledger.add("s", planned(spec()))
    me = Owner.me()
    leased = ledger.lease("s", "sweep", me)
    assert leased
    point = {"step": 1, "tokens": 256, "flops": 1e6, "name": "train_loss", "value": 5.0}
    again = point | {"value": 4.0}  # measured again after a restart: the first stays
    for points in ([], [point], [again, point | {"step": 2}]):
        assert ledger.heartbeat(leased.key, me, step=1, tokens_per_second=1.0, loss=5.0, points=points)
    kept = [(row.step, row.value) for row in ledger.points(leased.key)]
    assert kept == [(1, 5.0), (2, 5.0)]
    ledger.release(leased.key, me)
    assert not ledger.heartbeat(leased.key, me, step=9, tokens_per_second=1.0, loss=1.0, points=[point | {"step": 9}])
    assert [(row.step, row.value) for row in ledger.points(leased.key)] == kept


def test_concurrent_callers_never_lease_the_same_run(ledger: Ledger) -> None:
    ledger.add("s", planned(*(spec(seed=seed) for seed in range(40))))
    taken: list[str] = []
    barrier = threading.Barrier(8)

    def take() -> None:
        mine = Ledger(ledger.url)
        barrier.wait()
        while leased := mine.lease("s", "sweep", Owner.me()):
            taken.append(leased.key)
        mine.close()

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 40
    assert len(set(taken)) == 40


def test_a_dead_owners_run_is_planned_again_without_a_failure(ledger: Ledger) -> None:
    ledger.add("s", planned(spec()))
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    owner = Owner.of(sleeper.pid)
    leased = ledger.lease("s", "sweep", owner)
    assert leased
    (held,) = ledger.held()
    assert (held.key, held.owner) == (leased.key, owner)
    assert not owner.is_dead()
    owner.kill()
    sleeper.wait()
    assert owner.is_dead()
    ledger.release(leased.key, owner)
    (row,) = ledger.runs("s")
    assert (row.state, row.failures) == ("planned", 0)
    assert not ledger.heartbeat(leased.key, owner, step=1, tokens_per_second=None, loss=None)


@pytest.mark.parametrize(("kind", "tries"), [("run", MAX_FAILURES), ("machine", MAX_MACHINE_FAILURES), ("memory", 1)])
def test_each_kind_of_failure_has_its_own_number_of_tries(ledger: Ledger, kind: FailureKind, tries: int) -> None:
    ledger.add("s", planned(spec()))
    me = Owner.me()
    for _ in range(tries):
        leased = ledger.lease("s", "sweep", me)
        assert leased
        ledger.fail(leased.key, me, "it says why", kind)
    (row,) = ledger.runs("s")
    assert (row.state, row.failures, row.failure_kind) == ("failed", tries, kind)
    assert (row.error or "").endswith("it says why")
    assert (row.error or "").startswith("FAILED_OOM") == (kind == "memory")


def test_a_machines_faults_are_not_counted_against_the_run(ledger: Ledger) -> None:
    ledger.add("s", planned(spec()))
    me = Owner.me()
    kinds: list[FailureKind] = ["machine", "run", "machine", "crowded", "machine", "run"]
    for kind in kinds:
        leased = ledger.lease("s", "sweep", me)
        assert leased
        ledger.fail(leased.key, me, kind, kind)
    assert ledger.lease("s", "sweep", me)


def test_a_preempted_run_waits_for_ever_while_it_gets_on_and_not_when_it_does_not(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 5
    monkeypatch.setattr(failures, "MAX_PREEMPTIONS", most)
    ledger.add("s", planned(spec()))
    me = Owner.me()
    for step in [*range(1, most + 2), *[most + 1] * (most - 1)]:
        (row,) = ledger.runs("s")
        assert (row.state, row.failures) == ("planned", 0)
        leased = ledger.lease("s", "sweep", me)
        assert leased
        ledger.heartbeat(leased.key, me, step=step, tokens_per_second=None, loss=None)
        ledger.release(leased.key, me)
    (row,) = ledger.runs("s")
    assert row.state == "failed"
    assert "without a step done" in (row.error or "")


def test_a_reused_pid_is_told_apart_by_its_start_time() -> None:
    me = Owner.me()
    assert not me.is_dead()
    assert Owner(me.host, me.pid, me.started - 100).is_dead()
    assert not Owner("another-host", me.pid, me.started - 100).is_dead()
    assert Owner.parse(str(me)) == me


def test_failures_are_bounded_and_then_final_until_retried(ledger: Ledger) -> None:
    ledger.add("s", planned(spec()))
    me = Owner.me()
    for _ in range(MAX_FAILURES):
        leased = ledger.lease("s", "sweep", me)
        assert leased
        ledger.fail(leased.key, me, "poison", "run")
    assert ledger.lease("s", "sweep", me) is None
    (row,) = ledger.runs("s")
    assert (row.state, row.error) == ("failed", "poison")
    assert retry(ledger, "s") == ([row.key], [])
    assert ledger.lease("s", "sweep", me) is not None


def test_a_point_measured_again_after_a_restart_is_kept_once(ledger: Ledger) -> None:
    point = {"step": 3, "tokens": 768, "flops": 1e6, "name": "train_loss", "value": 5.0}
    ledger.add_points("k", [point, point | {"step": 4}])
    ledger.add_points("k", [point, point | {"step": 5}])
    assert [row.step for row in ledger.points("k")] == [3, 4, 5]


def test_a_forecast_is_registered_once_and_before_its_run(ledger: Ledger) -> None:
    ledger.add("s", planned(spec()))
    first = ledger.register("s", forecast(), [spec().key])
    assert ledger.register("s", forecast(), [spec().key]) == first
    ledger.lease("s", "sweep", Owner.me())
    with pytest.raises(RuntimeError, match="started before"):
        ledger.register("s", forecast(2.9), [spec().key])
    ledger.score(forecast().key, Outcome(forecast_key=forecast().key, run_keys=("k",), loss=3.01, loss_spread=None,
                                         relative_error=-0.003, inside=True))  # fmt: skip
    assert ledger.broken_links() == []


def test_changing_or_removing_a_forecast_shows(ledger: Ledger, tmp_path: Path) -> None:
    for number in range(3):
        ledger.register("s", forecast(3.0 + number), [f"run {number}"])
    database = tmp_path / "ledger.db"
    with sqlite3.connect(database) as db:
        db.execute("update forecasts set forecast = replace(forecast, '4.0', '4.2') where id = 2")
    db.close()
    assert ledger.broken_links() == [2]
    with sqlite3.connect(database) as db:
        db.execute("delete from forecasts where id = 2")
    db.close()
    assert ledger.broken_links() == [3]


def test_a_ledger_of_another_version_is_refused_in_one_line(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    Ledger(url).close()
    with sqlite3.connect(tmp_path / "ledger.db") as db:
        db.execute("update ledger set version = 99")
    db.close()
    with pytest.raises(UserError, match="version 99"):
        Ledger(url)


def test_runs_alike_are_leased_with_one_and_never_twice(ledger: Ledger) -> None:
    ledger.add("s", planned(*(spec(seed=seed) for seed in range(5)), spec(tokens=8192)))
    me = Owner.me()
    longest = ledger.lease("s", "sweep", me)
    assert longest is not None
    assert ledger.lease_alike("s", "sweep", me, longest, 7, lambda run: run.tokens == longest.tokens) == []
    first = ledger.lease("s", "sweep", me)
    assert first is not None
    taken = ledger.lease_alike("s", "sweep", me, first, 3, lambda run: run.tokens == first.tokens)
    assert len(taken) == 3
    rest = ledger.lease("s", "sweep", me)
    assert rest is not None
    assert len({first.key, rest.key, *(run.key for run in taken)}) == 5


def test_an_interrupted_group_is_the_same_again_and_splits_before_its_last_try(ledger: Ledger) -> None:
    ledger.add("s", planned(*(spec(seed=seed) for seed in range(4))))
    me = Owner.me()
    groups = []
    for _ in range(MAX_FAILURES):
        first = ledger.lease("s", "sweep", me)
        assert first is not None
        groups.append([first.key, *(run.key for run in ledger.lease_alike("s", "sweep", me, first, 7, lambda _: True))])
        for key in groups[-1]:
            assert ledger.fail(key, me, "killed", "run")
    assert groups[0] == groups[1]
    assert len(groups[0]) == 4
    assert len(groups[-1]) == 1


def branches_of_one_trunk(ledger: Ledger, *tokens: int) -> list[RunSpec]:
    """Runs of one trunk, the last of which carries it, as the ledger plans them."""
    schedule = ScheduleSpec(warmup_tokens=512, cooldown_tokens=1024)
    specs = [spec(length).model_copy(update={"schedule": schedule}) for length in tokens]
    assert len({one.trunk_key for one in specs}) == 1
    carrier = specs[-1].key
    plans = [run.model_copy(update={"carrier": carrier}) for run in planned(*specs[:-1])]
    ledger.add("s", [*plans, *planned(specs[-1])])
    return specs


def test_a_branch_is_leased_once_its_carrier_has_kept_the_checkpoint(ledger: Ledger) -> None:
    early, late, carrier = branches_of_one_trunk(ledger, 4096, 8192, 16384)
    me = Owner.me()
    assert ledger.trunk_of(carrier.key) == (None, [early.branch_step, late.branch_step])
    assert ledger.trunk_of(early.key) == (carrier.key, [])
    assert ledger.lease("s", "sweep", me) == carrier
    assert ledger.lease("s", "sweep", me) is None and ledger.is_waiting("s", "sweep")
    ledger.heartbeat(carrier.key, me, step=early.branch_step - 1, tokens_per_second=None, loss=None)
    assert ledger.lease("s", "sweep", me) is None
    ledger.heartbeat(carrier.key, me, step=early.branch_step, tokens_per_second=None, loss=None)
    assert ledger.lease("s", "sweep", me) == early
    assert ledger.lease("s", "sweep", me) is None
    ledger.finish(carrier.key, me, "finished", {"steps": carrier.steps})
    assert ledger.lease("s", "sweep", me) == late
    assert not ledger.is_waiting("s", "sweep")


@pytest.mark.parametrize("end", ["failed", "diverged"])
def test_branches_of_a_carrier_that_never_gets_there_are_trained_all_the_same(ledger: Ledger, end: str) -> None:
    branch, carrier = branches_of_one_trunk(ledger, 4096, 16384)
    me = Owner.me()
    for _ in range(MAX_FAILURES if end == "failed" else 1):
        assert ledger.lease("s", "sweep", me) == carrier
        if end == "failed":
            ledger.fail(carrier.key, me, "boom", "run")
        else:
            ledger.finish(carrier.key, me, "diverged", {"steps": 1})
    assert ledger.lease("s", "sweep", me) == branch


def test_a_carrier_that_only_another_study_plans_is_not_waited_for(ledger: Ledger) -> None:
    branch, _ = branches_of_one_trunk(ledger, 4096, 16384)
    ledger.add("other", planned(branch))
    assert ledger.lease("other", "sweep", Owner.me()) == branch


def test_a_branch_is_worth_its_cooldown_when_the_longest_run_is_sought(ledger: Ledger) -> None:
    branches_of_one_trunk(ledger, 15360, 16384)
    alone = spec(8192, seed=1)
    ledger.add("s", planned(alone))
    me = Owner.me()
    carrier = ledger.lease("s", "sweep", me)
    assert carrier is not None
    ledger.finish(carrier.key, me, "finished", {"steps": carrier.steps})
    assert ledger.lease("s", "sweep", me) == alone
