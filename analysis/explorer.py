"""The forecast explorer: one page on which budget, tokens to serve, price and unique tokens move the recommended point.

It is offline as the report is, so the arithmetic of ``scaling.allocation`` stands once more in
``templates/explorer_law.js``, on the same draws; tests hold the two to the same numbers. Only the forecast of the loss,
which rests on the drift's grid, is worked out here at many computes and read between them there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from analysis.figure_data import draws_of, theta_of
from analysis.offline_page import packed, render_plots
from analysis.plotly_traces import line_trace, marks_trace, new_plot, role_colour, titled
from analysis.study_view import StudyView
from analysis.verdict import verdict
from scaling.allocation import LossSurface, preferred_estimator, repetition_constants
from scaling.fit import Fit
from scaling.fits.irreducible import levels_off_too_early
from scaling.hardware import accelerator
from scaling.laws.chinchilla import CHINCHILLA
from scaling.prediction import predict
from trainer.whole_file import write_whole

__all__ = ["explorer_data", "explorer_html", "refusal", "write_explorer"]

_PER_DECADE = 16
"""Of the loss: between two of them a straight line errs by less than 1e-5 of it."""
_BEYOND = 30.0
"""The budget reaches so many times past the study's question."""


def refusal(view: StudyView) -> str | None:
    """Why there is nothing to explore; None if there is."""
    fit = view.fit
    if view.recommendation is None or view.recommendation.cluster is None:
        return "the study has no recommendation to move"
    if (
        fit.parametric.status == "ok"
        and fit.parametric.law != CHINCHILLA.name
        and preferred_estimator(fit) == "parametric"
    ):
        return f"the explorer knows chinchilla's law, and the fit's is {fit.parametric.law}"
    return None


def write_explorer(view: StudyView, path: Path) -> Path | None:
    """Write the page, whole by rename, and return its path; None where there is nothing to explore."""
    if refusal(view) is not None:
        return None
    write_whole(path, explorer_html(view))
    return path


def explorer_html(view: StudyView) -> str:
    """The page as one HTML document, of a study that ``refusal`` does not refuse."""
    data = explorer_data(view)
    return render_plots(
        "explorer.html",
        "{}",
        "page.js",
        "explorer_law.js",
        "explorer.js",
        view=view,
        verdict=verdict(view),
        level=f"{view.fit.level:.0%}",
        refusal=data["refusal"],
        hardware=data["hardware"],
        data=packed(json.dumps(data, allow_nan=False)),
    )


def explorer_data(view: StudyView) -> dict[str, Any]:
    """What the page reckons with; ``refusal`` says why serving and scarce text can't be, where they can't."""
    fit, made = view.fit, view.recommendation
    assert made is not None
    assert made.cluster is not None
    highest = _BEYOND * max(made.flops, fit.fitted_range.flops[1])
    return {
        "level": fit.level,
        "estimator": preferred_estimator(fit),
        "theta": _rows_of_the_law(fit),
        "flops_per_param_token": fit.flops_per_param_token,
        "levels_off": levels_off_too_early(fit.parametric, fit.drift),
        "refusal": LossSurface.refusal(fit),
        "isoflop": _rows_of_the_lines(fit),
        "loss": _losses(fit, fit.fitted_range.flops[0], highest),
        "repetition": [repetition_constants(key).model_dump() for key in ("muennighoff", "datablations-minimum")],
        "hardware": {
            "accelerator": made.cluster.accelerator,
            "gpus": made.cluster.gpus,
            "peak": accelerator(made.cluster.accelerator).bf16_flops,
            "mfu": made.cluster.mfu.model_dump(),
            "price": made.cluster.price_usd_per_gpu_hour.model_dump(),
        },
        "fitted": fit.fitted_range.model_dump(),
        "recommended": {"flops": made.flops, "params": made.params.model_dump(), "tokens": made.tokens.model_dump()},
        "flops": [fit.fitted_range.flops[0], highest],
        "plot": json.loads(_plot().to_json()),
    }


def _rows_of_the_law(fit: Fit) -> list[list[float]] | None:
    """The constants A, B, E, α, β: the estimate, then the draws."""
    parametric = fit.parametric
    if parametric.status != "ok" or parametric.law != CHINCHILLA.name:
        return None
    return [theta_of(parametric).tolist(), *draws_of(parametric).tolist()]


def _rows_of_the_lines(fit: Fit) -> list[list[float]] | None:
    """ln k and a of N* = k·C^a: the estimate, then the draws."""
    k, a = fit.isoflop.n_coefficient, fit.isoflop.n_exponent
    if fit.isoflop.status != "ok" or k is None or a is None:
        return None
    return [[float(np.log(k.estimate)), a.estimate], *map(list, fit.isoflop.draws)]


def _losses(fit: Fit, lowest: float, highest: float) -> dict[str, list[float | None]] | None:
    """ln of the compute, and of the loss of the compute-optimal run there with its bounds; None without a law."""
    if fit.parametric.status != "ok" or fit.drift.status != "ok":
        return None
    decades = np.log10(highest / lowest)
    flops_S = np.geomspace(lowest, highest, int(np.ceil(decades * _PER_DECADE)) + 1)
    by_law, by_lines = _rows_of_the_law(fit), _rows_of_the_lines(fit)
    if preferred_estimator(fit) == "parametric":
        assert by_law is not None
        params_S, _ = CHINCHILLA.optimum(by_law[0], flops_S)
    else:
        assert by_lines is not None
        params_S = np.exp(by_lines[0][0] + by_lines[0][1] * np.log(flops_S))
    told = [
        predict(fit, params=max(float(n), 1.0), tokens=max(float(c / 6 / n), 1.0), flops=float(c)).loss
        for n, c in zip(params_S, flops_S, strict=True)
    ]
    return {
        "ln_flops": np.log(flops_S).tolist(),
        "estimate": [float(np.log(loss.estimate)) for loss in told],
        "low": [float(np.log(loss.low or loss.estimate)) for loss in told],
        "high": [float(np.log(loss.high or loss.estimate)) for loss in told],
    }


def _plot() -> Any:
    """The plane of N and D, its traces by name and empty: the page's script places them."""
    figure = new_plot(
        titled("parameters N", type="log", exponentformat="power", dtick=1),
        titled("training tokens D", type="log", exponentformat="power", dtick=1),
    )
    hover = "%{x:.3s} parameters on %{y:.3s} tokens"
    lines = (
        ("compute optimum at every budget", "parametric", {"width": 1.6}),
        ("this budget", "published", {"width": 1.2, "dash": "dash"}),
        ("within 0.3% of its loss", "published", {"width": 5}),
    )
    for name, kind, line in lines:
        figure.add_trace(line_trace([], [], role_colour(kind), line=line, name=name, hoverinfo="skip"))
    marks = (
        ("compute-optimal", "parametric", "circle", 12),
        ("if served", "isoflop", "square", 11),
        ("with scarce text", "hold-out", "diamond", 12),
        ("the report’s recommendation", "target", "cross-thin-open", 11),
    )
    for name, kind, symbol, size in marks:
        arms = {"type": "data", "symmetric": False, "array": [], "arrayminus": [], "thickness": 1.5, "width": 4}
        figure.add_trace(
            marks_trace([], [], role_colour(kind), symbol, size, name=name, error_x=arms, error_y=arms,
                        hovertemplate=f"{hover}<extra>{name}</extra>")
        )  # fmt: skip
    return figure
