"""The report: one HTML file that opens anywhere without a network, prints, and reads on a phone.

Interactive figures are drawn by Plotly, inlined once; where scripts don't run, and on paper, the printed figures stand
in their place.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from analysis.explorer import refusal as explorer_refusal
from analysis.figures.gallery import FIGURES, figure_bytes, rendered
from analysis.interactive import plots, plots_json
from analysis.offline_page import data_uri, render_plots
from analysis.recommendation_yaml import recommendation_yaml
from analysis.study_view import StudyView
from analysis.tables.forecasts import back_test, larger_runs, outcome_rows
from analysis.tables.hyperparameters import hyperparameters
from analysis.tables.laws import OPTIMUM_STATUS, exponents, law_constants, minima, rejected
from analysis.tables.recommendation import alternatives, configuration, post_training
from analysis.tables.runs import plan, runs
from analysis.verdict import bounds, forecast_sentence, larger_runs_sentence, percent, range_text, verdict
from scaling.fit import Diagnostic
from scaling.quantity import format_count
from scaling.record import Interval
from trainer.whole_file import write_whole

__all__ = ["ReportFigure", "report_html", "still", "write_report"]

_HEAVY_SVG = 100_000
_MANY_RUNS = 150
"""Of which nearly every figure is too heavy: none is drawn as SVG first."""
_FRONTIER_FIGURES = ("loss_against_compute", "surface", "isoflop", "allocation", "exponents")
_DIAGNOSIS_FIGURES = ("residuals", "influence", "profiles")
_PARAMS_WORDS = {
    "total": "all parameters",
    "nonembedding": "parameters without embeddings",
    "with-head": "with the head",
}
_FLOPS_WORDS = {"exact": "exact FLOPs of the architecture", "6nd": "6 N D"}


@dataclass(frozen=True)
class ReportFigure:
    name: str
    title: str
    caption: str
    plots: tuple[str, ...]
    still: str


@dataclass(frozen=True)
class _Tile:
    label: str
    value: str
    range: str


def write_report(view: StudyView, path: Path) -> Path:
    """Write the report to ``path``, whole by rename, and return it."""
    write_whole(path, report_html(view))
    return path


def report_html(view: StudyView) -> str:
    """The whole report as one HTML document under 6 MB."""
    made = view.once(plots)
    level = f"{view.fit.level:.0%}"
    many = len(view.observations) > _MANY_RUNS
    stills = {kind.name: still(figure, many=many) for kind, figure in rendered(view)}
    figures = {
        kind.name: ReportFigure(
            kind.name,
            kind.title,
            kind.caption.format(level=level),
            tuple(plot.name for plot in made if plot.kind == kind.name),
            stills[kind.name],
        )
        for kind in FIGURES
        if kind.name in stills
    }
    recommendation = view.recommendation
    return render_plots(
        "report.html",
        plots_json(made),
        "page.js",
        view=view,
        explorer=explorer_refusal(view) is None,
        level=level,
        verdict=verdict(view),
        record=forecast_sentence(view),
        larger_record=larger_runs_sentence(view),
        tiles=_tiles(view),
        figures=[figures[name] for name in _FRONTIER_FIGURES if name in figures],
        predicted=figures.get("predicted_actual"),
        coverage=figures.get("coverage"),
        cost=figures.get("cost"),
        makespan=figures.get("makespan"),
        valleys=figures.get("hyperparameters"),
        hyperparameters=hyperparameters(view),
        rates_basis=view.learning_rates.basis if view.learning_rates else "",
        diagnosis=[figures[name] for name in _DIAGNOSIS_FIGURES if name in figures],
        outcome=outcome_rows(view),
        larger=larger_runs(view),
        back_test=back_test(view.fit),
        exponents=exponents(view.fit),
        constants=law_constants(view.fit),
        minima=minima(view.fit),
        findings=_findings(view),
        rejected=rejected(view.fit),
        configuration=configuration(recommendation) if recommendation else None,
        post_training=post_training(recommendation) if recommendation else None,
        alternatives=alternatives(recommendation) if recommendation else None,
        yaml=recommendation_yaml(recommendation) if recommendation else "",
        plan=plan(view),
        runs=runs(view),
        conventions=f"N counts {_PARAMS_WORDS[view.fit.params_convention]}; "
        f"C is {_FLOPS_WORDS[view.fit.flops_convention]}",
    )


def still(figure: Figure, *, many: bool) -> str:
    """The figure for paper: SVG, or WebP where hundreds of marks make an SVG too heavy for the page."""
    svg = b"" if many else figure_bytes(figure, "svg")
    return data_uri(svg, "svg") if 0 < len(svg) < _HEAVY_SVG else data_uri(figure_bytes(figure, "webp"), "webp")


def _tile(label: str, interval: Interval | None) -> list[_Tile]:
    if interval is None:
        return []
    return [_Tile(label, format_count(interval.estimate), range_text(interval.low, interval.high))]


def _tiles(view: StudyView) -> list[_Tile]:
    """The four numbers people look for; fewer where the study has fewer."""
    tiles = []
    made = view.recommendation
    if made is not None:
        tiles += _tile("Parameters", made.params) + _tile("Training tokens", made.tokens)
        if made.loss is not None:
            tiles.append(_Tile("Expected loss, nats/token", f"{made.loss.estimate:.2f}", bounds(made.loss)))
    else:
        for label, interval in (
            ("N* exponent", view.fit.parametric.n_exponent),
            ("by iso-FLOP", view.fit.isoflop.n_exponent),
        ):
            if interval is not None:
                tiles.append(_Tile(label, f"{interval.estimate:.2f}", bounds(interval)))
    if view.outcome is not None:
        inside = "inside its interval" if view.outcome.inside else "outside its interval"
        tiles.append(_Tile("Hold-out forecast error", percent(view.outcome.relative_error), inside))
    return tiles


def _findings(view: StudyView) -> list[Diagnostic]:
    """Refusals first, then warnings, then notes; with them what the recommendation and the study warn of."""
    fit = view.fit
    found = list(fit.diagnostics)
    known = {finding.message for finding in found}
    for name, estimator in (("parametric law", fit.parametric), ("iso-FLOP fit", fit.isoflop)):
        if estimator.status == "refused" and not any((estimator.reason or "") in message for message in known):
            found.append(Diagnostic(severity="refusal", code="refused", message=f"{name}: {estimator.reason}"))
    for optimum in fit.isoflop.optima:
        if optimum.status != "ok":
            words = OPTIMUM_STATUS[optimum.status]
            message = f"the iso-FLOP line at {optimum.flops:.2g} FLOPs is left out: {words}"
            found.append(Diagnostic(severity="warning", code="optimum", message=message))
    warnings = view.recommendation.warnings if view.recommendation else ()
    found += [Diagnostic(severity="warning", code="recommendation", message=text) for text in warnings]
    found += [Diagnostic(severity="note", code="study", message=text) for text in view.notes]
    order = ("refusal", "warning", "note")
    return sorted(found, key=lambda finding: order.index(finding.severity))
