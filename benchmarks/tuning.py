"""Learning rate and batch tuned at small sizes and carried to larger ones, on the 1,911 runs of Step Law's grid.

    python benchmarks/tuning.py [--seeds 20] [--out benchmarks/results/tuning.json]

Optuna asks over the grid of each of the twelve sizes and lengths of the three smallest models, 15 runs of each, or over
every other one's, 30 of each, begun where the law of the cells before says; the law goes through those 180 runs (a
tenth of the grid is 191) and is judged in all 17 cells and in the five of the two larger models, of which it saw
nothing: by the loss of the grid's run nearest in (ln lr, ln batch) to what it says, over the cell's best. References:
the same law from random runs, the published law (fitted on the whole grid), and the whole grid's own law.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from scaling.fits.hyperparameter_law import HyperparameterSweep, excess_loss
from scaling.fits.tuned_law import TunedLaw, TunedTrial, fit_tuned_law
from scaling.laws.step_law import STEP_LAW, STEP_LAW_BATCH
from sweeps.tuning.asking import Asked, CellAsking, Outcome, first_guess
from sweeps.tuning.space import Grid, Space

PUBLISHED = Path(__file__).resolve().parents[2] / "shared" / "data" / "published"
SMALL = 5e8
"""Cells below are tuned."""
SIX = (0, 2, 4, 6, 8, 10)
"""Every other one of them."""
NAMES = ("learning_rate", "global_batch_tokens")


def step_law_grid(folder: Path = PUBLISHED) -> HyperparameterSweep:
    table = pd.read_csv(folder / "steplaw_dense_lr_bs_loss.csv")
    columns = (table["N"], table["D"], table["lr"], table["bs"] * 2048.0, table["smooth loss"])
    return HyperparameterSweep(*(column.to_numpy(np.float64) for column in columns))


def tune_on_grid(grid: HyperparameterSweep, sampler: str, seed: int, cells: list[int], trials: int) -> list[TunedTrial]:
    """``trials`` of each of ``cells`` (by their order), none twice: where a run is missing or tried, the nearest."""
    done: list[TunedTrial] = []
    for nth, runs in enumerate([grid.cells()[cell] for cell in cells]):
        params, tokens = float(grid.params[runs[0]]), float(grid.tokens[runs[0]])
        space = Space((_levels(NAMES[0], grid.learning_rate[runs]), _levels(NAMES[1], grid.batch_tokens[runs])))
        asking = CellAsking(
            space, sampler, seed=1000 * seed + nth, trials=trials, tokens=round(tokens), worst=12.0,
            guess=None if sampler == "random" else first_guess(done, params, tokens),
        )  # fmt: skip
        tried: dict[int, int] = {}

        def train(asked: Asked, runs: np.ndarray = runs, tried: dict[int, int] = tried) -> None:
            free = np.array([run for run in runs if run not in tried.values()])
            at = np.log([asked.values[name] for name in NAMES])
            away = np.log(grid.learning_rate[free]) - at[0], np.log(grid.batch_tokens[free]) - at[1]
            tried[asked.number] = int(free[np.argmin(away[0] ** 2 + away[1] ** 2)])
            run = tried[asked.number]
            asked.values = dict(
                zip(NAMES, (float(grid.learning_rate[run]), float(grid.batch_tokens[run])), strict=True)
            )

        def look(asked: Asked, tried: dict[int, int] = tried) -> Outcome:
            return Outcome("finished", float(grid.loss[tried[asked.number]]))

        asking.advance(look, train)
        done += asking.as_trials(params)
    return done


def _levels(name: str, values: np.ndarray) -> Grid:
    """The grid's levels: rates that the table rounds differently are one."""
    ascending = np.unique(values)
    first = np.concatenate(([True], np.diff(np.log(ascending)) > 0.05))
    return Grid(name, tuple(ascending[first].tolist()))


def costs(grid: HyperparameterSweep, say: Callable[[float, float], tuple[float, float]]) -> dict[str, float]:
    """Excess loss in percent: mean of all cells and of the held-out ones, and the most."""
    cells = [(float(grid.params[runs[0]]), float(grid.tokens[runs[0]])) for runs in grid.cells()]
    said = np.array([say(*cell) for cell in cells])
    excess = 100 * excess_loss(grid, said[:, 0], said[:, 1])
    larger = np.array([params > SMALL for params, _ in cells])
    return {"all": float(excess.mean()), "held_out": float(excess[larger].mean()), "most": float(excess.max())}


def of_law(law: TunedLaw) -> Callable[[float, float], tuple[float, float]]:
    def say(params: float, tokens: float) -> tuple[float, float]:
        best = law.at(params, tokens)
        return best[NAMES[0]], best[NAMES[1]]

    return say


def every_run(grid: HyperparameterSweep) -> list[TunedTrial]:
    return [
        TunedTrial(params=n, tokens=d, values={NAMES[0]: rate, NAMES[1]: batch}, loss=loss)
        for n, d, rate, batch, loss in zip(
            grid.params.tolist(),
            grid.tokens.tolist(),
            grid.learning_rate.tolist(),
            grid.batch_tokens.tolist(),
            grid.loss.tolist(),
            strict=True,
        )
    ]


def measure(seeds: int) -> dict[str, object]:
    grid = step_law_grid()
    found: dict[str, object] = {
        "published law": costs(grid, lambda n, d: (STEP_LAW.extended(n, d), STEP_LAW_BATCH.extended(n, d))),
        "law of the whole grid": costs(grid, of_law(fit_tuned_law(every_run(grid)))),
    }
    small = [nth for nth, cell in enumerate(grid.cells()) if grid.params[cell[0]] < SMALL]
    plans = {"12 cells": (small, 15), "6 cells": ([small[nth] for nth in SIX], 30)}
    for sampler, (plan, (cells, trials)) in itertools.product(("tpe", "gp", "random"), plans.items()):
        started = time.perf_counter()
        rows, refused = [], 0
        for seed in range(seeds):
            law = fit_tuned_law(tune_on_grid(grid, sampler, seed, cells, trials))
            if law.status == "ok":
                rows.append(costs(grid, of_law(law)))
            else:
                refused += 1
        frame = pd.DataFrame(rows)
        found[f"{sampler}, {plan}"] = {
            "runs": trials * len(cells),
            "share_of_grid": trials * len(cells) / len(grid.loss),
            "refused": refused,
            "all": float(frame["all"].mean()),
            "all_sem": float(frame["all"].std() / math.sqrt(len(frame))),
            "all_worst_seed": float(frame["all"].max()),
            "seeds_within_goal": float((frame["all"] <= 0.1).mean()),
            "held_out": float(frame["held_out"].mean()),
            "held_out_sem": float(frame["held_out"].std() / math.sqrt(len(frame))),
            "seconds_a_seed": (time.perf_counter() - started) / seeds,
        }
        print(sampler, plan, found[f"{sampler}, {plan}"], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found = measure(arguments.seeds)
    print(found)
    if arguments.out:
        result = {"seeds": arguments.seeds, "excess_percent": found}
        arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
