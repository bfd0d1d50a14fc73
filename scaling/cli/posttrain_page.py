"""What ``scaling posttrain`` prints: the stages, and the policies side by side. Text in, nothing computed but means."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from statistics import mean, stdev
from typing import Any

from rich.console import Console
from rich.table import Table

from scaling.quantity import format_count, format_duration

__all__ = ["post_training_page"]

_WIDTH = 118
_COLUMNS = {
    "gold": "gold score",
    "gold_gain": "gain",
    "kl_nats": "KL, nats",
    "answer_tokens": "tokens",
    "gold_win_rate": "wins",
    "gold_win_rate_length_controlled": "at equal length",
    "proxy": "reward model",
}


def post_training_page(stages: Sequence[dict[str, Any]]) -> str:
    """``stages``: of each, seed, name, folder and the fields of its :class:`trainer.posttrain.stage.StageResult`."""
    parts = [_stage_table(stages)]
    compared = [stage for stage in stages if stage["kind"] == "compare"]
    parts += [_policies(stage) for stage in compared]
    if len(compared) > 1:
        parts.append(_over_seeds(compared))
    parts += [f"answers   {stage['folder']}/rows.jsonl (seed {stage['seed']})" for stage in compared]
    return "\n".join(parts)


def _stage_table(stages: Sequence[dict[str, Any]]) -> str:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("stage", "seed", "took", "what it found"):
        table.add_column(name, justify="right" if name in ("seed", "took") else "left")
    for stage in stages:
        if stage["kind"] != "compare":
            table.add_row(stage["stage"], str(stage["seed"]), format_duration(stage["seconds"]), _found(stage))
    return _drawn(table)


def _found(stage: dict[str, Any]) -> str:
    metrics, intervals = stage["metrics"], stage["intervals"]
    match stage["kind"]:
        case "sft":
            return (
                f"{format_count(metrics['examples'])} examples; held-out loss "
                f"{metrics['held_out_loss_nats_before']:.3f} → {metrics['held_out_loss_nats']:.3f} nats a token, "
                f"{metrics['held_out_bits_per_byte']:.3f} bits a byte"
            )
        case "pairs":
            return f"{metrics['pairs']:,.0f} pairs; the chosen is the longer in {metrics['chosen_longer_share']:.0%}"
        case "reward":
            return (
                f"right on {_range(metrics['accuracy'], intervals['accuracy'], '.1%')} of "
                f"{metrics['held_out_pairs']:,.0f} held-out pairs; the longer would be on "
                f"{metrics['length_accuracy']:.1%}"
            )
        case "best_of_n":
            gold = f"; gold {_range(metrics['gold'], intervals['gold'], '.3f')}" if "gold" in metrics else ""
            return f"best of {stage['steps']} on {metrics['prompts']:,.0f} prompts, {metrics['kl_nats']:.2f} nats{gold}"
        case _:
            count = "pairs" if "pairs" in metrics else "prompts"
            return f"{metrics[count]:,.0f} {count}, {stage['steps']:,} steps"


def _policies(stage: dict[str, Any]) -> str:
    metrics, intervals = stage["metrics"], stage["intervals"]
    names = list(dict.fromkeys(name.partition("/")[0] for name in metrics if "/" in name))
    shown = [what for what in _COLUMNS if any(f"{name}/{what}" in metrics for name in names)]
    about = f"{metrics['prompts']:,.0f} held-out prompts, seed {stage['seed']}"
    table = Table(
        title=f"{about}; {stage['level']:.0%} intervals over prompts",
        title_justify="left",
        title_style="",
        box=None,
        pad_edge=False,
        header_style="bold",
    )
    table.add_column("policy")
    for what in shown:
        table.add_column(_COLUMNS[what], justify="right")
    for name in names:
        cells = []
        for what in shown:
            key = f"{name}/{what}"
            spec = ".0%" if "win_rate" in what else ".0f" if what == "answer_tokens" else ".3f"
            cells.append(_give_or_take(metrics[key], intervals.get(key), spec) if key in metrics else "–")
        table.add_row(name, *cells)
    return "\n" + _drawn(table)


def _over_seeds(compared: Sequence[dict[str, Any]]) -> str:
    lines = [f"\nover {len(compared)} seeds (mean ± standard deviation)"]
    keys = [key for key in compared[0]["metrics"] if key.endswith("/gold_gain")]
    for key in keys:
        name = key.partition("/")[0]
        gains = [stage["metrics"][key] for stage in compared]
        kl = [stage["metrics"][f"{name}/kl_nats"] for stage in compared]
        up = sum(gain > 0 for gain in gains)
        lines.append(
            f"{name:<9} gain {mean(gains):+.3f} ± {stdev(gains):.3f} at a KL of {mean(kl):.2f} ± {stdev(kl):.2f} nats; "
            f"up in {up} of {len(gains)}"
        )
    return "\n".join(lines) + "\n"


def _range(estimate: float, interval: dict[str, Any] | None, spec: str) -> str:
    if interval is None:
        return format(estimate, spec)
    return f"{estimate:{spec}} [{interval['low']:{spec}}, {interval['high']:{spec}}]"


def _give_or_take(estimate: float, interval: dict[str, Any] | None, spec: str) -> str:
    """In a table of many columns: half the interval's width; both ends are in the stage's result."""
    if interval is None:
        return format(estimate, spec)
    return f"{estimate:{spec}} ± {(interval['high'] - interval['low']) / 2:{spec}}"


def _drawn(table: Table) -> str:
    text = StringIO()
    Console(file=text, width=_WIDTH, highlight=False).print(table)
    return text.getvalue().rstrip()
