"""Forecasts beside what came of them: the hold-out's, larger runs', and what the back-test says of them all."""

from __future__ import annotations

from analysis.study_view import LargerRun, StudyView
from analysis.tables.table import Cell, Table, table
from analysis.verdict import loss_interval, percent
from scaling.fit import Fit
from scaling.quantity import format_count, format_flops

__all__ = ["back_test", "larger_runs", "outcome_rows"]


def outcome_rows(view: StudyView) -> Table | None:
    """The registered forecast beside what was measured; None without a forecast."""
    forecast, outcome = view.forecast, view.outcome
    if forecast is None:
        return None
    rows: list[list[Cell | str]] = [
        [
            "Compute",
            format_flops(forecast.flops),
            f"{forecast.flops / view.fit.fitted_range.flops[1]:.3g} × the largest fitted run",
        ],
        [
            "Parameters",
            f"{format_count(forecast.params.estimate)} on {format_count(forecast.tokens.estimate)} tokens",
            "",
        ],
        ["Predicted loss", loss_interval(forecast.loss, 4), f"{forecast.level:.0%} interval"],
    ]
    if outcome is not None:
        replicates = len(outcome.run_keys)
        spread = "" if outcome.loss_spread is None else f", SD between them {outcome.loss_spread:.4f}"
        rows += [
            [
                "Measured loss",
                f"{outcome.loss:.4f}",
                f"mean of {replicates} runs{spread}" if replicates > 1 else "one run",
            ],
            ["Predicted/actual − 1", percent(outcome.relative_error), "inside" if outcome.inside else "outside"],
        ]
    return table(("Quantity", "Value", "Remark"), rows)


def larger_runs(view: StudyView) -> Table:
    """Each forecast of a rung or a large run beside what was measured, the smallest first."""
    rows: list[list[Cell | str]] = []
    for run in view.larger:
        forecast, outcome = run.forecast, run.outcome
        measured = ["", ""] if outcome is None else [f"{outcome.loss:.4f}", percent(outcome.relative_error)]
        rows.append(
            [
                run.label,
                Cell(format_flops(forecast.flops), forecast.flops),
                f"{10**forecast.extrapolation_orders:.2g} ×",
                loss_interval(forecast.loss, 4),
                *measured,
                _came(run),
            ]
        )
    return table(
        ("Run", "#Compute", "#Beyond its fit", "#Predicted loss", "#Measured", "#Predicted/actual − 1", "Interval"),
        rows,
    )


def _came(run: LargerRun) -> str:
    if run.problems:
        return f"not believed: {'; '.join(run.problems)}"
    if run.outcome is None:
        return run.without_outcome
    return "inside" if run.outcome.inside else "outside"


def back_test(fit: Fit) -> Table:
    """The largest budgets left out and predicted from those below, by the forecast and by the law alone."""
    rows: list[list[Cell | str]] = [
        [
            Cell(format_flops(cut.largest_fitted_flops), cut.largest_fitted_flops),
            str(cut.fitted),
            f"{10**cut.extrapolation_orders:.1f} times",
            f"{cut.rms_error:.2%}",
            f"{cut.rms_error_plain_law:.2%}",
            f"{cut.inside} of {cut.predicted}",
        ]
        for cut in fit.drift.back_test or ()
    ]
    columns = ("Fitted below", "#Runs", "#Predicted up to", "#rms error", "#The law alone", f"#Inside {fit.level:.0%}")
    return table(columns, rows)
