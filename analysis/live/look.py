"""One study as the live page shows it: how it stands, its curves, what they say so far, and what failed.

Every look reads the ledger and the study's folder, which workers and the conducting process write meanwhile; nothing is
written here. Before the plan is frozen there is nothing to read, and the page says so.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sqlalchemy.exc import OperationalError

from analysis.figure_data import HoldOut, LossAgainstCompute, loss_curves
from analysis.interactive import Plot, plots_json
from analysis.live.curves import GrowingCurves
from analysis.live.interim import Interim, InterimFit, interim
from analysis.plotly_figures import allocation_plot, isoflop_plot, loss_against_compute_plot
from analysis.verdict import bounds
from scaling import architectures
from scaling.errors import UserError
from scaling.fit import Fit
from scaling.quantity import format_count, format_duration, format_flops
from sweeps.ledger.ledger import ENDED, Ledger, RunRow
from sweeps.observations import observations
from sweeps.planning.plan import Plan
from sweeps.standing import Standing, standing
from sweeps.workspace import Workspace

__all__ = ["PAGES", "LiveStudy"]

PAGES = {"report.html": "the report", "explorer.html": "the forecast explorer", "curves.html": "the figures"}
"""What a finished study has to read, by file name."""
_LATELY = 6
_TROUBLES = 50
_WORTH_SEEING = 1.45
"""Curves are shown from so many times the lowest loss downwards: their beginnings are all alike."""


class LiveStudy:
    """The study called ``name`` in the workspace ``root``, looked at as often as one likes, from any thread."""

    def __init__(self, name: str, root: Path) -> None:
        self.name, self._root = name, root
        self._lock = threading.Lock()
        self._ledger: Ledger | None = None
        self._curves = GrowingCurves()
        self._fit = InterimFit(name)
        self._own: Interim | None = None
        self._sizes: dict[str, float] = {}
        self._plan: Plan | None = None
        self._rows: list[RunRow] = []
        self._finished: tuple[str, ...] | None = None
        self._table: pd.DataFrame | None = None
        self._drawn: tuple[tuple[int, int, bool], str] | None = None

    @property
    def folder(self) -> Path:
        return self._root.resolve() / "studies" / self.name

    def state(self) -> dict[str, Any]:
        """Everything but the figures, ready for JSON."""
        with self._lock:
            try:
                now = self._standing()
            except (UserError, OperationalError) as error:
                return self._plain("fault", f"The ledger can't be read: {str(error).splitlines()[0]}")
            if now is None:
                return self._plain(
                    "waiting", "The study has no plan yet. This page begins by itself once `scaling run` has frozen it."
                )
            self._rows = now.rows
            self._look(now)
            return self._told(now)

    def figures(self) -> str:
        """The figures as ``templates/plots.js`` draws them, as JSON."""
        with self._lock:
            known = self._version()
            if self._drawn is None or self._drawn[0] != known:
                self._drawn = known, plots_json(self._plots())
            return self._drawn[1]

    def _standing(self) -> Standing | None:
        """None before the study's plan is frozen. Nothing is created: a ledger made here would bind the workspace."""
        if self._ledger is None:
            if not ((self._root / "ledger.db").is_file() or (self._root / "ledger.url").is_file()):
                return None
            self._ledger = Ledger(Workspace(self._root).ledger_url)
        if self._ledger.plan_of(self.name) is None:
            return None
        return standing(self._ledger, Workspace(self._root), self.name)

    def _look(self, now: Standing) -> None:
        """Read new points, and fit again where another run has ended."""
        assert self._ledger is not None
        self._curves.look(self._ledger, now.rows)
        finished = tuple(row.key for row in now.rows if row.state in ENDED)
        if finished != self._finished:
            self._finished = finished
            frozen = self._ledger.plan_of(self.name)
            assert frozen is not None
            self._plan = Plan.model_validate(frozen[1])
            self._table = observations(self._ledger, self.name, self._plan)
        own = self._own_fit(now)
        if own is not None:
            self._own = own
        elif self._table is not None:
            self._fit.update(self._table)

    def _own_fit(self, now: Standing) -> Interim | None:
        """The study's own fit, once all of its sweep has ended and it is written."""
        if self._own is not None:
            return self._own
        sweep = [row for row in now.rows if row.stage == "sweep"]
        path = self.folder / "fit.json"
        if not sweep or any(row.state not in ENDED for row in sweep) or not path.is_file() or self._table is None:
            return None
        if path.stat().st_mtime < max(row.ended_at or 0.0 for row in sweep):
            return None
        return interim(self.name, self._table, Fit.model_validate_json(path.read_bytes()))

    def _version(self) -> tuple[int, int, bool]:
        return self._curves.version, self._fit.version, self._own is not None

    @property
    def _newest(self) -> Interim | None:
        return self._own or self._fit.newest

    # What is shown

    def _plain(self, phase: str, words: str) -> dict[str, Any]:
        return {"study": self.name, "phase": phase, "words": words, "share": None, "facts": [], "running": [],
                "lately": [], "troubles": [], "fit": None, "figures": "", "pages": []}  # fmt: skip

    def _told(self, now: Standing) -> dict[str, Any]:
        phase, words = self._phase(now)
        ended = sorted((row for row in now.rows if row.ended_at), key=lambda row: row.ended_at or 0.0)
        return {
            "study": self.name,
            "phase": phase,
            "words": words,
            "share": now.share,
            "seconds_left": now.seconds_left,
            "states": now.states,
            "to_come": now.coming,
            "facts": _facts(now),
            "running": [_line(row) for row in now.running],
            "lately": [_line(row) for row in reversed(ended[-_LATELY:])],
            "troubles": [
                {
                    "run": f"{row.key[:8]} {row.label}",
                    "state": row.state,
                    "reason": row.error or "its loss was not finite",
                    "log": str(now.logs.get(row.key, "")),
                }
                for row in now.troubled[-_TROUBLES:]
            ],
            "fit": self._fit_told(),
            "figures": "-".join(str(part) for part in self._version()),
            "pages": self._pages(now) if phase == "ended" else [],
        }

    def _phase(self, now: Standing) -> tuple[str, str]:
        if now.ended and not now.coming:
            return "ended", "The study has ended: nothing is left to be trained." + _waiting(len(now.waiting))
        if now.running:
            runs = len(now.running)
            return "running", f"{runs} run{'s are' if runs > 1 else ' is'} being trained."
        return "between", (
            "Nothing is being trained at this moment: the study is between two stages, or it was stopped, and "
            "`scaling run` goes on with it."
        )

    def _pages(self, now: Standing) -> list[dict[str, str]]:
        """The pages that were written after the last run had ended."""
        last = max((row.ended_at or 0.0 for row in now.rows), default=0.0)
        paths = [(name, title, self.folder / name) for name, title in PAGES.items()]
        return [
            {"href": name, "title": title}
            for name, title, path in paths
            if path.is_file() and path.stat().st_mtime >= last
        ]

    def _fit_told(self) -> dict[str, Any] | None:
        newest = self._newest
        if newest is None:
            return {"working": self._fit.working, "runs": 0, "refusal": None, "lines": [], "own": False}
        assert self._plan is not None
        return {
            "working": self._fit.working and self._own is None,
            "runs": newest.runs,
            "refusal": newest.refusal,
            "lines": [
                {"label": label, "value": f"{interval.estimate:.2f}", "note": bounds(interval)}
                for label, interval in newest.told(self._plan)
            ],
            "own": self._own is not None,
        }

    def _plots(self) -> list[Plot]:
        newest, made = self._newest, list[Plot]()
        curves = self._loss_against_compute()
        if curves is not None:
            made.append(Plot("loss_against_compute", "loss_against_compute", loss_against_compute_plot(curves)))
        if newest is not None and newest.lines is not None:
            made.append(Plot("isoflop", "isoflop", isoflop_plot(newest.lines)))
        if newest is not None and newest.allocation is not None:
            made.append(Plot("allocation", "allocation_params", allocation_plot(newest.allocation, "params")))
        return made

    def _size(self, row: RunRow) -> float:
        if row.key not in self._sizes:
            shape = row.spec.shape
            self._sizes[row.key] = float(architectures.get(shape.architecture).count_parameters(shape).total)
        return self._sizes[row.key]

    def _loss_against_compute(self) -> LossAgainstCompute | None:
        """Curves as far as they have come, under the frontier of the newest fit; None before the first point."""
        known = {row.key: row for row in self._rows if row.stage in ("sweep", "hold-out")}
        sizes = {key: self._size(row) for key, row in known.items() if row.started_at is not None}
        unseen = [key for key, row in known.items() if row.stage == "hold-out"]
        curves = loss_curves(self._curves.table(), sizes, unseen)
        curves = tuple(curve for curve in curves if curve.flops.size)
        if not curves:
            return None
        done = [row for row in known.values() if row.state == "finished" and row.loss is not None]
        fitted = [row for row in done if row.stage == "sweep"]
        held_out = [row for row in done if row.stage == "hold-out"]
        planned = [row.flops for row in known.values() if row.stage == "sweep"] or [row.flops for row in known.values()]
        ends = [(self._size(row), row.flops, row.loss) for row in fitted]
        if any(row.state not in ENDED for row in known.values()):
            # Marks that are not drawn, for the axis: runs in training are seen too, as far as curves are worth seeing.
            lowest = min(float(curve.loss.min()) for curve in curves)
            reached = max(float(curve.loss[-1]) for curve in curves)
            upper = lowest * float(np.clip(reached / lowest, 1.15 if ends else _WORTH_SEEING, _WORTH_SEEING))
            ends += [(np.nan, np.nan, lowest), (np.nan, np.nan, upper)]
        params, flops, losses = np.array(ends, np.float64).T
        return LossAgainstCompute(
            curves=curves,
            sizes=np.unique([curve.params for curve in curves]),
            params=params,
            flops=flops,
            loss=losses,
            fitted_flops=(min(planned), max(planned)),
            frontier=None if self._newest is None else self._newest.frontier,
            hold_out=_hold_out(held_out, self._size(held_out[0])) if held_out else None,
        )


