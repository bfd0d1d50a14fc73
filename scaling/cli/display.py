"""What a running study shows: one live screen in a terminal, plain lines where the output is a file or a pipe.

Everything goes to standard error, so that standard output holds results alone.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from scaling.quantity import format_count, format_duration

if TYPE_CHECKING:
    from sweeps.ledger.ledger import RunRow, Stage
    from sweeps.planning.plan import Plan

__all__ = ["StudyDisplay"]

LINE_EVERY_SECONDS = 10.0
SPARKS = "▁▂▃▄▅▆▇█"
ENDED = ("finished", "diverged", "failed", "killed", "pruned")


class StudyDisplay:
    """Progress of a study: runs done, tokens a second, time left. Use as a context manager."""

    def __init__(self, name: str, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True, quiet=quiet, highlight=False)
        self._live = (
            Live(console=self._console, refresh_per_second=4, transient=True) if self._console.is_terminal else None
        )
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=28),
            TextColumn("{task.fields[facts]}"),
            console=self._console,
        )
        self._task = self._bar.add_task(name, total=1.0, facts="")
        self._started = time.monotonic()
        self._printed = 0.0
        self._last_step = ""
        self._step_started = 0.0
        self._stages: dict[str, list[RunRow]] = {}
        self._training_since = 0.0
        self._done_before = 0.0
        self._losses: dict[str, list[float]] = {}
        self._plan: Plan | None = None

    def __enter__(self) -> StudyDisplay:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def planned(self, plan: Plan) -> None:
        self._plan = plan

    def say(self, message: str) -> None:
        self._console.print(Text(message))

    def step(self, what: str, share: float | None = None) -> None:
        """Something that trains nothing: tokenising, calibrating, fitting, drawing."""
        if what != self._last_step:
            self._last_step, self._step_started, self._printed = what, time.monotonic(), 0.0
        elapsed = time.monotonic() - self._step_started
        left = f" · {format_duration(elapsed / share - elapsed)} left" if share and elapsed > 2 and share < 1 else ""
        if self._live:
            self._bar.update(
                self._task, completed=share or 0.0, total=1.0 if share is not None else None, facts=f"{what}{left}"
            )
            self._live.update(self._bar)
        elif time.monotonic() - self._printed > LINE_EVERY_SECONDS:
            self._printed = time.monotonic()
            done = f" {share:.0%}" if share else ""
            self._console.print(Text(f"[{format_duration(time.monotonic() - self._started)}] {what}{done}{left}"))

    def runs(self, stage: Stage, rows: list[RunRow]) -> None:
        self._stages[stage] = rows
        if all(row.state in ENDED for row in rows):
            return  # nothing to wait for; a study that continues passes its finished stages like this
        done, total = self._counts()
        flops_done, flops_total = self._flops()
        running = [row for row in rows if row.state == "running"]
        rate = sum(row.tokens_per_second or 0.0 for row in running)
        facts = f"{stage} · {done}/{total} runs · {format_count(rate)} tok/s"
        if (left := self._seconds_left()) is not None:
            facts += f" · {format_duration(left)} left"
        failed = sum(row.state in ("failed", "diverged") for row in rows)
        if failed:
            facts += f" · {failed} failed or diverged"
        if self._live:
            self._bar.update(self._task, completed=flops_done, total=flops_total, facts=facts)
            self._live.update(Group(self._bar, *(self._line(row) for row in running)))
        elif time.monotonic() - self._printed > LINE_EVERY_SECONDS:
            self._printed = time.monotonic()
            self._console.print(Text(f"[{format_duration(time.monotonic() - self._started)}] {facts}"))

    def _line(self, row: RunRow) -> Text:
        losses = self._losses.setdefault(row.key, [])
        if row.loss is not None and (not losses or losses[-1] != row.loss):
            losses.append(row.loss)
        loss = f"loss {row.loss:.3f} {_sparkline(losses)}" if row.loss is not None else "starting"
        rate = f"{format_count(row.tokens_per_second)} tok/s" if row.tokens_per_second else ""
        share = row.step / max(row.spec.steps, 1)
        return Text(f"  {row.key[:6]} {row.label:<34} {share:>4.0%}  {loss}  {rate}", overflow="ellipsis", no_wrap=True)

    def _planned(self) -> dict[str, tuple[int, float]]:
        """Runs and FLOPs of each stage: as in the ledger where it has them, else as planned."""
        known: dict[str, tuple[int, float]] = {}
        if self._plan is not None:
            from scaling import architectures

            probe = sum(
                p.tokens * architectures.get(p.shape.architecture).training_flops_per_token(p.shape)
                for p in self._plan.probe
            )
            hold_out = self._plan.hold_out.point.flops * self._plan.replicates
            known = {
                "probe": (len(self._plan.probe), probe),
                "tune": (
                    len(self._plan.tune) * self._plan.tune_trials,
                    self._plan.tune_trials
                    * sum(
                        p.tokens * architectures.get(p.shape.architecture).training_flops_per_token(p.shape)
                        for p in self._plan.tune
                    ),
                ),
                "sweep": (len(self._plan.sweep), self._plan.sweep_flops),
                "hold-out": (self._plan.replicates, hold_out),
            }
        for stage, rows in self._stages.items():
            # Of trials only those that were asked for have rows.
            counted = (len(rows), sum(row.flops for row in rows))
            known[stage] = max(counted, known.get(stage, counted)) if stage == "tune" else counted
        return known

    def _counts(self) -> tuple[int, int]:
        done = sum(row.state in ENDED for rows in self._stages.values() for row in rows)
        return done, sum(runs for runs, _ in self._planned().values())

    def _flops(self) -> tuple[float, float]:
        done = 0.0
        for row in (row for rows in self._stages.values() for row in rows):
            ended = row.state in ENDED
            done += row.flops * (1.0 if ended else row.step / max(row.spec.steps, 1))
        return done, sum(flops for _, flops in self._planned().values())

    def _seconds_left(self) -> float | None:
        """The plan's estimate of what is left, corrected by how the estimate has done so far."""
        plan = self._plan
        if plan is None:
            return None

        def estimate(row: RunRow) -> float:
            return plan.calibration.seconds(row.spec.shape, row.spec.tokens, plan.numerics)

        planned = {
            "probe": [p.seconds for p in plan.probe],
            "sweep": [p.seconds for p in plan.sweep],
            "hold-out": [plan.hold_out.seconds] * plan.replicates,
        }
        open_seconds, done_seconds = 0.0, 0.0
        for stage, seconds in planned.items():
            if stage not in self._stages:
                open_seconds += sum(seconds)
            for row in self._stages.get(stage, []):
                share = 1.0 if row.state in ENDED else row.step / max(row.spec.steps, 1)
                done_seconds += estimate(row) * share
                open_seconds += estimate(row) * (1 - share)
        if not self._training_since:
            self._training_since, self._done_before = time.monotonic(), done_seconds
        trained = done_seconds - self._done_before
        elapsed = time.monotonic() - self._training_since
        slower = elapsed * plan.workers / trained if trained > 20 else 1.0
        return open_seconds * slower / plan.workers


def _sparkline(values: list[float], width: int = 12) -> str:
    if len(values) < 2:
        return ""
    chosen = (
        [values[round(i * (len(values) - 1) / (width - 1))] for i in range(width)] if len(values) > width else values
    )
    low, high = min(chosen), max(chosen)
    scale = (len(SPARKS) - 1) / (high - low) if high > low else 0.0
    return "".join(SPARKS[round((value - low) * scale)] for value in chosen)
