"""`scaling preference`: a file of pairs, read, judged and cleaned."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from .conftest import scaling


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 pairs of two models, three annotators, a judge and a reward model, all of whom know something; and faults."""
    folder, rng = tmp_path_factory.mktemp("pairs"), np.random.default_rng(0)
    rows: list[dict[str, object]] = []
    for index in range(400):
        better = float(rng.normal(0.5))
        texts = {name: "word " * int(rng.integers(5, 40)) + f"{name}{index}" for name in ("large", "small")}
        for annotator in ("ann", "bob", "cyd")[: 3 if index < 50 else 1]:
            won, lost = ("large", "small") if rng.random() < expit(2 * better) else ("small", "large")
            sign = 1 if won == "large" else -1
            rows.append(
                {
                    "prompt": f"prompt {index}", "chosen": texts[won], "rejected": texts[lost], "annotator": annotator,
                    "chosen_model": won, "rejected_model": lost, "chosen_score": sign * better, "rejected_score": 0.0,
                    "judge_chosen_first": float(sign * better > -0.3),
                    "judge_rejected_first": float(sign * better > 0.3),
                }
            )  # fmt: skip
    rows += [rows[0], rows[1] | {"chosen": ""}, rows[2] | {"chosen": "x", "rejected": "x"}]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_it_answers_with_every_part(folder: Path) -> None:
    done = scaling("preference", "pairs.jsonl", "--bootstrap", "100", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["rows"], told["pairs"]) == (503, 500)
    assert told["dropped"] == {"empty": 1, "identical": 1, "duplicate": 1, "contradictory": 0}
    assert told["agreement"]["items"] == 50 and told["agreement"]["annotators"] == 3
    assert 0 < told["agreement"]["krippendorff_alpha"]["estimate"] < 1
    assert told["accuracy"]["accuracy"]["low"] > 0.5
    assert told["judge_orders"]["first_preferred"]["estimate"] > 0.5
    assert (told["comparison"]["model"], told["comparison"]["baseline"]) == ("large", "small")
    rate = told["comparison"]["win_rate"]["rate"]
    assert 0.5 < rate["low"] < rate["estimate"] < rate["high"]


def test_the_page_for_people_says_so_too_and_cleaning_writes_what_is_left(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "cleaned.jsonl"
    done = scaling("preference", "pairs.jsonl", "--bootstrap", "100", "--clean", str(out), cwd=folder)
    assert done.returncode == 0, done.stderr
    parts = (
        "503 pairs, 500 left",
        "chosen longer",
        "annotators",
        "judge",
        "scores",
        "large against small",
        "equal length",
    )
    assert [part for part in parts if part not in done.stdout] == []
    assert "500 pairs; 3 dropped (1 empty, 1 identical, 1 duplicate)" in done.stderr
    assert len(pd.read_json(out, lines=True)) == 500
    again = scaling("preference", str(out), "--bootstrap", "0", "--json", cwd=tmp_path)
    assert json.loads(again.stdout)["dropped"] == dict.fromkeys(("empty", "identical", "duplicate", "contradictory"), 0)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nothing.jsonl",), "nothing.jsonl is not a file"),
        (("pairs.jsonl", "--length", "tokens"), "--length is 'tokens': choose characters or words"),
        (("pairs.jsonl", "--model", "medium"), "--model is 'medium', which wrote none of these answers: large, small"),
        (("pairs.jsonl", "--bootstrap", "20", "--clean", "out.txt"), "its name ends in .jsonl, .csv or .parquet"),
    ],
)
def test_bad_input_is_one_line(folder: Path, arguments: tuple[str, ...], says: str) -> None:
    done = scaling("preference", *arguments, cwd=folder)
    assert done.returncode == 2
    assert says in done.stderr and len(done.stderr.strip().splitlines()) == 1
