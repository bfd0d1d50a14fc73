"""Do nominal 90% intervals hold the truth 90% of the time? Simulated studies of known truth, cell by cell.

    python benchmarks/coverage.py law|forecast [--studies 400] [--draws 300] [--out benchmarks/results/coverage.json]

A cell is a design, a truth's scale and a noise; each of its studies has a truth of its own. ``law``: the draws of the
parametric fit, where the law is true, for its exponents, N* and L. ``forecast``: what the law and its drift hold of the
truth's loss, where the law is true and where it bends.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import zlib
from pathlib import Path

import numpy as np

from scaling.fits.drift import fit_drift
from scaling.fits.estimate import draw, estimate
from scaling.laws.chinchilla import CHINCHILLA

DESIGNS = ("five lines of seven", "four lines of five", "thirty runs at random", "eight trunks, four branches")
TRUTHS = (("lab", 0.003), ("laptop", 0.01))
"""Scale of the truth, and SD of the noise in log loss."""
FACTORS = (10, 100, 1000)
QUANTITIES = (
    "exponent of N", "alpha", "beta",
    *(f"{name} at {factor}x" for factor in FACTORS for name in ("log N*", "L")),
)  # fmt: skip
LEVEL = 0.9


def truth(scale: str, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """A, B, E, alpha, beta at random, and the FLOPs of the middle of the study."""
    if scale == "lab":
        alpha, beta = rng.uniform(0.25, 0.5, 2)
        params, tokens = np.exp(rng.uniform(np.log([2e8, 4e9]), np.log([1e9, 2e10])))
        e, reducible = rng.uniform(1.4, 2.2), rng.uniform(0.5, 1.5)
    else:
        alpha, beta = rng.uniform(0.2, 0.6, 2)
        params, tokens = np.exp(rng.uniform(np.log([1e5, 1e6]), np.log([4e5, 4e6])))
        e, reducible = rng.uniform(1.5, 3.0), rng.uniform(1.0, 2.5)
    a = reducible * beta / (alpha + beta) * params**alpha
    b = reducible * alpha / (alpha + beta) * tokens**beta
    return np.array([a, b, e, alpha, beta]), float(6 * params * tokens)


def runs_of(
    design: str, theta: np.ndarray, middle: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Parameters and tokens, and which runs share a trunk; the design's guess of the best size is off by up to 1.5."""
    miss = math.exp(rng.uniform(-0.4, 0.4))
    best = float(CHINCHILLA.optimum(theta, middle)[0]) * miss
    if design.endswith("at random"):
        flops = middle * np.exp(rng.uniform(-1, 1, 30) * math.log(16))
        ratio = np.exp(rng.uniform(-1, 1, 30) * math.log(8))
        params = CHINCHILLA.optimum(theta, flops)[0] * miss * np.sqrt(ratio)
        return params, flops / 6 / params, None
    if design.startswith("eight trunks"):
        params = np.repeat(best * np.geomspace(1 / 8, 8, 8), 4)
        tokens = middle / 6 / best * (params / best) * np.tile([0.25, 0.7, 2.0, 5.0], 8)
        return params, tokens, np.repeat(np.arange(8), 4)
    lines, sizes, step = (5, 7, 4.0) if design.startswith("five") else (4, 5, 3.0)
    flops = middle * step ** (np.arange(lines) - (lines - 1) / 2)
    centre = best * np.sqrt(flops / middle)
    params = (centre[:, None] * np.geomspace(0.25, 4.0, sizes)).ravel()
    return params, np.repeat(flops, sizes) / 6 / params, None


def bent(flops: np.ndarray, middle: float, slope: float) -> np.ndarray:
    """Log of what a truth outside the law adds to its reducible loss: a slope from the middle of the study on."""
    return slope * np.maximum(np.log10(flops / middle), 0.0)


def simulated(
    design: str, scale: str, noise: float, seed: int
) -> tuple[np.ndarray, float, np.ndarray, np.ndarray, np.ndarray | None, np.ndarray, np.random.Generator]:
    """A truth, the middle of its study in FLOPs, its runs' parameters, tokens, trunks and log noise, the generator."""
    rng = np.random.default_rng([seed, zlib.crc32(f"{design}{scale}{noise}".encode())])
    theta, middle = truth(scale, rng)
    params, tokens, trunks = runs_of(design, theta, middle, rng)
    shock = rng.standard_normal(len(params))
    if trunks is not None:
        shock = math.sqrt(0.5) * (shock + rng.standard_normal(trunks.max() + 1)[trunks])
    return theta, middle, params, tokens, trunks, noise * shock, rng


