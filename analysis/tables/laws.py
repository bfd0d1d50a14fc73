"""What was fitted as tables: exponents beside published ones, constants, minima, and the rows left out."""

from __future__ import annotations

from analysis.exponents_data import published_exponents
from analysis.tables.table import Cell, Table, table
from analysis.verdict import loss_interval
from scaling.fit import Fit
from scaling.quantity import format_flops, format_interval

__all__ = ["OPTIMUM_STATUS", "exponents", "law_constants", "minima", "own_exponents", "rejected"]

OPTIMUM_STATUS = {
    "edge": "lowest run at the edge: the minimum lies outside the sizes tried",
    "curvature": "the line has no minimum",
    "too few": "too few runs",
}


def own_exponents(fit: Fit) -> list[list[str]]:
    """By each estimator its name, a, b, and where they are from, or why it was refused."""
    rows = []
    for name, estimator in (("Parametric law (approach 3)", fit.parametric), ("Iso-FLOP (approach 2)", fit.isoflop)):
        if estimator.status == "ok" and estimator.n_exponent is not None and estimator.d_exponent is not None:
            cells = [loss_interval(estimator.n_exponent, 3), loss_interval(estimator.d_exponent, 3)]
            rows.append([name, *cells, "this study"])
        else:
            rows.append([name, "refused", "refused", estimator.reason or ""])
    return rows


def exponents(fit: Fit) -> Table:
    """a and b of N* ~ C^a and D* ~ C^b by each estimator, and by the published laws."""
    rows = own_exponents(fit)
    rows += [
        [law.name, f"{law.n_exponent:.3f}", f"{1 - law.n_exponent:.3f}", law.citation] for law in published_exponents()
    ]
    return table(("Law", "#N* exponent", "#D* exponent", "Source"), rows)


def law_constants(fit: Fit) -> Table:
    """The parametric law's constants; A and B mean nothing alone."""
    symbols = {"alpha": "α", "beta": "β"}
    rows = [
        [
            symbols.get(name, name),
            f"{i.estimate:.4g}",
            "" if i.low is None else f"{i.low:.4g}",
            "" if i.high is None else f"{i.high:.4g}",
        ]
        for name, i in fit.parametric.parameters.items()
    ]
    return table(("Constant", "#Estimate", "#Low", "#High"), rows)


def minima(fit: Fit) -> Table:
    """The optimum of each budget's line, or why it has none."""
    rows: list[list[Cell | str]] = []
    for optimum in fit.isoflop.optima:
        found = optimum.status == "ok" and optimum.params is not None and optimum.loss is not None
        rows.append(
            [
                Cell(format_flops(optimum.flops), optimum.flops),
                str(optimum.runs),
                format_interval(optimum.params) if found and optimum.params else "none",
                format_interval(optimum.tokens) if found and optimum.tokens else "",
                loss_interval(optimum.loss, 3) if found and optimum.loss else OPTIMUM_STATUS.get(optimum.status, ""),
            ]
        )
    return table(("Budget", "#Runs", "#N*", "#D*", "#Loss"), rows)


def rejected(fit: Fit) -> Table:
    return table(("#Row", "Reason"), [[str(row.row), row.reason] for row in fit.observations.rejected])
