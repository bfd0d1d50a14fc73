"""One live line in a terminal for work that is counted, plain lines every ten seconds where the output is a file."""

from __future__ import annotations

import time

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from scaling.quantity import format_duration

__all__ = ["CountingDisplay"]

LINE_EVERY_SECONDS = 10.0


class CountingDisplay:
    """Use as a context manager. Everything goes to standard error."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._console = Console(stderr=True, highlight=False)
        self._bar = Progress(
            TextColumn("[bold]{task.description}"), BarColumn(bar_width=28), TextColumn("{task.fields[facts]}"),
            console=self._console,
        )  # fmt: skip
        self._task = self._bar.add_task(name, total=1.0, facts="starting")
        self._live = Live(self._bar, console=self._console, refresh_per_second=4, transient=True)
        self._printed = time.monotonic()

    def __enter__(self) -> CountingDisplay:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._live.stop()
        if kind is KeyboardInterrupt:
            self._console.print("stopped; what was finished is saved, and the same command goes on")

    def show(self, share: float, facts: str, seconds_left: float | None) -> None:
        if seconds_left is not None and share < 1:
            facts += f" · {format_duration(seconds_left)} left"
        if self._console.is_terminal:
            self._bar.update(self._task, completed=min(1.0, share), facts=facts)
        elif time.monotonic() - self._printed >= LINE_EVERY_SECONDS:
            self._printed = time.monotonic()
            self._console.print(Text(f"{self._name}: {facts}"))
