"""What the figure of the loss surface shows, once: the fitted law over N and D, the runs on it, and its optimum's way.

N parameters, D training tokens, C = c·N·D training FLOPs with the fit's own c, L held-out loss in nats a token.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.figure_data import Band, parametric_line, theta_of
from analysis.study_view import StudyView
from scaling.cautions import ILLUSTRATION_ORDERS
from scaling.laws import get_loss_law
from scaling.record import Interval

__all__ = ["Surface", "SurfaceTarget", "surface"]

Floats = NDArray[np.float64]

_GRID = 64
_MARGIN = 1.5
_LEAST_SPAN = 30.0
"""Both axes show at least this factor, so that a study of one size has a surface too."""
_PATH_POINTS = 40


@dataclass(frozen=True)
class SurfaceTarget:
    flops: float
    params: Interval
    tokens: Interval


@dataclass(frozen=True)
class Surface:
    params: Floats
    tokens: Floats
    loss: Floats
    hold_out: NDArray[np.bool_]
    """One entry a finished run, of both roles."""
    grid_params: Floats
    """(G,)"""
    grid_tokens: Floats
    """(H,)"""
    grid_loss: Floats
    """The law, (H, G)."""
    flops_per_param_token: float
    optimum: Band | None
    """N* over C, inside the frame: D* = C / (c·N*), and its interval lies along the line of equal compute."""
    fitted_flops: tuple[float, float]
    target: SurfaceTarget | None
    """What the recommendation places, where that is within reach of the runs."""

    def tokens_of(self, flops: Floats, params: Floats) -> Floats:
        """D that spend ``flops`` on models of N."""
        return np.asarray(flops / (self.flops_per_param_token * params))

    @property
    def diagonals(self) -> Floats:
        """Powers of ten of compute inside the frame, at most six."""
        least = self.flops_per_param_token * self.grid_params[0] * self.grid_tokens[0]
        most = self.flops_per_param_token * self.grid_params[-1] * self.grid_tokens[-1]
        powers = np.arange(math.ceil(math.log10(least)), math.floor(math.log10(most)) + 1)
        stride = max(1, math.ceil(len(powers) / 6))
        return np.asarray(10.0 ** powers[powers % stride == 0])


def surface(view: StudyView) -> Surface | None:
    """The law around the study's runs, out to its target where that is within three orders of magnitude; None where
    the law was refused."""
    fit = view.fit
    if fit.parametric.status != "ok":
        return None
    law, theta, factor = get_loss_law(fit.parametric.law), theta_of(fit.parametric), fit.flops_per_param_token
    rows = pd.concat([view.fitted, view.held_out])
    params, tokens, loss = (
        rows[name].to_numpy(dtype=np.float64) for name in (view.params_column, "tokens", "loss_nats")
    )
    target = _target(view)
    # The target's intervals may reach over ten orders of magnitude: the frame is the runs' and its estimate's.
    in_sight = ([], []) if target is None else ([target.params.estimate], [target.tokens.estimate])
    grid_params, grid_tokens = (
        _axis(np.append(values, more)) for values, more in zip((params, tokens), in_sight, strict=True)
    )
    return Surface(
        params=params,
        tokens=tokens,
        loss=loss,
        hold_out=(rows["role"] == "hold-out").to_numpy(dtype=bool),
        grid_params=grid_params,
        grid_tokens=grid_tokens,
        grid_loss=law.predict(theta, grid_params, grid_tokens[:, None]),
        flops_per_param_token=factor,
        optimum=_path(view, grid_params, grid_tokens),
        fitted_flops=fit.fitted_range.flops,
        target=target,
    )


def _target(view: StudyView) -> SurfaceTarget | None:
    made = view.recommendation
    if made is None or made.flops > 10**ILLUSTRATION_ORDERS * view.fit.fitted_range.flops[1]:
        return None
    return SurfaceTarget(made.flops, made.params, made.tokens)


def _axis(values: Floats) -> Floats:
    """Log-spaced values over ``values`` with a margin."""
    low, high = float(values.min()), float(values.max())
    widen = max(_MARGIN, math.sqrt(_LEAST_SPAN * low / high))
    return np.geomspace(low / widen, high * widen, _GRID, dtype=np.float64)


def _path(view: StudyView, grid_params: Floats, grid_tokens: Floats) -> Band | None:
    """N* of the parametric law with its interval, as the figure of allocation has it, where it crosses the frame."""
    factor = view.fit.flops_per_param_token
    flops = np.geomspace(
        factor * grid_params[0] * grid_tokens[0], factor * grid_params[-1] * grid_tokens[-1], _PATH_POINTS
    )
    line = parametric_line(view, flops)
    if line is None:
        return None
    params, tokens = line.params.estimate, line.tokens.estimate
    inside = (params >= grid_params[0]) & (params <= grid_params[-1])
    inside &= (tokens >= grid_tokens[0]) & (tokens <= grid_tokens[-1])
    if inside.sum() < 2:
        return None
    band = line.params
    return Band(flops[inside], band.estimate[inside], band.low[inside], band.high[inside])
