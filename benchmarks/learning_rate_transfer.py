"""Does the best learning rate stay as the model grows? Standard parametrisation and muP over width, muP and CompleteP
over depth, by real training on the embedded corpus.

    OMP_NUM_THREADS=1 nice -n 19 taskset -c 0 python benchmarks/learning_rate_transfer.py train [width|depth]
    python benchmarks/learning_rate_transfer.py report

Rates stand on a grid of steps of sqrt 2. At each size one seed walks by factors of two until the lowest loss has a
higher one on each side, then all seeds train the five rates around the lowest mean, until it lies in their middle. The
rate that is best at the base is trained at every size, so what it costs there is measured and not extrapolated. Each
run is written down as it finishes; starting again goes on. ``report`` prints the tables and draws the figure.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from scaling.run_spec import OptimizerSpec, Parametrisation, RunSpec, ScheduleSpec
from scaling.shape import ModelShape
from trainer.data.prepare import prepare
from trainer.data.shards import Corpus
from trainer.loop.numerics import Numerics
from trainer.loop.train import train
from trainer.tracker import NullTracker
from trainer.whole_file import write_whole

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "learning_rate_transfer.json"
FIGURE = HERE.parent / "docs" / "figures" / "learning_rate_transfer.svg"

SIZES = {"width": (32, 64, 128, 256), "depth": (2, 4, 8, 16)}
FAMILIES = {"width": ("standard", "mup"), "depth": ("mup", "completep")}
SEEDS = (0, 1, 2)
STEPS = 300
BATCH = 512
START = -13
"""Where the walk begins at the base: the rate is 2^(k/2)."""
LEVEL = 0.9


def shape(along: str, size: int) -> ModelShape:
    """Two layers and any width, or a width of 32 and any depth; heads of 16, one for each 16 of width."""
    width, layers = (size, 2) if along == "width" else (32, size)
    return ModelShape(
        layers=layers, width=width, heads=width // 16, kv_heads=width // 16, ffn_width=width * 11 // 4,
        vocabulary=1024, context=64,
    )  # fmt: skip


def parametrisation(along: str, name: str) -> Parametrisation:
    base = {"mup": {"base_width": 32}, "completep": {"base_width": 32, "base_layers": 2}}
    return Parametrisation.model_validate({"name": name} | base.get(name, {}))


def specification(along: str, name: str, size: int, k: int, seed: int, corpus: Corpus) -> RunSpec:
    return RunSpec(
        shape=shape(along, size),
        # At the base all are the same run, bit for bit, so it is trained once.
        parametrisation=parametrisation(along, name if size != SIZES[along][0] else "standard"),
        tokens=STEPS * BATCH,
        global_batch_tokens=BATCH,
        optimizer=OptimizerSpec(learning_rate=float(f"{2 ** (k / 2):.6g}")),
        schedule=ScheduleSpec(warmup_tokens=STEPS // 10 * BATCH, cooldown_tokens=STEPS // 5 * BATCH),
        seed=seed,
        data_key=corpus.manifest.data_key,
        tokenizer_key=corpus.manifest.tokenizer_key,
        held_out_tokens=32_768,
    )


class Bench:
    """Losses by specification; a run is trained when its loss is asked for the first time."""

    def __init__(self, corpus: Corpus, numerics: Numerics) -> None:
        self.corpus, self.numerics = corpus, numerics
        self.runs: dict[str, dict[str, Any]] = json.loads(RESULTS.read_text())["runs"] if RESULTS.is_file() else {}

    def loss(self, along: str, name: str, size: int, k: int, seed: int) -> float:
        spec = specification(along, name, size, k, seed, self.corpus)
        if spec.key not in self.runs:
            with tempfile.TemporaryDirectory() as folder:
                result = train(
                    spec, self.corpus, self.numerics, directory=Path(folder), tracker=NullTracker(),
                    should_stop=lambda: False, evaluations=0,
                )  # fmt: skip
            self.runs[spec.key] = {
                "along": along, "size": size, "parametrisation": spec.parametrisation.name, "k": k, "seed": seed,
                "loss": result.loss_nats, "seconds": round(result.wall_seconds, 2),
            }  # fmt: skip
            print(f"{along} {size} {name} 2^({k}/2) seed {seed}: {result.loss_nats}", flush=True)
            write_whole(RESULTS, json.dumps({"numerics": self.numerics.label, "runs": self.runs}, indent=0) + "\n")
        found = self.runs[spec.key]["loss"]
        return math.inf if found is None else float(found)

    def mean(self, along: str, name: str, size: int, k: int) -> float:
        return float(np.mean([self.loss(along, name, size, k, seed) for seed in SEEDS]))

    def best(self, along: str, name: str, size: int, start: int) -> int:
        """The rate of lowest mean loss, with two rates trained on each side of it."""
        k = start
        while True:
            near = {j: self.loss(along, name, size, j, SEEDS[0]) for j in (k - 2, k, k + 2)}
            lowest = min(near, key=near.__getitem__)
            if lowest == k:
                break
            k = lowest
        while True:
            near = {j: self.mean(along, name, size, j) for j in range(k - 2, k + 3)}
            lowest = min(near, key=near.__getitem__)
            if lowest == k:
                return k
            k = lowest

    def sweep(self, along: str) -> None:
        for name in FAMILIES[along]:
            base = best = self.best(along, name, SIZES[along][0], START)
            for size in SIZES[along][1:]:
                best = self.best(along, name, size, best)
                self.mean(along, name, size, base)


# What it shows


def rows(runs: list[dict[str, Any]], along: str, name: str, size: int) -> dict[int, list[float]]:
    """Losses of all seeds by k; a diverged run's is infinite."""
    # The base is one shape for both axes, and the standard parametrisation's.
    wanted = ("width", "standard", SIZES["width"][0]) if size == SIZES[along][0] else (along, name, size)
    found: dict[int, dict[int, float]] = {}
    for run in runs:
        if (run["along"], run["parametrisation"], run["size"]) == wanted:
            found.setdefault(run["k"], {})[run["seed"]] = math.inf if run["loss"] is None else run["loss"]
    return {k: [by[seed] for seed in SEEDS] for k, by in sorted(found.items()) if set(SEEDS) <= set(by)}


