"""A study in Markdown, as MLflow shows it at the top of the study's run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from analysis.best_runs import best_at_each_budget
from analysis.explorer import refusal
from analysis.saved_views import saved_views
from analysis.study_view import StudyView
from analysis.verdict import forecast_sentence, larger_runs_sentence, loss_interval, verdict
from scaling.quantity import format_count, format_flops, format_interval

__all__ = ["Pages", "description"]

_BUDGETS_LISTED = 12
_FILES = {
    "report.html": "report",
    "curves.html": "figures to zoom into",
    "explorer.html": "forecast explorer",
    "recommendation.yaml": "recommendation.yaml",
}


@dataclass(frozen=True)
class Pages:
    """Where MLflow's own pages of an experiment's runs are."""

    experiment_id: str
    run_id: str
    children: Mapping[str, str] = field(default_factory=dict)
    """MLflow run by run key."""

    def run(self, run_id: str) -> str:
        return f"#/experiments/{self.experiment_id}/runs/{run_id}"

    def artifact(self, path: str) -> str:
        return f"{self.run(self.run_id)}/artifacts/{path}"


def description(view: StudyView, pages: Pages | None = None) -> str:
    """Verdict, forecast against outcome, question, recommended configuration, the best run at each budget.

    MLflow shows the first three or four lines until it is asked for more: there the verdict stands. With ``pages``,
    runs, files and views of the run list are links that work in MLflow.
    """
    made, answer = view.recommendation, f"**{_plain(verdict(view))}**"
    if made is not None and made.illustration:
        orders = f"{made.extrapolation_orders:.1f}"
        answer += f" Illustration, not advice: {orders} orders of magnitude beyond the fitted runs."
    lines = [answer, ""]
    for record in (forecast_sentence(view), larger_runs_sentence(view)):
        if record is not None:
            lines += [record, ""]
    lines += [f"**{_plain(view.name)}** {_plain(view.question)}", ""]
    if pages is None:
        lines += ["Open `report.html` and `curves.html` under Artifacts.", ""]
    else:
        links = [
            f"[{text}]({pages.artifact(path)})"
            for path, text in _FILES.items()
            if {"recommendation.yaml": made is not None, "explorer.html": refusal(view) is None}.get(path, True)
        ]
        lines += ["Open: " + " · ".join(links), ""]
        views = [f"[{each.name}]({each.address(pages.experiment_id)})" for each in saved_views()]
        lines += ["Runs and charts (also under *Views* in the run list): " + " · ".join(views), ""]
    lines += [*_configuration(view), *_best(view, pages)]
    lines.append(f"Intervals at {view.fit.level:.0%}.")
    if view.reproduce_command:
        lines += ["", f"Reproduce: `{view.reproduce_command}`"]
    return "\n".join(lines)


def _configuration(view: StudyView) -> list[str]:
    made = view.recommendation
    if made is None:
        return []
    shape, loss = made.shape, made.loss
    rows = {
        "compute": format_flops(made.flops),
        "parameters": format_interval(made.params),
        "tokens": format_interval(made.tokens),
        "loss": f"{loss_interval(loss)} nats per token" if loss else "no law to predict it",
        "shape": f"{shape.layers} layers × {shape.width}, {shape.heads} heads, vocabulary {shape.vocabulary:,}",
        "learning rate": f"{made.learning_rate.estimate:.2g}",
        "batch": f"{format_count(made.global_batch_tokens)} tokens",
    }
    return ["| recommended | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items()), ""]


def _best(view: StudyView, pages: Pages | None) -> list[str]:
    """The best run at each of the largest budgets."""
    best = best_at_each_budget(view)[-_BUDGETS_LISTED:]
    if not best:
        return []
    lines = ["| budget | best of | parameters | tokens | loss |", "|---|---|---|---|---|"]
    for run in best:
        there = pages.children.get(run.run_key) if pages is not None else None
        size = format_count(run.params)
        named = f"[{size}]({pages.run(there)})" if pages is not None and there is not None else size
        lines.append(
            f"| {format_flops(run.flops)} | {run.runs} | {named} | {format_count(run.tokens)} | {run.loss:.3f} |"
        )
    return [*lines, ""]


def _plain(text: str) -> str:
    """``text`` without the characters that Markdown or HTML would act on."""
    for character in "\\`*_[]|#":
        text = text.replace(character, "\\" + character)
    return text.replace("<", "&lt;").replace(">", "&gt;")
