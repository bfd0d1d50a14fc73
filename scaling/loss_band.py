"""Where a run's held-out loss should be on its way, and what its own curve says of its end.

A run under way lies above a finished one of as many tokens, since its learning rate has not come down yet. By how much
is measured on the study's own runs: at the share s of its tokens a run's log loss, less that at its end, less what the
law says of so many fewer tokens,

    u(s) = [ln L(s·D) − ln L(D)] − [ln L̂(N, s·D) − ln L̂(N, D)]

has a mean and a spread over runs. The band around a forecast run is its forecast, plus the law's difference for the run
itself, plus the mean of u; its variance is the forecast's plus that of u.

As the run goes, what is left of the forecast's error f is learned from the newest look e = f + u's own deviation: two
normal distributions, so that f given e has the mean e·v_f/(v_f + v_u) and the variance v_f·v_u/(v_f + v_u).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
from pydantic import Field
from scipy.special import ndtri

from scaling.fit import Fit
from scaling.forecast import Forecast
from scaling.record import Interval, Record

__all__ = ["BandPoint", "LossBand", "OnTheWay", "loss_band", "on_the_way"]

SMALLEST_SHARE = 0.1
"""Before that a run is warming up, and its loss says little of its end."""
FEWEST_RUNS = 4


class OnTheWay(Record):
    """u at one share of a run's tokens, over the runs of a study."""

    share: float
    mean: float
    sd: float


class BandPoint(Record):
    """After ``tokens``: the loss that is expected (nats a token), within the band's level."""

    tokens: float
    loss: Interval
    way_sd: float = Field(description="of u, in log loss: what the forecast's own error is not")


class LossBand(Record):
    """From a tenth of the run to its end, in the order of tokens."""

    level: float
    final: Interval = Field(description="the registered forecast of the run's end, nats a token")
    points: tuple[BandPoint, ...]

    def at(self, tokens: float) -> BandPoint | None:
        """The band after ``tokens``, between its points by their logarithms; None before it begins."""
        marks = np.log([point.tokens for point in self.points])
        where = math.log(tokens)
        if where < marks[0] - 1e-9:
            return None

        def between(value: Callable[[BandPoint], float]) -> float:
            return float(np.interp(where, marks, [value(point) for point in self.points]))

        bounds = [math.exp(between(lambda point, of=of: math.log(of(point.loss)))) for of in _SIDES]  # type: ignore[misc]
        return BandPoint(
            tokens=tokens,
            loss=Interval(estimate=bounds[0], low=bounds[1], high=bounds[2]),
            way_sd=between(lambda point: point.way_sd),
        )

    def renewed(self, tokens: float, loss: float) -> Interval | None:
        """The loss at the run's end, given its held-out ``loss`` after ``tokens``; None before the band begins."""
        here = self.at(tokens)
        if here is None:
            return None
        quantile = float(ndtri((1 + self.level) / 2))
        before, way = (_log_width(self.final) / quantile) ** 2, here.way_sd**2
        seen = math.log(loss / here.loss.estimate)
        mean = math.log(self.final.estimate) + seen * before / (before + way)
        half = quantile * math.sqrt(before * way / (before + way))
        return Interval(estimate=math.exp(mean), low=math.exp(mean - half), high=math.exp(mean + half))


_SIDES: tuple[Callable[[Interval], float], ...] = (
    lambda loss: loss.estimate,
    lambda loss: loss.low or loss.estimate,
    lambda loss: loss.high or loss.estimate,
)


def _log_width(loss: Interval) -> float:
    """Half of the interval's width in log loss."""
    return 0.5 * math.log((loss.high or loss.estimate) / (loss.low or loss.estimate))


def on_the_way(fit: Fit, observations: pd.DataFrame, curves: pd.DataFrame) -> tuple[OnTheWay, ...]:
    """u at the shares of their tokens at which a study's fitted runs were looked at; empty where too few were.

    ``observations``: a study's table, of which rows of the role "fit" count, the larger half of them by compute.
    ``curves``: run_key, tokens, held_out_loss, a row a look. Runs are taken to be looked at after like shares.
    """
    if fit.drift.status != "ok" or observations.empty:
        return ()
    rows = observations[(observations["role"] == "fit") & (observations["status"] == "finished")]
    rows = rows.nlargest(max(FEWEST_RUNS, math.ceil(len(rows) / 2)), "flops_exact")
    size = "params_" + fit.params_convention.replace("-", "_")
    looks = curves.dropna(subset=["held_out_loss"])
    seen: list[tuple[float, float]] = []
    for row in rows.to_dict("records"):
        params, tokens = float(row[size]), float(row["tokens"])
        own = looks[(looks["run_key"] == row["run_key"]) & (looks["tokens"] >= SMALLEST_SHARE * tokens)]
        at_end = _expected(fit, params, tokens)
        for reached, loss in zip(own["tokens"], own["held_out_loss"], strict=True):
            if reached < tokens:
                fewer = _expected(fit, params, float(reached)) - at_end
                seen.append((reached / tokens, math.log(loss / row["loss_nats"]) - fewer))
    return _by_share(seen)


def _by_share(seen: list[tuple[float, float]]) -> tuple[OnTheWay, ...]:
    """Mean and SD of u at like shares: those that lie within a twentieth of one another."""
    found, group = [], list[tuple[float, float]]()
    for share, value in [*sorted(seen), (math.inf, 0.0)]:
        if group and share > 1.05 * group[0][0]:
            if len(group) >= FEWEST_RUNS:
                shares, values = np.array(group).T
                # A new run's deviation from a mean of n has the variance (1 + 1/n) of one of theirs.
                sd = float(values.std(ddof=1)) * math.sqrt(1 + 1 / len(group))
                found.append(OnTheWay(share=float(shares.mean()), mean=float(values.mean()), sd=sd))
            group = []
        group.append((share, value))
    return tuple(found)


def _expected(fit: Fit, params: float, tokens: float) -> float:
    """ln L of the fit."""
    return fit.drift.model.predictive(params, tokens, noise=False).mean


def loss_band(fit: Fit, forecast: Forecast, way: tuple[OnTheWay, ...]) -> LossBand | None:
    """The band of the run that ``forecast`` is of; None where ``way`` has nothing, or the forecast no interval."""
    if not way or forecast.loss.low is None or forecast.loss.high is None:
        return None
    params, tokens = forecast.params.estimate, forecast.tokens.estimate
    quantile = float(ndtri((1 + forecast.level) / 2))
    sd, at_end = _log_width(forecast.loss) / quantile, _expected(fit, params, tokens)
    points = []
    for mark in way:
        fewer = _expected(fit, params, mark.share * tokens) - at_end
        middle = math.log(forecast.loss.estimate) + fewer + mark.mean
        half = quantile * math.hypot(sd, mark.sd)
        loss = Interval(estimate=math.exp(middle), low=math.exp(middle - half), high=math.exp(middle + half))
        points.append(BandPoint(tokens=mark.share * tokens, loss=loss, way_sd=mark.sd))
    points.append(BandPoint(tokens=tokens, loss=forecast.loss, way_sd=0.0))
    return LossBand(level=forecast.level, final=forecast.loss, points=tuple(points))
