"""What ``scaling fit --json`` and ``scaling predict --json`` promise, by real processes: scripts are built on it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scaling import laws
from scaling.simulation import IsoflopDesign, simulate_isoflop

from .conftest import scaling

COLUMNS = "params=n_params,tokens=tokens,loss=loss,flops=flops"
BESIROGLU = [482.01, 2085.43, 1.81686, 0.34781, 0.36585]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """35 runs on five iso-FLOP lines, with a diverged run and an empty loss among the rows; and their fit."""
    folder = tmp_path_factory.mktemp("contract")
    runs = simulate_isoflop(np.array(BESIROGLU), IsoflopDesign(5, 7, 1e19), 0.003, np.random.default_rng(0))
    runs = runs.rename(columns={"params": "n_params"}).assign(status="finished")
    runs["flops"] = 6 * runs["n_params"] * runs["tokens"]
    runs.loc[3, "status"] = "diverged"
    runs.loc[7, "loss"] = np.nan
    runs.to_csv(folder / "runs.csv", index=False)
    made = scaling("fit", "runs.csv", "--columns", COLUMNS, "--bootstrap", "100", "--out", "fit.json", cwd=folder)
    assert made.returncode == 0, made.stderr
    return folder


def answer(done: subprocess.CompletedProcess[str], code: int = 0) -> dict[str, Any]:
    """The one object on standard output, which is JSON without NaN."""
    assert done.returncode == code, done.stderr

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    value = json.loads(done.stdout, parse_constant=refuse)
    assert isinstance(value, dict)
    return value


def is_triple(value: Any, *, bounded: bool = True) -> bool:
    if set(value) != {"estimate", "low", "high"}:
        return False
    if not bounded:
        return value["low"] is None and value["high"] is None
    return bool(value["low"] <= value["estimate"] <= value["high"])


def test_fit_answers_with_every_key_of_the_contract(folder: Path) -> None:
    fit = answer(
        scaling(
            "fit", "runs.csv", "--columns", COLUMNS, "--params-convention", "total", "--flops-convention", "6nd",
            "--law", "chinchilla", "--method", "all", "--huber-delta", "1e-3", "--bootstrap", "100", "--level", "0.8",
            "--json", cwd=folder,
        )
    )  # fmt: skip
    seen = fit["observations"]
    assert (seen["rows"], seen["used"]) == (35, 33)
    assert seen["rejected"] == [{"row": 4, "reason": "diverged"}, {"row": 8, "reason": "loss is empty"}]
    assert (seen["params_convention"], seen["flops_convention"]) == ("total", "6nd")
    law = fit["parametric"]
    assert (law["status"], law["reason"], law["law"]) == ("ok", None, "chinchilla")
    assert set(law["parameters"]) == {"A", "B", "E", "alpha", "beta"}
    assert all(is_triple(interval) for interval in law["parameters"].values())
    assert law["objective"] > 0
    assert is_triple(law["n_exponent"]) and is_triple(law["d_exponent"])
    lines = fit["isoflop"]
    assert (lines["status"], lines["reason"]) == ("ok", None)
    assert is_triple(lines["n_exponent"]) and is_triple(lines["d_exponent"])
    assert len(lines["optima"]) == 5
    for optimum in lines["optima"]:
        assert {"flops", "params", "tokens", "loss", "status"} <= set(optimum)
        assert optimum["status"] != "ok" or all(is_triple(optimum[name]) for name in ("params", "tokens", "loss"))
    envelope = fit["envelope"]
    assert (envelope["status"], envelope["reason"]) == ("ok", None)
    assert is_triple(envelope["n_exponent"]) and is_triple(envelope["d_exponent"])
    for optimum in envelope["optima"]:
        assert {"flops", "params", "tokens", "loss", "status"} <= set(optimum)
        assert optimum["status"] != "ok" or all(is_triple(optimum[name]) for name in ("params", "tokens", "loss"))
    assert isinstance(fit["diagnostics"], list)
    assert fit["level"] == 0.8
    assert fit["seconds"] > 0


@pytest.mark.parametrize("law", ["kaplan", "skaling"])
def test_another_law_is_fitted_kept_and_predicts(folder: Path, tmp_path: Path, law: str) -> None:
    kept = str(tmp_path / "fit.json")
    fit = answer(
        scaling(
            "fit", "runs.csv", "--columns", COLUMNS, "--law", law, "--method", "parametric", "--bootstrap", "50",
            "--out", kept, "--json", cwd=folder,
        )
    )  # fmt: skip
    assert (fit["parametric"]["status"], fit["parametric"]["law"]) == ("ok", law)
    assert tuple(fit["parametric"]["parameters"]) == laws.get(law).NAMES
    forecast = answer(scaling("predict", kept, "--flops", "1e21", "--json", cwd=folder))
    assert is_triple(forecast["loss"]) and is_triple(forecast["params"])


def test_a_law_that_is_none_is_one_line(folder: Path) -> None:
    done = scaling("fit", "runs.csv", "--columns", COLUMNS, "--law", "chinchila", cwd=folder)
    assert done.returncode == 2
    assert "law 'chinchila' is not known; choose one of:" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_an_approach_not_asked_for_says_so(folder: Path) -> None:
    fit = answer(
        scaling(
            "fit", "runs.csv", "--columns", COLUMNS, "--method", "isoflop", "--bootstrap", "0", "--json", cwd=folder
        )
    )
    assert (fit["parametric"]["status"], fit["parametric"]["reason"]) == ("refused", "not asked for")
    assert fit["isoflop"]["status"] == "ok"
    assert is_triple(fit["isoflop"]["n_exponent"], bounded=False)


def test_a_refusal_is_an_answer_with_its_reason_and_exit_code_three(tmp_path: Path) -> None:
    rows = [f"{n},{20 * n},{2 + 100 / n**0.3}" for n in (1e6, 2e6, 4e6, 8e6, 1.6e7, 3.2e7, 6.4e7)]
    (tmp_path / "runs.csv").write_text("\n".join(["params,tokens,loss", *rows]))
    fit = answer(scaling("fit", "runs.csv", "--json", cwd=tmp_path), code=3)
    assert {fit[name]["status"] for name in ("parametric", "isoflop", "envelope")} == {"refused"}
    assert "20 tokens a parameter" in fit["parametric"]["reason"]
    assert fit["isoflop"]["reason"]


@pytest.mark.parametrize("target", [("--flops", "1e22"), ("--params", "1e9", "--tokens", "3e10")])
def test_predict_answers_with_loss_params_tokens_and_the_distance(folder: Path, target: tuple[str, ...]) -> None:
    forecast = answer(scaling("predict", "fit.json", *target, "--json", cwd=folder))
    assert is_triple(forecast["loss"])
    given = target[0] == "--params"
    assert is_triple(forecast["params"], bounded=not given) and is_triple(forecast["tokens"], bounded=not given)
    assert forecast["extrapolation_orders"] > 0


def test_a_fit_of_an_older_layout_is_one_line_with_the_remedy(folder: Path, tmp_path: Path) -> None:
    old = json.loads((folder / "fit.json").read_text())
    old |= {"schema_version": 1, "params_convention": old["observations"].pop("params_convention")}
    (tmp_path / "old.json").write_text(json.dumps(old))
    done = scaling("predict", "old.json", "--flops", "1e22", cwd=tmp_path)
    assert done.returncode == 2
    assert "write it again with `scaling fit TABLE --out old.json`" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_figures_of_a_bare_table_are_drawn_beside_the_answer(folder: Path, tmp_path: Path) -> None:
    done = scaling("fit", str(folder / "runs.csv"), "--columns", COLUMNS, "--bootstrap", "50", "--figures", "drawn",
                   "--json", cwd=tmp_path)  # fmt: skip
    assert answer(done)["observations"]["used"] == 33
    names = {"loss_against_compute", "isoflop", "allocation", "predicted_actual", "residuals", "influence", "profiles"}
    names |= {"surface", "exponents", "coverage", "cost"}
    assert {path.name for path in (tmp_path / "drawn").iterdir()} == {
        f"{name}.{suffix}" for name in names for suffix in ("png", "svg")
    }
    assert "11 figures in drawn" in done.stderr
