"""``scaling status --watch``: a live screen in a terminal, and in a file or a pipe lines of what changed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.text import Text

from scaling.cli.status_pages import facts, headline, label_width, run_line, status_page, status_record, trouble

if TYPE_CHECKING:
    from sweeps.standing import Standing

__all__ = ["watch_json", "watch_study"]

LINE_EVERY_SECONDS = 10.0
LAST_ENDED, LAST_TROUBLES = 5, 5


def watch_study(look: Callable[[], Standing], every: float) -> None:
    """Show the study until nothing is left to train; what was shown last stays."""
    console = Console(highlight=False)
    if console.is_terminal:
        _live(console, look, every)
    else:
        _lines(look, every)
    print(status_page(look()))


def watch_json(look: Callable[[], Standing], every: float) -> None:
    """One JSON object a line at each look."""
    while True:
        now = look()
        print(json.dumps(status_record(now), allow_nan=False), flush=True)
        if now.ended:
            return
        time.sleep(every)


def _live(console: Console, look: Callable[[], Standing], every: float) -> None:
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while not (now := look()).ended:
            live.update(_screen(now, console.height), refresh=True)
            time.sleep(every)


def _screen(now: Standing, height: int) -> Group:
    """What runs comes first, then what ended last and what went wrong; no more lines than the terminal has."""
    ended = sorted((row for row in now.rows if row.ended_at), key=lambda row: row.ended_at or 0.0)[-LAST_ENDED:]
    shown = [*now.running, *reversed(ended)]
    width = label_width(shown)
    lines = [Text(f"  {run_line(row, width)}", style="bold" if row.state == "running" else "dim") for row in shown]
    for row in now.troubled[-LAST_TROUBLES:]:
        lines += [Text(f"! {line}", style="red") for line in trouble(now, row)]
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    bar = Padding(ProgressBar(total=1.0, completed=now.share, width=40), 0)  # a bar does not end its line by itself
    return Group(Text(f"{now.study}: {facts(now)}"), bar, *lines[: max(height - 4, 1)])


def _lines(look: Callable[[], Standing], every: float) -> None:
    """A line for each run that changed its state or failed, and the study's own now and then."""
    known: dict[str, tuple[str, int]] = {}
    printed = -LINE_EVERY_SECONDS
    while True:
        now = look()
        for row in now.rows:
            before = known.get(row.key)
            known[row.key] = (row.state, row.failures)
            if before is not None and before != known[row.key]:
                print(run_line(row), flush=True)
                if row.error and before[1] != row.failures:
                    print("\n".join(f"! {line}" for line in trouble(now, row)), flush=True)
        if now.ended:
            return
        if time.monotonic() - printed >= LINE_EVERY_SECONDS:
            printed = time.monotonic()
            print(headline(now), flush=True)
        time.sleep(every)
