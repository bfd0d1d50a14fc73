"""The curves of a study that runs, kept in memory: each look reads only the points that came since the last."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import pandas as pd

from analysis.study_view import CURVE_COLUMNS
from sweeps.ledger.ledger import ENDED, Ledger, RunRow

__all__ = ["GrowingCurves"]

_STAGES = ("sweep", "hold-out")


class GrowingCurves:
    """Losses of the sweep's and the hold-out's runs, a row a logged step as ``CURVE_COLUMNS`` has them."""

    def __init__(self) -> None:
        self._losses: dict[str, dict[int, dict[str, float]]] = defaultdict(dict)
        self._read_to: dict[str, int] = {}
        self._complete: set[str] = set()
        self.version = 0
        """Grows with every look that brought something."""

    def look(self, ledger: Ledger, rows: Iterable[RunRow]) -> None:
        """Read what is new of ``rows``; an ended run is read once more and then left alone."""
        for row in rows:
            if row.stage not in _STAGES or row.started_at is None or row.key in self._complete:
                continue
            points = ledger.points(row.key, self._read_to.get(row.key, 0))
            for point in points:
                if point.name in ("train_loss", "held_out_loss"):
                    step = self._losses[row.key].setdefault(
                        point.step, {"tokens": float(point.tokens), "flops": point.flops}
                    )
                    step[point.name] = point.value
            if points:
                self._read_to[row.key] = points[-1].id
                self.version += 1
            # Its row was read before its points, so a run that had ended then has no more to come.
            if row.state in ENDED:
                self._complete.add(row.key)

    def table(self) -> pd.DataFrame:
        logged = [
            {"run_key": key, "step": step, **values}
            for key, steps in self._losses.items()
            for step, values in steps.items()
        ]
        return pd.DataFrame(logged, columns=list(CURVE_COLUMNS))