def optimum(by_k: dict[int, list[float]]) -> dict[str, float]:
    """Bottom of a parabola in ln rate through the five rates around the lowest mean, each seed with its own level.

    Losses 10% above the lowest are past the edge of stability and left out, as ``scaling.hyperparameters.fit_valley``
    does. ``se`` is the standard error of ln rate by the residuals, which hold both noise and what is no parabola.
    """
    best = min(by_k, key=lambda k: float(np.mean(by_k[k])))
    used = [k for k in range(best - 2, best + 3) if k in by_k]
    x = np.repeat([k / 2 * math.log(2) for k in used], len(SEEDS))
    y = np.array([by_k[k] for k in used]).ravel()
    levels = np.tile(np.eye(len(SEEDS)), (len(used), 1))
    stable = y < 1.1 * y.min()
    x, y, levels = x[stable], y[stable], levels[stable]
    centre = x.mean()
    design = np.column_stack([(x - centre) ** 2, x - centre, levels])
    coefficients, _, _, _ = np.linalg.lstsq(design, y, rcond=None)
    residual = y - design @ coefficients
    freedom = len(y) - design.shape[1]
    covariance = np.linalg.inv(design.T @ design) * (residual @ residual / freedom)
    a, b = coefficients[:2]
    gradient = np.zeros(design.shape[1])
    gradient[:2] = b / (2 * a**2), -1 / (2 * a)
    return {
        "ln_rate": float(centre - b / (2 * a)),
        "se": float(np.sqrt(gradient @ covariance @ gradient)),
        "freedom": freedom,
        "loss": float(coefficients[2:].mean() - b**2 / (4 * a)),
        "best_k": best,
    }


def slope(sizes: tuple[int, ...], optima: list[dict[str, float]]) -> tuple[float, float]:
    """d ln(best rate) / d ln(size) and the half-width of its interval, with what the optima scatter about the line."""
    x, y = np.log(sizes), np.array([o["ln_rate"] for o in optima])
    weight = np.array([o["se"] for o in optima]) ** -2.0
    centre = weight @ x / weight.sum()
    spread = weight @ (x - centre) ** 2
    gradient = weight @ ((x - centre) * y) / spread
    misfit = y - (weight @ y / weight.sum() + gradient * (x - centre))
    freedom = len(x) - 2
    scatter = max(1.0, float(weight @ misfit**2) / freedom)
    # Where the line fits to within its points' own errors, those are known from all seeds' residuals.
    quantile = student.ppf(0.5 + LEVEL / 2, freedom if scatter > 1 else sum(o["freedom"] for o in optima))
    return float(gradient), float(quantile * math.sqrt(scatter / spread))


