"""Laws that others published, read from ``data/published_laws.toml``: where each would put a given compute."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike

from scaling.laws.chinchilla import CHINCHILLA
from scaling.laws.law import FloatArray
from scaling.record import Record

__all__ = [
    "PublishedOptimum",
    "chinchilla_constants",
    "kaplan_total",
    "optimal_params",
    "optimum",
    "published_optima",
    "published_table",
    "recipe_optima",
]

_PF_DAY = 1e15 * 86_400
"""FLOPs of a petaflop/s-day, Kaplan's unit of compute."""


class PublishedOptimum(Record):
    """The compute-optimal run under a published law; ``params`` are total parameters, C = 6 N D."""

    key: str
    name: str
    citation: str
    params: float
    tokens: float

    @property
    def tokens_per_param(self) -> float:
        return self.tokens / self.params


@cache
def published_table() -> dict[str, list[dict[str, Any]]]:
    """The data file as it stands."""
    text = resources.files("scaling").joinpath("data/published_laws.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def optimum(key: str, flops: float) -> PublishedOptimum:
    """Where the law ``key`` (hoffmann, besiroglu, kaplan, twenty) would put ``flops``; ``KeyError`` if unknown."""
    for found in published_optima(flops):
        if found.key == key:
            return found
    raise KeyError(key)


def published_optima(flops: float) -> tuple[PublishedOptimum, ...]:
    """Every published law's compute-optimal run at ``flops``."""
    table = published_table()
    laws = [*table["chinchilla"], *table["kaplan"], *table["rule"]]
    return tuple(_placed(law, float(optimal_params(law["key"], flops)), flops) for law in laws)


def recipe_optima(flops: float) -> tuple[PublishedOptimum, ...]:
    """Where recipes of models that were trained would put ``flops``: of tokens, a power of the compute."""
    made = []
    for recipe in published_table()["recipe"]:
        tokens = recipe["coefficient"] * flops ** recipe["exponent"]
        made.append(_placed(recipe, flops / 6 / tokens, flops))
    return tuple(made)


def optimal_params(key: str, flops: ArrayLike) -> FloatArray:
    """N*, total parameters, under the law ``key`` at ``flops`` of any shape, C = 6 N D; ``KeyError`` if unknown."""
    table, flops_S = published_table(), np.asarray(flops, dtype=np.float64)
    constants = chinchilla_constants(key)
    if constants is not None:
        return CHINCHILLA.optimum(constants, flops_S)[0]
    for law in table["kaplan"]:
        if law["key"] == key:
            nonembedding_S = law["n_at_pf_day"] * (flops_S / _PF_DAY) ** law["n_exponent"]
            return np.asarray(kaplan_total(nonembedding_S, law["omega"]))
    for law in table["rule"]:
        if law["key"] == key:
            return np.asarray(np.sqrt(flops_S / 6 / law["tokens_per_param"]))
    raise KeyError(key)


def chinchilla_constants(key: str) -> FloatArray | None:
    """A, B, E, α, β (5,) of the published law ``key``; None if it is not of Chinchilla's form."""
    for law in published_table()["chinchilla"]:
        if law["key"] == key:
            logs = np.array([law["ln_a"], law["ln_b"], law["ln_e"]])
            return np.array([*np.exp(logs), law["alpha"], law["beta"]])
    return None


@overload
def kaplan_total(nonembedding: float, omega: float = ...) -> float: ...


@overload
def kaplan_total(nonembedding: FloatArray, omega: float = ...) -> FloatArray: ...


def kaplan_total(nonembedding: float | FloatArray, omega: float = 47_491.0) -> float | FloatArray:
    """Total parameters of a model of ``nonembedding``: N + ω N^(1/3) (Pearce & Song 2406.12907)."""
    return nonembedding + omega * nonembedding ** (1 / 3)


def _placed(law: dict[str, Any], params: float, flops: float) -> PublishedOptimum:
    return PublishedOptimum(
        key=law["key"], name=law["name"], citation=law["citation"], params=params, tokens=flops / 6 / params
    )
