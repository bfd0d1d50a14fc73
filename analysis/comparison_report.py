"""Studies side by side in one page: what each recipe is worth in compute, what each found, and what it took."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from analysis.comparison_data import ArmComparison, Multiplier, compare_views
from analysis.figures import comparison
from analysis.figures.gallery import laid_out
from analysis.interactive import Plot, plots_json
from analysis.offline_page import render_plots
from analysis.plotly_comparison import arms_plot, multiplier_plot
from analysis.report import ReportFigure, still
from analysis.study_view import StudyView
from analysis.tables.laws import own_exponents
from analysis.tables.recommendation import configuration
from analysis.tables.table import Table, table
from analysis.verdict import loss_interval, verdict
from scaling.comparison import Comparison
from scaling.errors import UserError
from scaling.quantity import format_count, format_duration, format_flops
from trainer.whole_file import write_whole

__all__ = ["comparison_html", "write_comparison"]


def write_comparison(views: Sequence[StudyView], path: Path, target_flops: float | None = None) -> Path:
    """Write the page to ``path``, whole by rename, and return it."""
    write_whole(path, comparison_html(views, target_flops))
    return path


def comparison_html(views: Sequence[StudyView], target_flops: float | None = None) -> str:
    """The first of ``views`` against each other one, as one HTML document.

    Raises :class:`UserError` where two have one name, or can't be compared (``scaling.comparison``).
    """
    names = [view.name for view in views]
    if len(set(names)) < len(names):
        raise UserError(f"two studies are called {max(names, key=names.count)}: compare studies of different names")
    data = compare_views(views, target_flops)
    made = [
        Plot("comparison", "comparison_arms", arms_plot(data)),
        Plot("comparison", "comparison_multiplier", multiplier_plot(data)),
    ]
    level = f"{data.level:.0%}"
    figure = ReportFigure(
        "comparison",
        comparison.TITLE,
        comparison.CAPTION.format(level=level),
        tuple(plot.name for plot in made),
        still(laid_out(comparison.draw, data), many=False),
    )
    told = [_decisive(data, each) for each in data.multipliers]
    return render_plots(
        "compare.html",
        plots_json(made),
        "page.js",
        title=" and ".join(names),
        sentences=[_sentence(each) for each in told],
        level=level,
        unit=data.unit,
        worth=_worth(told),
        figure=figure,
        exponents=_exponents(views),
        configurations=_configurations(views),
        effort=_effort(views),
        verdicts=[(view.name, verdict(view)) for view in views],
    )


def _decisive(data: ArmComparison, each: Multiplier) -> Comparison:
    """At the target; without one, where the runs that all have end."""
    if each.target is not None:
        return each.target
    last = data.fitted_flops[1]
    return min(each.comparisons, key=lambda told: abs(told.flops / last - 1))


def _sentence(told: Comparison) -> str:
    at, multiplier = format_flops(told.flops), told.compute_multiplier
    reach = "" if told.beyond_orders < 0.1 else f", {told.beyond_orders:.1f} orders of magnitude beyond the runs"
    if not told.decided:
        return (
            f"At {at}{reach}, the runs do not decide between {told.first} and {told.second}: {told.second} is better "
            f"in {told.share_second_better:.0%} of the draws."
        )
    better, worse = (told.second, told.first) if told.share_second_better > 0.5 else (told.first, told.second)
    return (
        f"At {at}{reach}, {better} is better than {worse}: {told.first} needs {_times(multiplier.estimate)} the "
        f"compute for {told.second}'s loss [{_times(multiplier.low)}, {_times(multiplier.high)}]."
    )


def _times(value: float | None) -> str:
    return "no compute" if value is None else f"{value:.3g}×"


def _worth(told: Sequence[Comparison]) -> Table:
    return table(
        ("Study", "#Against", "#At", "#Its loss", "#The other's", "#Compute multiplier", "#Better in"),
        [
            [
                each.second, each.first, format_flops(each.flops), loss_interval(each.loss_second, 4),
                loss_interval(each.loss_first, 4),
                f"{_times(each.compute_multiplier.estimate)} [{_times(each.compute_multiplier.low)}, "
                f"{_times(each.compute_multiplier.high)}]",
                f"{each.share_second_better:.0%} of draws",
            ]
            for each in told
        ],
    )  # fmt: skip


def _exponents(views: Sequence[StudyView]) -> Table:
    rows = [[view.name, *row] for view in views for row in own_exponents(view.fit)]
    return table(("Study", "By", "#N* exponent", "#D* exponent", "Source"), rows)


def _configurations(views: Sequence[StudyView]) -> Table:
    """One column a study; the quantities are those of the first that recommends something."""
    made = [(view.name, configuration(view.recommendation)) for view in views if view.recommendation]
    if not made:
        return table((), ())
    values = [{row[0].text: row[1].text for row in of_one.rows} for _, of_one in made]
    quantities = list(dict.fromkeys(name for each in values for name in each))
    rows = [[name, *(each.get(name, "") for each in values)] for name in quantities]
    return table(("Quantity", *(f"#{name}" for name, _ in made)), rows)


def _effort(views: Sequence[StudyView]) -> Table:
    rows = []
    for view in views:
        runs = view.observations[view.observations["status"] == "finished"]
        rows.append(
            [
                view.name, f"{len(runs)}", format_flops(float(runs[view.flops_column].sum())),
                format_duration(float(runs["wall_seconds"].sum())), format_count(float(runs["tokens"].sum())),
                view.corpus, view.machine,
            ]
        )  # fmt: skip
    columns = ("Study", "#Runs", "#Compute", "#Training time", "#Tokens", "Corpus", "Machine")
    return table(columns, rows)
