"""A prediction that can be checked: what, how sure, how far outside the data, and on which assumptions."""

from __future__ import annotations

from scaling.record import Interval, Record, content_hash

__all__ = ["Forecast", "Outcome"]


class Forecast(Record):
    """The loss, size and tokens predicted for one point; intervals at ``level``."""

    fit_key: str
    flops: float
    params: Interval
    tokens: Interval
    loss: Interval
    """What one new run will measure: the law's uncertainty, its drift and the noise of a run."""
    loss_if_law_holds: Interval | None = None
    """The law's own loss and its bootstrap interval, were the law exactly true: for comparison, not for planning."""
    level: float
    extrapolation_orders: float
    """log10 of ``flops`` over the largest fitted run's; 0 inside the fitted range."""
    params_convention: str
    flops_convention: str
    assumptions: tuple[str, ...]

    @property
    def key(self) -> str:
        return content_hash(self.model_dump(mode="json"))


class Outcome(Record):
    """A registered forecast beside what happened. ``relative_error`` is predicted / actual - 1."""

    forecast_key: str
    run_keys: tuple[str, ...]
    loss: float
    loss_spread: float | None
    """Standard deviation between replicates of the run; None with a single run."""
    relative_error: float
    inside: bool
