"""What a single run shows: one live line in a terminal, plain lines where the output is a file or a pipe.

Everything goes to standard error, so that standard output holds results alone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from scaling.quantity import format_count, format_duration

if TYPE_CHECKING:
    from scaling.run_spec import RunSpec
    from trainer.loop.numerics import Numerics

__all__ = ["RunDisplay"]

LINE_EVERY_SECONDS = 10.0


class RunDisplay:
    """A tracker that shows steps, tokens a second, loss and time left. Use as a context manager."""

    def __init__(self, name: str, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True, quiet=quiet, highlight=False)
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=28),
            TextColumn("{task.fields[facts]}"),
            console=self._console,
        )
        self._task = self._bar.add_task(name, total=1.0, facts="starting")
        self._live = Live(self._bar, console=self._console, refresh_per_second=4, transient=True)
        self._started = time.monotonic()
        self._printed = 0.0
        self._spec: RunSpec | None = None
        self._held_out: float | None = None

    def __enter__(self) -> RunDisplay:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def say(self, message: str) -> None:
        self._console.print(Text(message))

    def step(self, what: str, share: float | None = None) -> None:
        """Something before training: tokenising, calibrating."""
        self._show(share or 0.0, f"{what} {share:.0%}" if share else what)

    def starting(self, spec: RunSpec, numerics: Numerics, folder: Path) -> None:
        from scaling import architectures

        self._spec, self._printed = spec, 0.0
        shape = spec.shape
        total = architectures.get(shape.architecture).count_parameters(shape).total
        self.say(
            f"{shape.architecture} of {format_count(total)} parameters ({shape.layers} layers x {shape.width}), "
            f"{format_count(spec.tokens)} tokens in {spec.steps:,} steps, {numerics.label}\n{folder}"
        )

    # A tracker's side

    def metrics(self, step: int, tokens: int, flops: float, values: Mapping[str, float]) -> None:
        self._held_out = values.get("held_out_loss", self._held_out)

    def progress(self, step: int, tokens: int, tokens_per_second: float, loss: float) -> None:
        assert self._spec is not None, "a run reports progress after it was started"
        left = (self._spec.tokens - tokens) / tokens_per_second if tokens_per_second else 0.0
        held_out = "" if self._held_out is None else f" (held out {self._held_out:.3f})"
        self._show(
            step / self._spec.steps,
            f"step {step:,}/{self._spec.steps:,} · {format_count(tokens_per_second)} tok/s · loss {loss:.3f}{held_out} "
            f"· {format_duration(left)} left",
        )

    def note(self, message: str) -> None:
        self.say(message)

    def flush(self) -> None:
        return

    def _show(self, share: float, facts: str) -> None:
        if self._console.is_terminal:
            self._bar.update(self._task, completed=share, facts=facts)
        elif time.monotonic() - self._printed > LINE_EVERY_SECONDS:
            self._printed = time.monotonic()
            self._console.print(Text(f"[{format_duration(time.monotonic() - self._started)}] {facts}"))
