"""A study whose truth is known: a Chinchilla law at the quickstart's size, five sizes by four budgets, a hold-out."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
import pytest

from analysis.study_view import CURVE_COLUMNS, PlanRow, StudyView, TrainedRun
from scaling.fit import Fit
from scaling.fits.together import fit_table
from scaling.forecast import Forecast, Outcome
from scaling.hyperparameters import LearningRateLaw, fit_valley, law_from_probe
from scaling.laws.chinchilla import CHINCHILLA
from scaling.observation import COLUMNS
from scaling.prediction import predict, score
from scaling.recommend import recommend
from scaling.recommendation import Recommendation

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM_FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
TRUTH = (100.0, 170.0, 2.2, 0.35, 0.35)
BUDGETS = (8e10, 2e11, 4.9e11, 1.2e12)
HOLD_OUT_FLOPS = 5.0e12
NOISE = 0.004
VOCABULARY_ENTROPY = 7.6
"""ln 2048: the loss of a model that has seen nothing."""


@dataclass(frozen=True)
class Simulated:
    observations: pd.DataFrame
    curves: pd.DataFrame


def _row(key: str, role: str, params: float, tokens: float, loss: float, seed: int) -> dict[str, object]:
    flops = 6.0 * params * tokens
    return dict.fromkeys(COLUMNS, "") | {
        "run_key": key,
        "trunk_key": key,
        "study": "simulated",
        "label": f"{role} {params:.3g} x {tokens:.3g}",
        "phase": "final",
        "role": role,
        "architecture": "llama",
        "parametrisation": "standard",
        "context": 128,
        "params_total": int(params),
        "params_nonembedding": int(params * 0.6),
        "params_with_head": int(params),
        "tokens": int(tokens),
        "unique_tokens": 3_600_000,
        "flops_exact": flops * 1.1,
        "flops_6nd": flops,
        "loss_nats": loss,
        "bits_per_byte": loss * 0.335,  # 4.3 bytes a token
        "loss_sem": 0.01,
        "seed": seed,
        "learning_rate": 4e-3,
        "batch_tokens": 2048,
        "schedule": "wsd",
        "numerics": "cpu bf16 eager t1",
        "status": "finished",
        "wall_seconds": flops / 2e10,
        "device": "cpu",
    }


def _curve(key: str, params: float, tokens: float, final: float, noise: np.random.Generator) -> pd.DataFrame:
    steps = np.unique(np.geomspace(1, max(tokens / 2048, 40), 120).astype(int))
    spent = steps / steps[-1] * tokens
    law = CHINCHILLA.predict(TRUTH, params, np.maximum(spent, 1.0))
    cooldown = 0.05 * np.clip((1 - spent / tokens) / 0.2, 0.0, 1.0)
    loss = np.minimum(law + cooldown + (final - law[-1]), VOCABULARY_ENTROPY)
    held_out = np.where((np.arange(steps.size) % 10 == 9) | (steps == steps[-1]), loss, np.nan)
    return pd.DataFrame(
        {
            "run_key": key,
            "step": steps,
            "tokens": spent,
            "flops": 6 * params * spent,
            "train_loss": loss * np.exp(0.01 * noise.standard_normal(steps.size)),
            "held_out_loss": held_out,
        }
    )


def simulate(budgets: tuple[float, ...] = BUDGETS, sizes: int = 5, seed: int = 0, replicates: int = 2) -> Simulated:
    """``sizes`` models of one ladder around each budget's optimum, ``replicates`` of one hold-out, 0.4% noise."""
    noise = np.random.default_rng(seed)
    points: list[tuple[str, float, float]] = []
    for budget in budgets:
        optimum, _ = CHINCHILLA.optimum(TRUTH, budget)
        centre = 28_000 * 1.55 ** round(float(np.log(optimum / 28_000) / np.log(1.55)))
        ladder = centre * 1.55 ** (np.arange(sizes) - sizes // 2)
        points += [("fit", float(params), budget / 6 / float(params)) for params in ladder]
    best, _ = CHINCHILLA.optimum(TRUTH, HOLD_OUT_FLOPS)
    points += [("hold-out", float(best), HOLD_OUT_FLOPS / 6 / float(best))] * replicates
    rows, curves = [], []
    for index, (role, params, tokens) in enumerate(points):
        loss = float(CHINCHILLA.predict(TRUTH, params, tokens)) * np.exp(NOISE * noise.standard_normal())
        key = f"{index:04x}" + "0" * 60
        rows.append(_row(key, role, params, tokens, loss, seed=index))
        curves.append(_curve(key, params, tokens, loss, noise))
    return Simulated(
        pd.DataFrame(rows, columns=list(COLUMNS)), pd.concat(curves, ignore_index=True)[list(CURVE_COLUMNS)]
    )


def probed() -> LearningRateLaw:
    """Exact parabolas at two sizes, their bottoms at 0.0100 and 0.0063; the highest rate of the larger diverged."""
    valleys = []
    for params, bottom in ((28e3, 0.01), (112e3, 0.0063)):
        rates = [0.0025 * 2**step for step in range(5)]
        losses = [5.0 * (1 + 0.02 * math.log(rate / bottom) ** 2) for rate in rates]
        if params > 1e5:
            losses[-1] = math.nan
        valleys.append((params, fit_valley(rates, losses)))
    return law_from_probe(valleys)


RATE = 2e10
"""FLOP/s of one worker of the made-up machine, which its plan expected to be a quarter faster."""
NIGHT = 30_000.0


def trained(observations: pd.DataFrame, workers: int = 2) -> tuple[tuple[TrainedRun, ...], dict[str, float]]:
    """The sweep, longest run first on whichever worker is free, and after a night the hold-out; with the seconds that
    the plan expected of each stage."""
    now, runs, expected = 1.7e9, [], {}
    for stage, role in (("sweep", "fit"), ("hold-out", "hold-out")):
        free = [now] * workers
        rows = observations[observations["role"] == role].sort_values("flops_6nd", ascending=False, kind="stable")
        for key, label, flops in zip(rows["run_key"], rows["label"], rows["flops_6nd"], strict=True):
            worker = free.index(min(free))
            start, free[worker] = free[worker], free[worker] + flops / RATE
            runs.append(
                TrainedRun(key, label, stage, "finished", start, free[worker], flops / RATE, flops / RATE / 1.25)
            )
        expected[stage] = (max(free) - now) / 1.25
        now = max(free) + NIGHT
    return tuple(runs), expected


@pytest.fixture(scope="session")
def simulated() -> Simulated:
    return simulate()


@pytest.fixture(scope="session")
def fit(simulated: Simulated) -> Fit:
    return fit_table(simulated.observations, flops_convention="6nd", bootstrap=200)


@pytest.fixture(scope="session")
def forecast(fit: Fit) -> Forecast:
    return predict(fit, flops=HOLD_OUT_FLOPS)


@pytest.fixture(scope="session")
def outcome(forecast: Forecast, simulated: Simulated) -> Outcome:
    rows = simulated.observations.query("role == 'hold-out'")
    return score(forecast, list(rows["loss_nats"]), list(rows["run_key"]))


@pytest.fixture(scope="session")
def recommendation(fit: Fit) -> Recommendation:
    return recommend(fit, gpus=64, days=7, accelerator="h100", study="simulated")


@pytest.fixture(scope="session")
def make_view(
    simulated: Simulated, fit: Fit, forecast: Forecast, outcome: Outcome, recommendation: Recommendation
) -> Callable[..., StudyView]:
    """The whole study; keyword arguments replace fields."""

    def build(**changes: object) -> StudyView:
        runs, expected = trained(simulated.observations)
        fields: dict[str, object] = {
            "name": "simulated",
            "question": "Where should 64 H100s spend 7 days?",
            "observations": simulated.observations,
            "curves": simulated.curves,
            "fit": fit,
            "forecast": forecast,
            "outcome": outcome,
            "recommendation": recommendation,
            "learning_rates": probed(),
            "trained": runs,
            "expected_stage_seconds": expected,
            "plan": (
                PlanRow("budget 1", 5, (28e3, 105e3), (1.3e5, 4.7e5), 4e11, 0.3, "iso-FLOP line"),
                PlanRow("hold-out", 2, (430e3, 430e3), (1.9e6, 1.9e6), 1e13, 2.0, "forecast first, trained after"),
            ),
            "corpus": "Simulated losses from a known law; no text was read.",
            "machine": "a random number generator",
            "reproduce_command": "pytest tests/analysis",
            "mlflow_command": "mlflow ui --backend-store-uri sqlite:///mlflow.db",
        }
        return StudyView(**(fields | changes))  # type: ignore[arg-type]

    return build


@pytest.fixture(scope="session")
def view(make_view: Callable[..., StudyView]) -> StudyView:
    return make_view()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, headless; a test that wants it is skipped where there is none."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no Chromium here (Debian: apt-get install chromium)")
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (the dev extra has it)")
    with driver.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens an address on a page of its own; what goes wrong in its scripts, or breaks its policy, fails the test."""
    contexts, faults = [], []

    def opened(address: str, *, width: int = 1280, dark: bool = False, offline: bool = True) -> Page:
        scheme: Literal["dark", "light"] = "dark" if dark else "light"
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=offline)
        contexts.append(context)
        context.set_default_timeout(60_000)  # milliseconds: the cores may be everybody's
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()
    # A page that polls a server outlives it in one test.
    faults = [fault for fault in faults if "ERR_CONNECTION_REFUSED" not in fault]
    assert not faults, faults
