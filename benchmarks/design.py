"""What the design by information buys: simulated studies of known truth, against five iso-FLOP lines of seven runs.

    python benchmarks/design.py interval|outside [--study-limits] [--seed 1] [--workers 1] [--out FILE.json]

``interval``: the least share of the lines' compute at which designs by information know ln L and ln N* at the
target as well as the lines do, and ln L alone where runs may branch from trunks. ``outside``: both designs at
the same compute where the truth is not of the law that is fitted. Everything is measured by fitting simulated runs on
the architecture's real shapes, with the estimators of ``scaling fit``. With ``--study-limits`` designs by information
keep to the limits that a study file has by default, and the lines' budgets are 2.2 apart, so that theirs do too.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from scaling.design.design import Design
from scaling.design.family import Family
from scaling.design.information import Limits, information_design
from scaling.design.isoflop import budgets_for, isoflop_design
from scaling.design.law_prior import LawPrior
from scaling.design.trunks import trunk_numbers
from scaling.fits.bootstrap import SHARED_VARIANCE
from scaling.fits.drift import DriftPrior, fit_drift
from scaling.fits.estimate import estimate, refit
from scaling.laws.chinchilla import CHINCHILLA
from scaling.published import chinchilla_constants
from scaling.simulation import random_small_truth
from sweeps.design_settings import InformationDesign

NOISE, DELTA, COOLDOWN = 0.004, 1e-3, 0.15
SHARES = (0.5, 0.43, 0.36, 0.3, 0.25, 0.18)
STUDIES, TRUTHS = 600, 130
"""Studies behind each SD of ``interval``; truths of ``outside``, one study of each under every alternative."""
COARSE = DriftPrior(tau_grid=(0.01, 0.04, 0.16), noise_grid=(0.7, 1.0, 1.5))
"""The forecast's own prior on fewer nodes, a quarter of the time; means differ by under 0.001 in log loss."""
Loss = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Setting:
    """A family of shapes, what the lines cost together, and the target's compute."""

    name: str
    family: Family
    flops: float
    target: float
    middle: float
    prior: LawPrior
    ratio: float = 4.0
    limits: Limits = field(default_factory=lambda: Limits(most_runs=35))

    def under_study_limits(self) -> Setting:
        study = InformationDesign()
        limits = Limits(
            most_runs=35,
            smallest_share=study.smallest_share,
            largest_share=study.largest_share,
            ratio_reach=study.ratio_reach,
            fewest_steps=study.fewest_steps,
        )
        return replace(self, ratio=2.2, limits=limits)

    def lines(self) -> Design:
        """Five budgets, of seven sizes over a factor of 16, around what the prior expects."""
        return isoflop_design(
            self.family,
            budgets=budgets_for(self.flops, 5, self.ratio, 7),
            sizes_per_budget=7,
            tokens_per_param_centre=self.prior.tokens_per_param(self.middle),
            size_step=16 ** (1 / 6),
        )

    def informed(self, share: float, *, branches: bool = False, loss_alone: bool = False) -> Design:
        """At most as many runs as the lines have, for a share of their compute."""
        return information_design(
            self.family,
            share * self.flops,
            target_flops=self.target,
            prior=self.prior,
            noise=NOISE,
            weights=(1.0, 0.0) if loss_alone else (1.0, 1.0),
            cooldown=COOLDOWN if branches else None,
            limits=self.limits,
        )


LAB = Setting(
    "Epoch's constants, 1.0e21 FLOPs, target 1e23",
    Family("llama", 32_000, 2048, True, 131_072), 1.02e21, 1e23, 7e18, LawPrior.published(1e20),
)  # fmt: skip
LAPTOP = Setting(
    "random truths, 4.5e14 FLOPs, target 1e17",
    Family("llama", 256, 128, True, 512), 4.5e14, 1e17, 3e12, LawPrior.plausible(3e12),
)  # fmt: skip


def runs_of(design: Design) -> tuple[np.ndarray, np.ndarray]:
    params = np.array([point.params.total for point in design.points], dtype=np.float64)
    return params, np.array([point.tokens for point in design.points], dtype=np.float64)