def study_of_the_law(design: str, scale: str, noise: float, seed: int, draws: int) -> dict[str, list[float]]:
    """Hits (0 or 1) of each interval of ``QUANTITIES``."""
    theta, _, params, tokens, trunks, shock, rng = simulated(design, scale, noise, seed)
    loss = CHINCHILLA.predict(theta, params, tokens) * np.exp(shock)
    found = estimate(CHINCHILLA, (params, tokens), loss, 1e-3)
    sample = draw(found, (params, tokens), loss, 1e-3, draws=draws, rng=rng, clusters=trunks)
    top = float((6 * params * tokens).max())
    hits = [
        _holds(CHINCHILLA.exponents(sample)[0], float(CHINCHILLA.exponents(theta)[0])),
        _holds(sample[:, 3], theta[3]),
        _holds(sample[:, 4], theta[4]),
    ]
    for factor in FACTORS:
        best_n, best_d = (float(value) for value in CHINCHILLA.optimum(theta, factor * top))
        best_loss = float(CHINCHILLA.predict(theta, best_n, best_d))
        hits.append(_holds(CHINCHILLA.optimum(sample, factor * top)[0], best_n))
        hits.append(_holds(CHINCHILLA.predict(sample, best_n, best_d), best_loss))
    return {"within the law": hits}


def study_of_forecasts(design: str, scale: str, noise: float, seed: int, draws: int) -> dict[str, list[float]]:
    """Hits of the forecast of the truth's loss at each of ``FACTORS``; ``draws`` are not needed."""
    theta, middle, params, tokens, trunks, shock, rng = simulated(design, scale, noise, seed)
    law_loss = CHINCHILLA.predict(theta, params, tokens)
    top = float((6 * params * tokens).max())
    slope = float(rng.normal(0.0, 0.05))
    bends = theta[2] + (law_loss - theta[2]) * np.exp(bent(6 * params * tokens, middle, slope))
    return {
        "forecast, law true": _forecast(theta, params, tokens, law_loss * np.exp(shock), trunks, top, middle, 0.0),
        "forecast, law bends": _forecast(theta, params, tokens, bends * np.exp(shock), trunks, top, middle, slope),
    }


def _holds(sample: np.ndarray, value: float) -> float:
    low, high = np.quantile(sample, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low <= value <= high)


def _forecast(
    theta: np.ndarray,
    params: np.ndarray,
    tokens: np.ndarray,
    loss: np.ndarray,
    trunks: np.ndarray | None,
    top: float,
    middle: float,
    slope: float,
) -> list[float]:
    model = fit_drift(CHINCHILLA, params, tokens, loss, trunks=trunks)
    hits = []
    for factor in FACTORS:
        best_n, best_d = (float(value) for value in CHINCHILLA.optimum(theta, factor * top))
        reducible = float(CHINCHILLA.predict(theta, best_n, best_d)) - theta[2]
        actual = math.log(theta[2] + reducible * math.exp(float(bent(np.array(factor * top), middle, slope))))
        told = model.predictive(best_n, best_d, noise=False)
        hits.append(float(told.quantile((1 - LEVEL) / 2) <= actual <= told.quantile((1 + LEVEL) / 2)))
    return hits


def report(pooled: dict[str, list[float]], cells: dict[str, dict[str, list[float]]]) -> None:
    print(f"\nnominal {LEVEL:.0%}, of the truth held, {len(cells)} cells:")
    for kind, shares in pooled.items():
        names = QUANTITIES if kind == "within the law" else [f"L at {factor}x" for factor in FACTORS]
        lowest = min(min(cell[kind]) for cell in cells.values())
        told = ", ".join(f"{name} {share:.1%}" for name, share in zip(names, shares, strict=True))
        print(f"  {kind}: {told}; lowest of all cells {lowest:.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("part", choices=("law", "forecast"))
    parser.add_argument("--studies", type=int, default=400, help="a cell")
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    study = study_of_the_law if arguments.part == "law" else study_of_forecasts
    cells: dict[str, dict[str, list[float]]] = {}
    everything: dict[str, list[list[float]]] = {}
    plan = [(design, scale, noise) for design in DESIGNS for scale, noise in TRUTHS]
    started = time.monotonic()
    for done, (design, scale, noise) in enumerate(plan, 1):
        studies = [study(design, scale, noise, seed, arguments.draws) for seed in range(arguments.studies)]
        name = f"{design}, {scale}, noise {noise:.1%}"
        cells[name] = {kind: np.mean([one[kind] for one in studies], axis=0).tolist() for kind in studies[0]}
        for kind in studies[0]:
            everything.setdefault(kind, []).extend(one[kind] for one in studies)
        left = (time.monotonic() - started) / done * (len(plan) - done)
        print(f"{done}/{len(plan)} cells, {left / 60:.0f} min left", file=sys.stderr, flush=True)
    pooled = {kind: np.mean(rows, axis=0).tolist() for kind, rows in everything.items()}
    report(pooled, cells)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        kept = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.is_file() else {}
        kept[arguments.part] = {"studies_a_cell": arguments.studies, "pooled": pooled, "cells": cells}
        arguments.out.write_text(json.dumps({"quantities": QUANTITIES} | kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