def findings(runs: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for along, sizes in SIZES.items():
        for name in FAMILIES[along]:
            tables = [rows(runs, along, name, size) for size in sizes]
            if not all(tables):
                continue
            optima = [optimum(table) for table in tables]
            base = int(optima[0]["best_k"])
            gradient, half = slope(sizes, optima)
            yield {
                "along": along,
                "parametrisation": name,
                "slope": gradient,
                "slope_interval": [gradient - half, gradient + half],
                "optima": [
                    {
                        "size": size,
                        "rate": math.exp(o["ln_rate"]),
                        "rate_interval": [
                            math.exp(o["ln_rate"] + side * student.ppf(0.5 + LEVEL / 2, o["freedom"]) * o["se"])
                            for side in (-1, 1)
                        ],
                        "loss": o["loss"],
                        # Paired by seed: the base's best rate against this size's best on the grid.
                        "cost_of_base_rate": float(np.mean(np.subtract(table[base], table[int(o["best_k"])]))),
                        "runs": sum(map(len, table.values())),
                    }
                    for size, o, table in zip(sizes, optima, tables, strict=True)
                ],
            }


def report() -> None:
    saved = json.loads(RESULTS.read_text())
    found = list(findings(list(saved["runs"].values())))
    for one in found:
        low, high = one["slope_interval"]
        print(f"\n{one['parametrisation']} over {one['along']}: best rate ~ {one['along']}^{one['slope']:.2f} "
              f"[{low:.2f}, {high:.2f}]")  # fmt: skip
        for o in one["optima"]:
            below, above = o["rate_interval"]
            print(f"  {o['size']:4d}  {o['rate']:.5f} [{below:.5f}, {above:.5f}]  loss {o['loss']:.4f}  "
                  f"base's rate costs {o['cost_of_base_rate']:.4f}")  # fmt: skip
    write_whole(RESULTS, json.dumps(saved | {"findings": found}, indent=0) + "\n")
    draw(list(saved["runs"].values()), found)


def draw(runs: list[dict[str, Any]], found: list[dict[str, Any]]) -> None:
    """Mean loss against the rate, a panel a parametrisation; a star is a size's optimum, the grey line the base's."""
    from analysis.style import INK, MARKERS, MUTED, PAGE_INCHES, log_axis, new_figure, ordered_colours, settings

    names = {"standard": "standard", "mup": "muP", "completep": "CompleteP"}
    with settings(PAGE_INCHES):
        figure = new_figure(PAGE_INCHES, 2.7 * len(found) / 2)
        grid = figure.subplots(len(found) // 2, 2, squeeze=False, sharey="row").ravel()
        for axes, one in zip(grid, found, strict=True):
            optima = one["optima"]
            axes.axvline(optima[0]["rate"], color=MUTED, linewidth=0.8)
            for o, colour, marker in zip(optima, ordered_colours([o["size"] for o in optima]), MARKERS, strict=False):
                table = rows(runs, one["along"], one["parametrisation"], o["size"])
                losses = [float(np.mean(each)) for each in table.values()]
                rates = [2 ** (k / 2) for k in table]
                axes.plot(rates, losses, color=colour, marker=marker, markersize=3.5, label=str(o["size"]))
                axes.plot(o["rate"], o["loss"], color=colour, marker="*", markersize=11, markeredgecolor=INK, zorder=3)
            low, high = one["slope_interval"]
            axes.set_title(f"{names[one['parametrisation']]}: best rate ~ {one['along']}$^{{{one['slope']:.2f}}}$")
            axes.text(0.03, 0.03, f"90%: {low:.2f} to {high:.2f}", transform=axes.transAxes, color=MUTED)
            log_axis(axes.xaxis, 5e-4, 8e-2, lambda rate: f"{rate:g}")
            lowest = min(o["loss"] for each in found if each["along"] == one["along"] for o in each["optima"])
            axes.set_ylim(lowest - 0.15, lowest + 1.0)
            axes.set_xlabel("peak learning rate, of the base")
            axes.legend(title="layers" if one["along"] == "depth" else "width", loc="upper left")
        for axes in grid[::2]:
            axes.set_ylabel("held-out loss (nats a token)")
        FIGURE.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(FIGURE)
        figure.savefig(FIGURE.with_suffix(".png"), dpi=160)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("train", "report"))
    parser.add_argument("along", nargs="?", choices=tuple(SIZES))
    parser.add_argument("--corpora", type=Path, default=Path(tempfile.gettempdir()) / "learning-rate-transfer")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    given = parser.parse_args()
    if given.action == "report":
        report()
        return
    corpus = prepare("starter", vocabulary=1024, held_out=0.05, cut_bytes=4096, into=given.corpora)
    bench = Bench(corpus, Numerics(precision=given.precision))
    for along in [given.along] if given.along else SIZES:
        bench.sweep(along)


if __name__ == "__main__":
    sys.exit(main())