def shocks(design: Design, studies: int, rng: np.random.Generator) -> np.ndarray:
    """Log noise (studies, n); branches of one trunk share half of its variance."""
    trunk_n = trunk_numbers(design.points)
    own, shared = rng.standard_normal((studies, len(trunk_n))), rng.standard_normal((studies, trunk_n.max() + 1))
    return NOISE * (math.sqrt(1 - SHARED_VARIANCE) * own + math.sqrt(SHARED_VARIANCE) * shared[:, trunk_n])


def spread(setting: Setting, design: Design, truths: list[np.ndarray], studies: int) -> np.ndarray:
    """SD of the estimates of ln L and of ln N* at the target, under each truth: (truths, 2)."""
    params, tokens = runs_of(design)
    per_param_token = float(np.median([point.flops / point.params.total / point.tokens for point in design.points]))
    rng = np.random.default_rng(7)
    rows = []
    for theta in truths:
        exact = CHINCHILLA.predict(theta, params, tokens)
        found = estimate(CHINCHILLA, (params, tokens), exact, DELTA)
        targets = np.log(exact) + shocks(design, studies, rng)
        fitted = refit(found, (params, tokens), targets, np.ones_like(targets), DELTA)
        best_n, best_d = (one.ravel() for one in CHINCHILLA.optimum(fitted, setting.target, per_param_token))
        a, b, e, alpha, beta = fitted.T
        rows.append([np.log(e + a * best_n**-alpha + b * best_d**-beta).std(), np.log(best_n).std()])
    return np.array(rows)


def small_truths(count: int, middle: float, seed: int = 1) -> list[np.ndarray]:
    """Random truths of small studies, moved along compute so that ``middle`` is the middle of the study."""
    rng = np.random.default_rng(seed)
    truths = []
    for _ in range(count):
        theta, at = random_small_truth(rng)
        moved = math.sqrt(middle / at)
        theta[0] *= moved ** theta[3]
        theta[1] *= moved ** theta[4]
        truths.append(theta)
    return truths


def same_interval(setting: Setting, truths: list[np.ndarray], studies: int, told: Callable[[str], None]) -> dict:
    """SDs of the lines, and ratios to them (geometric means over truths) of designs for each share of their compute."""
    lines = setting.lines()
    of_lines = spread(setting, lines, truths, studies)
    answer = {
        "runs": len(lines.points),
        "flops": lines.flops,
        "studies": studies * len(truths),
        "sd_log_loss": float(np.exp(np.log(of_lines[:, 0]).mean())),
        "sd_log_params": float(np.exp(np.log(of_lines[:, 1]).mean())),
    }
    for name, branches, loss_alone in (
        ("separate runs", False, False),
        ("runs and branches", True, False),
        ("loss alone, branches", True, True),
    ):
        rows = []
        for share in SHARES:
            design = setting.informed(share, branches=branches, loss_alone=loss_alone)
            ratios = np.exp(np.log(spread(setting, design, truths, studies) / of_lines).mean(axis=0))
            rows.append(
                {
                    "share": design.flops / lines.flops,
                    "runs": len(design.points),
                    "sizes": len(design.shapes),
                    "sd_log_loss_ratio": float(ratios[0]),
                    "sd_log_params_ratio": float(ratios[1]),
                }
            )
            told(f"{setting.name}: {name} at {share:.2f}")
        # As far down as every larger share does as well: a lucky one below a miss is not counted.
        good: list[float] = []
        for row in rows:
            if row["sd_log_loss_ratio"] > 1 or (row["sd_log_params_ratio"] > 1 and not loss_alone):
                break
            good.append(row["share"])
        answer[name] = {"least_share": min(good, default=None), "shares": rows}
    return answer


