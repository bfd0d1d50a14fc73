"""``scaling cost`` as a process: numbers alone, a recommendation's file, the tables, and mistakes in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scaling.simulation import IsoflopDesign, simulate_isoflop

from .conftest import scaling

LECTURE = ("--params", "405e9", "--tokens", "15.6e12", "--gpus", "16384", "--price", "2")


def _json(*arguments: str, cwd: Path) -> dict[str, Any]:
    done = scaling("cost", *arguments, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert isinstance(value, dict)
    return value


def test_the_lectures_account_by_one_command(tmp_path: Path) -> None:
    more = (
        "--mfu",
        "0.4045",
        "--people",
        "50",
        "--team-days",
        "365",
        "--watts",
        "700",
        "--pue",
        "1",
        "--region",
        "240",
    )
    made = _json(*LECTURE, *more, cwd=tmp_path)
    assert made["flops"] == pytest.approx(3.8e25, rel=0.01)
    assert made["cluster"]["usd"]["estimate"] == pytest.approx(52e6, rel=0.02)
    assert made["salaries_usd"]["estimate"] == 25e6
    # What failures take is paid for in energy too.
    assert made["cluster"]["tco2e"]["estimate"] * made["failures"]["goodput"]["estimate"] == pytest.approx(
        4400, rel=0.02
    )
    assert [row["flops"] for row in made["crossed"]] == [1e23, 1e25]
    plan = made["cluster"]["plan"]
    assert plan["tensor"] * plan["pipeline"] * plan["context"] * plan["data"] == 16_384 and plan["fits"]


def test_the_page_is_one_page(tmp_path: Path) -> None:
    done = scaling("cost", *LECTURE, "--power-cap", "20000", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) < 60 and max(len(line) for line in lines) <= 100
    assert "the run is over it" in done.stdout


@pytest.mark.slow
def test_a_recommendations_file_is_priced_as_it_stands_or_on_other_devices(tmp_path: Path) -> None:
    truth = np.array([482.01, 2085.43, 1.81686, 0.34781, 0.36585])
    runs = simulate_isoflop(truth, IsoflopDesign(5, 7, 1e19), 0.003, np.random.default_rng(0))
    runs.to_csv(tmp_path / "runs.csv", index=False)
    for arguments in (
        ("fit", "runs.csv", "--bootstrap", "100", "--out", "fit.json"),
        ("recommend", "fit.json", "--gpus", "512", "--days", "20", "--out", "large.yaml"),
    ):
        done = scaling(*arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    same = _json("large.yaml", cwd=tmp_path)
    assert (same["cluster"]["gpus"], same["cluster"]["accelerator"]) == (512, "H100")
    other = _json("large.yaml", "--gpu", "b200", "--days", "10", cwd=tmp_path)
    assert other["flops"] == same["flops"] and other["cluster"]["accelerator"] == "B200"
    assert 5 < other["cluster"]["days"]["estimate"] <= 10
    both = scaling("cost", "large.yaml", "--params", "1e9", cwd=tmp_path)
    assert both.returncode == 2 and "--params and large.yaml both say" in both.stderr


def test_the_tables_are_listed(tmp_path: Path) -> None:
    tables = _json("--list", cwd=tmp_path)
    assert {"accelerators", "regions", "thresholds"} == tables.keys()
    text = scaling("cost", "--list", cwd=tmp_path).stdout
    for name in ("MI300X", "us-virginia", "RAISE Act", "revoked 2025-01-20"):
        assert name in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give --params and --tokens, or --flops"),
        (("--params", "1e9"), "give --params and --tokens, or --flops"),
        (("--flops", "nan"), "flops is nan"),
        (("--flops", "1e300"), "flops is 1e+300"),
        (("--params", "1e9", "--tokens", "0"), "tokens is 0"),
        (("--flops", "1e21", "--gpus", "8", "--days", "3"), "--gpus and --days both say how many"),
        (("--flops", "1e21", "--gpus", "0"), "gpus is 0"),
        (("--flops", "1e21", "--gpu", "h101"), "Did you mean H100"),
        (("--flops", "1e21", "--region", "frannce"), "Did you mean france"),
        (("--flops", "1e21", "--pue", "0.5"), "pue is 0.5"),
        (("--flops", "1e21", "--people", "-3"), "people is -3"),
        (("--flops", "1e21", "--power-cap", "-1"), "power_cap_kw is -1"),
        (("none.yaml",), "none.yaml can't be read"),
    ],
)
def test_mistakes_are_one_line_and_exit_with_two(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = scaling("cost", *arguments, cwd=tmp_path)
    assert done.returncode == 2 and said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_file_that_is_no_recommendation_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("run: {}\n", encoding="utf-8")
    done = scaling("cost", "other.yaml", cwd=tmp_path)
    assert done.returncode == 2 and "other.yaml is no recommendation" in done.stderr


def test_energy_and_carbon_are_asked_for_by_one_option_and_the_page_and_json_say_so(tmp_path: Path) -> None:
    truth = np.array([482.01, 2085.43, 1.81686, 0.34781, 0.36585])
    runs = simulate_isoflop(truth, IsoflopDesign(5, 7, 1e19), 0.003, np.random.default_rng(0))
    runs.to_csv(tmp_path / "runs.csv", index=False)
    assert scaling("fit", "runs.csv", "--bootstrap", "100", "--out", "fit.json", cwd=tmp_path).returncode == 0
    asked = ("recommend", "fit.json", "--tco2e", "20", "--region", "france", "--power-cap", "400")
    made = json.loads(scaling(*asked, "--json", cwd=tmp_path).stdout)
    assert made["cluster"]["tco2e"]["estimate"] == pytest.approx(20, rel=0.01)
    assert made["cluster"]["site_kw"] <= 400 == made["limits"]["power_cap_kw"]
    printed = scaling(*asked, cwd=tmp_path).stdout
    assert printed.startswith(("ILLUSTRATION", "20 t of CO2e by the grid of france for H100"))
    assert "of the site's power" in printed and "by dollars" in printed
    for wrong, said in (
        (("--max-kwh", "-1", "--flops", "1e22"), "--max-kwh is -1"),
        (("--power-cap", "0", "--flops", "1e22"), "--power-cap is 0"),
        (("--kwh", "0"), "kwh is 0"),
    ):
        done = scaling("recommend", "fit.json", *wrong, cwd=tmp_path)
        assert done.returncode == 2 and said in done.stderr and len(done.stderr.strip().splitlines()) == 1