def _hold_out(rows: list[RunRow], params: float) -> HoldOut:
    losses = np.array([row.loss for row in rows], np.float64)
    return HoldOut(flops=rows[0].flops, params=params, losses=losses, forecast=None)


def _waiting(runs: int) -> str:
    """Of larger runs that are registered."""
    if not runs:
        return ""
    return f" {runs} registered larger run{'s wait' if runs > 1 else ' waits'} for `scaling train`."


def _facts(now: Standing) -> list[dict[str, str]]:
    """The numbers of ``scaling status``, a tile each."""
    ended = sum(row.state in ENDED for row in now.rows)
    coming = sum(now.coming.values())
    more = f"and {coming} to come: " + ", ".join(f"{runs} {stage}" for stage, runs in now.coming.items())
    facts = [
        {"label": "Runs ended", "value": f"{ended} of {len(now.rows)}", "note": more if coming else ""},
        {"label": "Compute done", "value": f"{now.share:.0%}", "note": f"of {format_flops(now.flops)}"},
    ]
    if now.seconds_left is not None:
        left = format_duration(now.seconds_left)
        facts.append({"label": "Time left", "value": left, "note": "about, for what is planned"})
    if now.running:
        speed = f"{format_count(now.tokens_per_second)} tok/s"
        facts.append({"label": "Speed", "value": speed, "note": f"{len(now.running)} in training"})
    return facts


def _line(row: RunRow) -> dict[str, Any]:
    return {
        "key": row.key[:8],
        "stage": row.stage,
        "label": row.label,
        "state": row.state,
        "share": f"{row.share:.0%}",
        "loss": "" if row.loss is None else f"{row.loss:.4f}",
        "speed": f"{format_count(row.tokens_per_second)} tok/s"
        if row.state == "running" and row.tokens_per_second
        else "",
    }
