from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scaling.fits.isoflop import fit_isoflop
from scaling.laws.chinchilla import CHINCHILLA
from scaling.table import read_table

THETA = np.array([400.0, 400.0, 1.7, 0.34, 0.30])


def _lines(budgets: list[float], offsets: np.ndarray, noise: float = 0.0, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frames = []
    for flops in budgets:
        best, _ = CHINCHILLA.optimum(THETA, flops)
        params = best * np.exp(offsets)
        tokens = flops / (6 * params)
        loss = CHINCHILLA.predict(THETA, params, tokens) * np.exp(noise * rng.standard_normal(len(params)))
        frames.append(pd.DataFrame({"params": params, "tokens": tokens, "loss": loss}))
    return pd.concat(frames, ignore_index=True)


NARROW = np.linspace(-1, 1, 7)


def test_noiseless_lines_give_back_the_optimum_and_its_exponent() -> None:
    fit, _ = fit_isoflop(read_table(_lines([1e18, 1e19, 1e20], NARROW)), bootstrap=0)
    truth, _ = CHINCHILLA.exponents(THETA)
    assert fit.n_exponent is not None and fit.d_exponent is not None
    assert fit.n_exponent.estimate == pytest.approx(float(truth), abs=1e-4)
    assert fit.n_exponent.estimate + fit.d_exponent.estimate == pytest.approx(1, abs=2e-3)
    for optimum in fit.optima:
        assert optimum.params is not None and optimum.loss is not None
        best, tokens = CHINCHILLA.optimum(THETA, optimum.flops)
        assert optimum.params.estimate == pytest.approx(float(best), rel=0.02)
        assert optimum.loss.estimate == pytest.approx(float(CHINCHILLA.predict(THETA, best, tokens)), rel=1e-3)


def test_a_local_window_is_less_biased_than_the_whole_line() -> None:
    """Ten factors of two around the optimum: a parabola over all of them misplaces N* by more (2603.22339)."""
    runs = _lines([1e18, 1e20], np.linspace(-3.5, 3.5, 15))
    fit, _ = fit_isoflop(read_table(runs), bootstrap=0)
    for optimum in fit.optima:
        line = runs[np.isclose(6 * runs.params * runs.tokens, optimum.flops, rtol=0.01)]
        wide = np.polyfit(np.log(line.params), line.loss, 2)
        truth = np.log(CHINCHILLA.optimum(THETA, optimum.flops)[0])
        assert optimum.params is not None
        local_error = abs(np.log(optimum.params.estimate) - truth)
        assert local_error < 0.5 * abs(-wide[1] / (2 * wide[0]) - truth)


def test_edge_curvature_and_few_runs_are_told_apart() -> None:
    good = _lines([1e20, 1e21], NARROW)
    edge = _lines([1e18], np.linspace(0.5, 2, 5))
    few = _lines([1e17], np.array([-0.5, 0, 0.5]))
    bent = _lines([1e19], NARROW)
    bent["loss"] = 6 - bent["loss"]
    fit, diagnostics = fit_isoflop(read_table(pd.concat([good, edge, few, bent])), bootstrap=100)
    assert [optimum.status for optimum in fit.optima] == ["too few", "edge", "curvature", "ok", "ok"]
    assert fit.status == "ok"
    assert {note.code for note in diagnostics} == {"isoflop-rejected", "isoflop-two"}


def test_one_usable_budget_is_refused_with_the_cure() -> None:
    runs = pd.concat([_lines([1e20], NARROW), _lines([1e18], np.linspace(0.5, 2, 5))])
    fit, _ = fit_isoflop(read_table(runs))
    assert fit.status == "refused"
    assert fit.reason is not None
    assert "1 budgets have a minimum" in fit.reason and "add sizes below" in fit.reason
    assert [optimum.status for optimum in fit.optima] == ["edge", "ok"]


def test_a_budget_column_groups_runs_whatever_their_flops() -> None:
    runs = _lines([1e18, 1.1e18, 1e20], NARROW)
    runs["budget"] = np.repeat([1e18, 1e18, 1e20], len(NARROW))
    assert len(fit_isoflop(read_table(runs))[0].optima) == 2


PORIAN = [
    (("base", "long", "kaplan", "kaplan", "train"), 0.8635),
    (("base", "long", "kaplan", "standard", "val"), 0.6985),
    (("base", "short", "kaplan", "standard", "val"), 0.6032),
    (("base", "short", "chinchilla", "standard", "val"), 0.5743),
    (("tuned", "short", "const", "standard", "val"), 0.5185),
]


@pytest.mark.shared
@pytest.mark.parametrize(("setting", "published"), PORIAN)
def test_porians_exponents_are_approached(shared_data: Path, setting: tuple[str, ...], published: float) -> None:
    """2406.19146's five settings. Their Akima interpolation comes later; a local parabola is within 0.04."""
    runs = pd.read_csv(shared_data / "published" / "porian_owt2_isoflop_points.csv")
    keys = ["hparams", "warmup", "decay", "param_count", "split"]
    chosen = runs[(runs[keys] == list(setting)).all(axis=1)]
    fit, _ = fit_isoflop(read_table(chosen, flops_convention="exact"), bootstrap=200)
    assert fit.n_exponent is not None
    assert fit.n_exponent.estimate == pytest.approx(published, abs=0.04)
