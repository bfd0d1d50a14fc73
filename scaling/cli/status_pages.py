"""What the commands print about runs: how a study stands, and what would be trained. Text in, nothing computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from scaling.quantity import format_count, format_duration

if TYPE_CHECKING:
    from sweeps.agenda import AgendaItem
    from sweeps.ledger.ledger import RunRow
    from sweeps.standing import Standing

__all__ = [
    "dry_run_page",
    "dry_run_record",
    "facts",
    "headline",
    "label_width",
    "run_line",
    "status_page",
    "status_record",
    "trouble",
]

SHOWN = 200


def status_record(now: Standing) -> dict[str, Any]:
    return {
        "study": now.study,
        "states": now.states,
        "to_come": now.coming,
        "share": now.share,
        "tokens_per_second": now.tokens_per_second,
        "seconds_left": now.seconds_left,
        "runs": [
            {
                "run_key": row.key,
                "stage": row.stage,
                "label": row.label,
                "state": row.state,
                "step": row.step,
                "share": row.share,
                "loss": row.loss,
                "tokens_per_second": row.tokens_per_second,
                "flops": row.flops,
                "carrier": row.carrier,
                "failures": row.failures,
                "error": row.error,
                "log": str(now.logs[row.key]) if row.key in now.logs else None,
            }
            for row in now.rows
        ],
    }


def status_page(now: Standing, *, everything: bool = False) -> str:
    """The study's line, each run's (of a large study those that run or have failed), and why runs failed."""
    lines = [headline(now)]
    whole = everything or len(now.rows) <= SHOWN
    shown = now.rows if whole else [row for row in now.rows if row.state not in ("planned", "finished")]
    listed = shown if everything else shown[:SHOWN]
    lines += [f"  {run_line(row, label_width(listed))}" for row in listed]
    if len(shown) < len(now.rows) or (not everything and len(shown) > SHOWN):
        lines.append(f"  {len(now.rows):,} runs in all: --all lists each")
    troubled = now.troubled if everything else now.troubled[:SHOWN]
    for row in troubled:
        lines += [f"! {line}" if at == 0 else f"  {line}" for at, line in enumerate(trouble(now, row))]
    return "\n".join(lines)


def headline(now: Standing) -> str:
    """``quickstart: 12 finished, 2 running · 61% · 84k tok/s · 3 min 20 s left``."""
    return f"{now.study}: {facts(now)}"


def facts(now: Standing) -> str:
    states = ", ".join(f"{count} {state}" for state, count in sorted(now.states.items())) or "nothing planned yet"
    found = [states]
    if now.rows:
        found.append(f"{now.share:.0%}")
    if now.running:
        found.append(f"{format_count(now.tokens_per_second)} tok/s")
    if now.seconds_left is not None:
        verb = "left" if now.running else "to train"
        found.append(f"about {format_duration(now.seconds_left)} {verb}")
    if now.coming:
        found.append("to come: " + ", ".join(f"{runs} {stage}" for stage, runs in now.coming.items()))
    return " · ".join(found)


def label_width(rows: Sequence[RunRow]) -> int:
    return max((len(printable(row.label)) for row in rows), default=0)


def run_line(row: RunRow, label_width: int = 38) -> str:
    loss = f"loss {row.loss:.4f}" if row.loss is not None else ""
    rate = f"{format_count(row.tokens_per_second)} tok/s" if row.state == "running" and row.tokens_per_second else ""
    about = f"{row.key[:8]} {row.stage:<8} {printable(row.label):<{label_width}} {row.state:<9}"
    return f"{about} {row.share:>4.0%}  {loss:<11}  {rate}".rstrip()


def trouble(now: Standing, row: RunRow) -> list[str]:
    """Why the run failed or ended without a loss, and where its log lies."""
    reason = printable(row.error) if row.error else "its loss was not finite"
    times = f" ({row.failures} of its failures counted)" if row.failures else ""
    log = [f"log: {now.logs[row.key]}"] if row.key in now.logs else []
    return [f"{row.key[:8]} {printable(row.label)} {row.state}{times}: {reason}", *log]


def printable(text: str) -> str:
    """``text`` in one line, without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def dry_run_record(study: str, items: Sequence[AgendaItem]) -> dict[str, Any]:
    return {
        "study": study,
        "to_train": sum(item.action == "train" for item in items),
        "seconds": sum(item.seconds for item in items if item.action == "train"),
        "runs": [item._asdict() | {"action": item.action} for item in items],
    }


def dry_run_page(study: str, items: Sequence[AgendaItem]) -> str:
    counts = Counter(item.action for item in items)
    seconds = sum(item.seconds for item in items if item.action == "train")
    summary = ", ".join(f"{count} {action}" for action, count in counts.items())
    lines = [f"{study}: {summary}; about {format_duration(seconds)} of one worker's time. Nothing was trained"]
    lines += [
        f"  {(item.key or 'by probe')[:8]} {item.stage:<8} {item.label:<38} {format_duration(item.seconds):>12}  "
        f"{item.action}"
        for item in items
    ]
    return "\n".join(lines)
