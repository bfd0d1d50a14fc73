"""Laws that others published, read from ``data/published_laws.toml``: where each would put a given compute."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from scaling.laws.chinchilla import CHINCHILLA
from scaling.record import Record

__all__ = ["PublishedOptimum", "kaplan_total", "optimum", "published_optima", "published_table"]

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
    found = [_placed(law, _chinchilla_params(law, flops), flops) for law in table["chinchilla"]]
    found += [_placed(law, _kaplan_params(law, flops), flops) for law in table["kaplan"]]
    found += [_placed(law, float(np.sqrt(flops / 6 / law["tokens_per_param"])), flops) for law in table["rule"]]
    return tuple(found)


def kaplan_total(nonembedding: float, omega: float = 47_491.0) -> float:
    """Total parameters of a model of ``nonembedding``: N + ω N^(1/3) (Pearce & Song 2406.12907)."""
    return float(nonembedding + omega * nonembedding ** (1 / 3))


def _chinchilla_params(law: dict[str, Any], flops: float) -> float:
    theta = (np.exp(law["ln_a"]), np.exp(law["ln_b"]), np.exp(law["ln_e"]), law["alpha"], law["beta"])
    params, _ = CHINCHILLA.optimum(theta, flops)
    return float(params)


def _kaplan_params(law: dict[str, Any], flops: float) -> float:
    nonembedding = law["n_at_pf_day"] * (flops / _PF_DAY) ** law["n_exponent"]
    return kaplan_total(nonembedding, law["omega"])


def _placed(law: dict[str, Any], params: float, flops: float) -> PublishedOptimum:
    return PublishedOptimum(
        key=law["key"], name=law["name"], citation=law["citation"], params=params, tokens=flops / 6 / params
    )
