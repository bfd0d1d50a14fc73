"""The clock counts whole steps and the time between them, and nothing of what a run does besides."""

from __future__ import annotations

import pytest

from trainer.loop import meter
from trainer.loop.energy import Counter
from trainer.loop.meter import RunMeter, StepClock
from trainer.loop.numerics import Numerics
from trainer.loop.state import Progress


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be moved by hand."""
    clock = [100.0]
    monkeypatch.setattr(meter.time, "monotonic", lambda: clock[0])
    return clock


def steps(clock: StepClock, now: list[float], count: int, seconds: float) -> None:
    for _ in range(count):
        clock.start()
        now[0] += seconds
        clock.count_step()


def metered(clock: StepClock, before: Progress, together: int = 1, peak: float | None = None) -> RunMeter:
    return RunMeter(
        before, Numerics(together=together), clock, started=100.0, tokens_per_step=10, flops_per_token=6,
        peak_flops_per_second=peak,
    )  # fmt: skip


def test_the_first_step_and_what_lies_between_stops_and_starts_is_left_out(now: list[float]) -> None:
    clock = StepClock("cpu")
    steps(clock, now, 1, 50.0)  # kernels are built
    steps(clock, now, 4, 2.0)
    clock.stop()
    now[0] += 7.0  # an evaluation
    clock.stop()
    steps(clock, now, 3, 2.0)
    clock.start()
    now[0] += 9.0
    clock.stop()  # the time since the last step belongs to steps, as waiting for data would
    assert (clock.steps, clock.seconds) == (7, 23.0)
    clock.start()
    now[0] += 5.0
    clock.stop()
    assert (clock.steps, clock.seconds) == (7, 23.0)


def test_parts_add_up_and_a_lap_is_of_its_own_part(now: list[float]) -> None:
    before = Progress(run_key="r", trunk_key="t", timed_tokens=100, timed_seconds=10.0, wall_seconds=30.0)
    clock = StepClock("cpu")
    one = metered(clock, before, peak=1200.0)
    assert one.lap() == {}
    steps(clock, now, 6, 0.5)
    one.stop()
    assert one.lap() == {"tokens_per_second": 20.0, "mfu": 0.1}
    assert one.lap() == {}
    totals = one.totals()
    assert (totals["timed_tokens"], totals["timed_seconds"], totals["wall_seconds"]) == (150, 12.5, 33.0)
    result = one.result()
    assert result["tokens_per_second"] == 12.0
    assert result["flops_per_second"] == 72.0
    assert result["mfu"] == pytest.approx(0.06)


def test_runs_in_step_share_seconds_and_not_tokens(now: list[float]) -> None:
    clock = StepClock("cpu")
    both = [metered(clock, Progress(run_key=key, trunk_key=key), together=2) for key in "ab"]
    steps(clock, now, 5, 1.0)
    for one in both:
        totals = one.totals()
        assert (totals["timed_tokens"], totals["timed_seconds"]) == (40, 2.0)
        assert one.result()["mfu"] is None


def test_processes_that_share_a_run_are_held_against_all_their_peaks(now: list[float]) -> None:
    clock = StepClock("cpu")
    shared = RunMeter(
        Progress(run_key="r", trunk_key="t"), Numerics(parallel="ddp", ranks=4), clock, started=100.0,
        tokens_per_step=10, flops_per_token=6, peak_flops_per_second=120.0,
    )  # fmt: skip
    steps(clock, now, 3, 0.5)
    assert shared.result()["mfu"] == 120.0 / (4 * 120.0)


def test_joules_are_gone_with_the_first_part_that_has_no_counter() -> None:
    before = Progress(run_key="r", trunk_key="t", energy_joules=5.0)
    one = metered(StepClock("cpu"), before)
    one._energy = meter.EnergyMeter([])
    assert one.totals()["energy_joules"] is None
    counted = iter([10.0, 14.0])
    one._energy = meter.EnergyMeter([Counter("c", lambda: next(counted))])
    assert one.totals()["energy_joules"] == 9.0
    gone = metered(StepClock("cpu"), before.model_copy(update={"energy_joules": None}))
    assert gone.totals()["energy_joules"] is None
