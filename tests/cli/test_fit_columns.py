"""`scaling fit` with laws of other columns than parameters and tokens, each from a table as a user has it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scaling.laws.fine_tuning import FINE_TUNING
from scaling.laws.over_optimisation import OVER_OPTIMISATION_RL

from .conftest import scaling

CURVE = "kl_nats=kl,gold=score,proxy=reward,seed=run"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs of reinforcement learning whose gold score peaks at √KL = e^(0.6/0.35 − 1) = 2.043, 4.17 nats; and 25
    fine-tunings of five sizes on five numbers of examples."""
    folder, rng = tmp_path_factory.mktemp("columns"), np.random.default_rng(0)
    kl = np.append(0, np.geomspace(0.05, 60, 14))
    runs = [
        pd.DataFrame(
            {
                "run": f"seed-{seed}", "kl": kl, "reward": 0.2 + 0.7 * np.sqrt(kl),
                "score": OVER_OPTIMISATION_RL.predict((0.2, 0.6, 0.35), np.maximum(kl, 1e-12))
                + 0.01 * rng.standard_normal(15),
            }
        )
        for seed in range(3)
    ]  # fmt: skip
    pd.concat(runs).to_csv(folder / "ppo.csv", index=False)
    params, examples = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e9, 16e9, 5), np.geomspace(1e3, 256e3, 5)))
    loss = FINE_TUNING.predict((30, 0.12, 0.08, 1.2), params, examples) * np.exp(0.002 * rng.standard_normal(25))
    pd.DataFrame({"params": params, "rows": examples, "loss": loss}).to_csv(folder / "tuned.csv", index=False)
    return folder


def test_over_optimisation_of_a_table_says_where_gold_peaks(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "fit.json"
    done = scaling(
        "fit", "ppo.csv", "--law", "over-optimisation-rl", "--columns", CURVE, "--bootstrap", "400", "--out", str(out),
        "--json", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["rows"], told["seeds"], told["status"]) == (45, 3, "ok")
    peak = told["peak_kl_nats"]["value"]
    assert peak["estimate"] == pytest.approx(4.17, rel=0.1)
    assert peak["low"] < 4.17 < peak["high"]
    assert told["peak_gold"]["value"]["estimate"] == pytest.approx(0.2 + 0.35 * 2.043, abs=0.02)
    assert told["return_kl_nats"]["value"]["estimate"] == pytest.approx(30.8, rel=0.1)
    assert "draws" not in told["gold"] and json.loads(out.read_text())["gold"]["draws"]
    page = scaling(
        "fit", "ppo.csv", "--law", "over-optimisation-rl", "--columns", CURVE, "--bootstrap", "50", "--figures",
        str(tmp_path), cwd=folder,
    )  # fmt: skip
    assert (tmp_path / "over_optimisation.png").stat().st_size > 10_000
    assert "R = R_0 + d·(α − β·ln d)" in page.stdout and "peak at" in page.stdout


def test_fine_tuning_of_a_table_is_the_law_with_intervals_and_predicts(folder: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "tuned.json")
    done = scaling(
        "fit", "tuned.csv", "--law", "fine-tuning", "--columns", "x=params,finetuning_examples=rows", "--bootstrap",
        "100", "--out", out, "--json", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["law"] == "fine-tuning" and told["rows"] == 25
    assert told["parameters"]["E"]["low"] < 1.2 < told["parameters"]["E"]["high"]
    at = ("predict", out, "--at", "finetuning_examples=1e6, x=16e9")
    forecast = json.loads(scaling(*at, "--json", cwd=tmp_path).stdout)
    truth = float(FINE_TUNING.predict((30, 0.12, 0.08, 1.2), 16e9, 1e6))
    assert forecast["low"] < forecast["estimate"] < forecast["high"]
    assert forecast["estimate"] == pytest.approx(truth, rel=0.02)
    assert forecast["within_fitted_range"] == {"x": True, "finetuning_examples": False}
    assert "! finetuning_examples 1e+06 lies beyond the fitted" in scaling(*at, cwd=tmp_path).stdout
    wrong = scaling("predict", out, "--at", "x=16e9", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "--at has x: this fit's law is of x, finetuning_examples" in wrong.stderr


def test_what_can_not_be_fitted_is_refused_with_exit_code_three(folder: Path, tmp_path: Path) -> None:
    pd.read_csv(folder / "ppo.csv").groupby("run").head(3).to_csv(tmp_path / "few.csv", index=False)
    done = scaling("fit", "few.csv", "--law", "over-optimisation-rl", "--columns", CURVE, cwd=tmp_path)
    assert done.returncode == 3
    assert "refused: 3 distinct divergences" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("ppo.csv", "--law", "over-optimisation-rl"), "data has no column 'kl_nats'"),
        (("no.csv", "--law", "fine-tuning"), "no.csv is not a file: --law fine-tuning takes a table"),
        (("tuned.csv", "--law", "fine-tuning", "--average", "kaplan"), "--average is of laws of parameters and tokens"),
        (("tuned.csv", "--law", "fine-tuning", "--resample", "trunk"), "--resample is 'trunk': with --law fine-tuning"),
        (
            ("tuned.csv", "--law", "fine-tuning", "--columns", "z=rows"),
            "columns has 'z': the inputs of fine-tuning are",
        ),
        (
            ("ppo.csv", "--law", "over-optimisation-rl", "--huber-delta", "1"),
            "--huber-delta and --resample are not for",
        ),
    ],
)
def test_bad_input_is_one_line(folder: Path, arguments: tuple[str, ...], says: str) -> None:
    done = scaling("fit", *arguments, cwd=folder)
    assert done.returncode == 2
    assert says in done.stderr and len(done.stderr.strip().splitlines()) == 1