def alternatives(theta: np.ndarray, middle: float) -> dict[str, Loss]:
    """Truths that are not of Chinchilla's form, equal or close to ``theta``'s at the optimum of ``middle`` FLOPs."""
    _, _, e, alpha, beta = theta
    n0, d0 = (float(value) for value in CHINCHILLA.optimum(theta, middle))
    part_n, part_d = theta[0] * n0**-alpha, theta[1] * d0**-beta
    reducible = part_n + part_d
    level = e + reducible

    def law(n: np.ndarray, d: np.ndarray) -> np.ndarray:
        return CHINCHILLA.predict(theta, n, d)

    def decades(n: np.ndarray, d: np.ndarray) -> np.ndarray:
        return np.log10(6 * n * d / middle)

    def drifting(log_factor: Loss) -> Loss:
        return lambda n, d: e + (law(n, d) - e) * np.exp(log_factor(n, d))

    def skaling(k: float) -> Loss:
        return lambda n, d: (
            e
            + reducible
            * (part_n / reducible * (n / n0) ** (-alpha / k) + part_d / reducible * (d / d0) ** (-beta / k)) ** k
        )

    def kaplan(n: np.ndarray, d: np.ndarray) -> np.ndarray:
        slope_n, slope_d = 0.8 * alpha * part_n / level, 0.8 * beta * part_d / level
        return level * (0.5 * (n / n0) ** (-slope_n / slope_d) + 0.5 * d0 / d) ** slope_d

    def small(n: np.ndarray) -> np.ndarray:
        return np.maximum(-np.log10(n / n0) - 0.3, 0) ** 1.5

    def past_middle(n: np.ndarray, d: np.ndarray) -> np.ndarray:
        return np.logaddexp(0, 6 * decades(n, d)) / 6

    def off_ratio(n: np.ndarray, d: np.ndarray) -> np.ndarray:
        return np.log10(d / n * n0 / d0) ** 2

    return {
        "the law": law,
        "Kaplan's form": kaplan,
        "Skaling, k 0.5": skaling(0.5),
        "Skaling, k 2": skaling(2.0),
        "broken power, flatter": drifting(lambda n, d: 0.05 * past_middle(n, d)),
        "broken power, steeper": drifting(lambda n, d: -0.05 * past_middle(n, d)),
        "exponent falls": drifting(lambda n, d: 0.01 * decades(n, d) ** 2),
        "exponent rises": drifting(lambda n, d: -0.01 * decades(n, d) ** 2),
        "large sizes mistuned": lambda n, d: law(n, d) * np.exp(0.01 * np.maximum(np.log10(n / n0), 0) ** 2),
        "D/N off its best costs more": drifting(lambda n, d: 0.03 * off_ratio(n, d)),
        "D/N off its best costs less": drifting(lambda n, d: -0.03 * off_ratio(n, d)),
        "small sizes worse": drifting(lambda n, d: 0.1 * small(n)),
        "small sizes better": drifting(lambda n, d: -0.1 * small(n)),
    }


