"""The page of a post-training: what it did to the score, at what divergence and length, and what answers look like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from analysis.figures import over_optimisation as printed_over_optimisation
from analysis.figures import win_rates as printed_win_rates
from analysis.figures.gallery import laid_out
from analysis.interactive import Plot, plots_json
from analysis.offline_page import render_plots
from analysis.plotly_over_optimisation import over_optimisation_plots
from analysis.plotly_win_rates import lengths_plot, rates_plot
from analysis.post_training_data import PolicyRow, PostTrainingView
from analysis.report import ReportFigure, still
from analysis.tables.table import Cell, Table, table
from scaling.quantity import format_duration
from trainer.whole_file import write_whole

__all__ = ["post_training_html", "write_post_training"]

_COLUMNS = (
    ("gold", "#Gold score", ".3f"),
    ("gold_gain", "#Gain", "+.3f"),
    ("proxy", "#Reward model", ".3f"),
    ("kl_nats", "#KL, nats", ".2f"),
    ("answer_tokens", "#Tokens", ".0f"),
    ("truncated_share", "#Cut off", ".0%"),
    ("gold_win_rate", "#Wins", ".0%"),
    ("gold_win_rate_length_controlled", "#At equal length", ".0%"),
)


def write_post_training(view: PostTrainingView, path: Path, command: str) -> Path:
    """Write the page to ``path``, whole by rename, and return it; ``command`` is what made it."""
    write_whole(path, post_training_html(view, command))
    return path


def post_training_html(view: PostTrainingView, command: str) -> str:
    """The page as one HTML document; ``command`` is shown as how to make it again."""
    made, figures = [], []
    if view.over_optimised is not None:
        data = view.over_optimised
        plots = [
            Plot("over_optimisation", f"over_optimisation_{i}", plot)
            for i, plot in enumerate(over_optimisation_plots(data).values())
        ]
        made += plots
        figures.append(_figure(printed_over_optimisation, "over_optimisation", plots, data))
    if view.wins is not None:
        plots = [
            Plot("win_rates", "win_rates_rates", rates_plot(view.wins)),
            Plot("win_rates", "win_rates_lengths", lengths_plot(view.wins)),
        ]
        made += plots
        figures.append(_figure(printed_win_rates, "win_rates", plots, view.wins))
    return render_plots(
        "posttrain.html",
        plots_json(made),
        "page.js",
        title=view.name,
        sentences=_sentences(view),
        level=f"{view.level:.0%}",
        baseline=view.baseline,
        policies=_policies(view),
        figures=figures,
        laws=_laws(view),
        stages=_stages(view),
        samples=_samples(view),
        notes=[f"{stage} (seed {seed}): {note}" for seed, stage, _, result in view.stages for note in result.notes],
        command=command,
    )


def _figure(printed: Any, name: str, plots: list[Plot], data: Any) -> ReportFigure:
    """``printed``: the module that draws ``data`` for paper."""
    caption = printed.CAPTION.format(level=f"{data.level:.0%}")
    drawn = still(laid_out(printed.draw, data), many=False)
    return ReportFigure(name, printed.TITLE, caption, tuple(plot.name for plot in plots), drawn)


def _sentences(view: PostTrainingView) -> list[str]:
    """A sentence a policy: over all seeds where there are several, else with the interval of the one."""
    told = []
    for policy in dict.fromkeys(row.policy for row in view.policies):
        rows = [row for row in view.policies if row.policy == policy]
        if policy in ("base", view.baseline) or any(row.value("gold_gain") is None for row in rows):
            continue
        told.append(_sentence(policy, rows, view.baseline))
    return told


def _sentence(policy: str, rows: list[PolicyRow], baseline: str) -> str:
    def mean(what: str) -> float:
        return sum(row.value(what) or 0.0 for row in rows) / len(rows)

    gain = mean("gold_gain")
    decided = [row for row in rows if (row.bounds("gold_gain")[0] or 0) > 0 or (row.bounds("gold_gain")[1] or 0) < 0]
    verb = "raised" if gain > 0 else "lowered"
    if len(rows) == 1:
        low, high = rows[0].bounds("gold_gain")
        clear = "" if decided else ", which these prompts do not tell from nothing"
        seeds = f"[{low:+.3f}, {high:+.3f}]{clear}"
    else:
        up = sum((row.value("gold_gain") or 0) > 0 for row in rows)
        seeds = f"on average, up in {up} of {len(rows)} seeds and clearly one way in {len(decided)}"
    return (
        f"{policy} {verb} {baseline}'s gold score by {gain:+.3f} {seeds}, at a KL of {mean('kl_nats'):.2f} nats and "
        f"{mean('answer_tokens'):.0f} tokens an answer."
    )


def _policies(view: PostTrainingView) -> Table:
    shown = [column for column in _COLUMNS if any(row.value(column[0]) is not None for row in view.policies)]
    rows = []
    for row in view.policies:
        cells = [Cell(row.policy), Cell(str(row.seed), row.seed)]
        for what, _, spec in shown:
            value, (low, high) = row.value(what), row.bounds(what)
            if value is None:
                cells.append(Cell("–"))
            else:
                span = "" if low is None or high is None else f" [{low:{spec}}, {high:{spec}}]"
                cells.append(Cell(f"{value:{spec}}{span}", value))
        rows.append(cells)
    return table(("Policy", "#Seed", *(title for _, title, _ in shown)), rows)


def _laws(view: PostTrainingView) -> list[tuple[str, str]]:
    """Each method and its law in words, or why there is none."""
    if view.over_optimised is None:
        return []
    return [(curve.method, curve.fit.summary()) for curve in view.over_optimised.curves]


def _stages(view: PostTrainingView) -> Table:
    rows = [
        [
            Cell(stage),
            Cell(str(seed), seed),
            Cell(format_duration(result.seconds), result.seconds),
            Cell(f"{result.steps:,}", result.steps),
            Cell(folder.path.name),
        ]
        for seed, stage, folder, result in view.stages
    ]
    return table(("Stage", "#Seed", "#Took", "#Steps", "Folder"), rows)


def _samples(view: PostTrainingView) -> Table:
    rows = [
        [
            Cell(each.policy),
            Cell(each.prompt),
            Cell(each.answer),
            Cell(each.before),
            Cell(f"{each.gain:+.2f}", each.gain),
        ]
        for each in view.samples
    ]
    return table(("Policy", "Prompt", "Its answer", f"{view.baseline}'s", "#Gain"), rows)