def forecast_errors(setting: Setting, design: Design, theta: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Errors of ln L forecast at the target under each alternative: with the law's drift, and by the law alone."""
    params, tokens = runs_of(design)
    per_param_token = float(np.median([point.flops / point.params.total / point.tokens for point in design.points]))
    best_n, best_d = (float(value) for value in CHINCHILLA.optimum(theta, setting.target, per_param_token))
    rows = []
    for truth in alternatives(theta, setting.middle).values():
        actual = float(np.log(truth(np.array(best_n), np.array(best_d))))
        model = fit_drift(CHINCHILLA, params, tokens, truth(params, tokens) * np.exp(noise), prior=COARSE)
        alone = float(np.log(CHINCHILLA.predict(model.plain.theta, best_n, best_d)))
        rows.append((model.predictive(best_n, best_d).mean - actual, alone - actual))
    return np.array(rows)


def outside(setting: Setting, truths: list[np.ndarray], told: Callable[[str], None], workers: int, seed: int) -> dict:
    """rms errors of ln L forecast at the target for each alternative, one study a truth: with the law's drift, as
    ``scaling predict`` forecasts, and by the law alone; ``lines`` and ``informed`` at the same compute."""
    designs = {"lines": setting.lines(), "informed": setting.informed(1.0)}
    errors: dict[str, list[np.ndarray]] = {name: [] for name in designs}
    with ProcessPoolExecutor(workers) as pool:
        for name, design in designs.items():
            noise = shocks(design, len(truths), np.random.default_rng(7 + seed))
            of_one = partial(forecast_errors, setting, design)
            for study, found in enumerate(pool.map(of_one, truths, noise), 1):
                errors[name].append(found)
                told(f"outside the law: {name}, study {study}")
    by_design = {name: np.array(found) for name, found in errors.items()}
    return {
        kind: {
            estimator: _compared(by_design["lines"][:, row, at], by_design["informed"][:, row, at])
            for at, estimator in enumerate(("forecast", "law alone"))
        }
        for row, kind in enumerate(alternatives(truths[0], setting.middle))
    }


def _compared(lines: np.ndarray, informed: np.ndarray) -> dict:
    """Root mean squares of two designs' errors, and their ratio with its 90% over resamples of the truths."""
    squares = np.square([informed, lines])
    pick = np.random.default_rng(9).integers(0, len(lines), (2000, len(lines)))
    means = squares[:, pick].mean(axis=2)
    rms_informed, rms_lines = np.sqrt(squares.mean(axis=1))
    return {
        "lines": float(rms_lines),
        "informed": float(rms_informed),
        "ratio": float(rms_informed / rms_lines),
        "ratio_90": [float(value) for value in np.quantile(np.sqrt(means[0] / means[1]), [0.05, 0.95])],
    }


def report_interval(parts: dict) -> None:
    for name, part in parts.items():
        print(f"\n{name}: lines know ln L to {part['sd_log_loss']:.4f} and ln N* to {part['sd_log_params']:.3f}")
        for kind in ("separate runs", "runs and branches", "loss alone, branches"):
            share = part[kind]["least_share"]
            print(f"  {kind}: as well for {'more than half' if share is None else f'{share:.2f}'} of the compute")


def report_outside(rows: dict) -> None:
    print("\nrms error of ln L at the target, lines / informed at the same compute:")
    for kind, row in rows.items():
        told = row["forecast"]
        print(
            f"  {kind}: {told['lines']:.4f} / {told['informed']:.4f}, ratio {told['ratio']:.2f} "
            f"[{told['ratio_90'][0]:.2f}, {told['ratio_90'][1]:.2f}]; law alone {row['law alone']['ratio']:.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("part", choices=("interval", "outside"))
    parser.add_argument("--study-limits", action="store_true")
    parser.add_argument("--seed", type=int, default=1, help="of outside's truths and noise")
    parser.add_argument("--workers", type=int, default=1, help="processes of outside")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    lab, laptop = (s.under_study_limits() if arguments.study_limits else s for s in (LAB, LAPTOP))
    started, done = time.monotonic(), 0
    total = 2 * 3 * len(SHARES) if arguments.part == "interval" else 2 * TRUTHS

    def told(what: str) -> None:
        nonlocal done
        done += 1
        if done % 6 == 0:
            left = (time.monotonic() - started) / done * (total - done)
            print(f"{what}; {left / 60:.0f} min left", file=sys.stderr, flush=True)

    if arguments.part == "interval":
        epoch = chinchilla_constants("besiroglu")
        assert epoch is not None
        result = {
            lab.name: same_interval(lab, [epoch], STUDIES, told),
            laptop.name: same_interval(laptop, small_truths(STUDIES // 20, laptop.middle), 20, told),
        }
        report_interval(result)
    else:
        truths = small_truths(TRUTHS, laptop.middle, arguments.seed)
        result = outside(laptop, truths, told, arguments.workers, arguments.seed)
        report_outside(result)
    part = f"{arguments.part} under a study's limits" if arguments.study_limits else arguments.part
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        kept = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.is_file() else {}
        kept |= {"noise": NOISE, "cooldown": COOLDOWN, "truths_outside": TRUTHS, part: result}
        if arguments.part == "outside":
            kept[f"seed of {part}"] = arguments.seed
        arguments.out.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
