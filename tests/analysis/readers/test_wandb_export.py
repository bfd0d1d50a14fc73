"""The three layouts of CSV that W&B exports, written as they come from its pages and from its guide's script."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd
import pytest

from analysis.readers.logged import Asked
from analysis.readers.source import read_source
from analysis.readers.wandb_export import is_export, read_export
from scaling.errors import UserError
from scaling.table import read_table

from .conftest import Trained


def quoted(path: Path, rows: list[list[object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows(rows)
    return path


@pytest.fixture
def runs_table(trained: list[Trained], tmp_path: Path) -> Path:
    header = ["Name", "State", "Notes", "User", "Tags", "Created", "Runtime", "Sweep", "model.n_params", "lr",
              "tokens_seen", "val/loss", "val/loss.min"]  # fmt: skip
    rows: list[list[object]] = [header]
    for at, run in enumerate(trained):
        rows.append([f"lively-sun-{at}", "finished", "-", "me", "", "2026-01-01T00:00:00.000Z", 61, "", run.params,
                     run.lr, run.tokens, run.losses[-1], min(run.losses)])  # fmt: skip
    rows.append(["misty-sea-99", "crashed", "-", "me", "", "2026-01-01T00:00:00.000Z", 3, "", 7, 1, 9, "NaN", ""])
    return quoted(tmp_path / "wandb_export.csv", rows)


@pytest.fixture
def chart(trained: list[Trained], tmp_path: Path) -> Path:
    """A panel of one metric over all runs; each point drawn stands for two steps."""
    header = ["Step"]
    for at in range(len(trained)):
        name = f"lively-sun-{at} - val/loss"
        header += [name, f"{name}__MIN", f"{name}__MAX"]
    rows: list[list[object]] = [list(header)]
    for step in range(0, 4, 2):
        row: list[object] = [step]
        for run in trained:
            pair = run.losses[step : step + 2]
            row += [pair[-1], min(pair), max(pair)]
        rows.append(row)
    return quoted(tmp_path / "chart.csv", rows)


def test_a_table_of_runs_is_known_by_its_header_and_read_as_it_is(runs_table: Path, trained: list[Trained]) -> None:
    logged = read_source(str(runs_table), Asked())
    assert logged is not None
    columns = logged.columns_for({"params": "model.n_params"})
    assert (columns["tokens"], columns["loss"]) == ("tokens_seen", "val/loss")
    runs = read_table(logged.table(columns), columns=columns)
    told = sorted(zip(runs.params, runs.tokens, runs.loss, strict=True))
    assert told == sorted((run.params, run.tokens, run.losses[-1]) for run in trained)
    assert logged.left_out == 1


def test_a_chart_gives_each_run_s_last_and_least_value_and_joins_the_table(
    runs_table: Path, chart: Path, trained: list[Trained]
) -> None:
    assert is_export(chart)
    alone = read_export([chart], Asked()).frame
    assert alone["metrics.val/loss"].tolist() == [run.losses[-1] for run in trained]
    assert alone["metrics.val/loss.min"].tolist() == [min(run.losses) for run in trained]
    both = read_export([runs_table, chart], Asked())
    columns = both.columns_for({"params": "model.n_params", "loss": "metrics.val/loss.min"})
    runs = read_table(both.table(columns), columns=columns)
    assert sorted(runs.loss) == sorted(min(run.losses) for run in trained)


def test_a_chart_alone_has_no_sizes_and_says_what_it_has(chart: Path) -> None:
    with pytest.raises(UserError, match=r"no column for params, tokens.*name, metrics\.val/loss, metrics\.Step"):
        read_export([chart], Asked()).columns_for({})


def test_the_script_of_the_guide_writes_dictionaries_which_are_read_without_being_run(
    trained: list[Trained], tmp_path: Path
) -> None:
    path = tmp_path / "project.csv"
    summaries = [{"val_loss": run.losses[-1], "tokens": run.tokens, "grad": float("nan")} for run in trained]
    configs = [{"n_params": {"value": run.params, "desc": None}, "opt": {"lr": run.lr}} for run in trained]
    names = [f"nan-run-{at}" for at in range(len(trained))]
    pd.DataFrame({"summary": summaries, "config": configs, "name": names}).to_csv(path)
    logged = read_source(str(path), Asked())
    assert logged is not None
    columns = logged.columns_for({})
    assert columns == {"params": "params.n_params", "tokens": "metrics.tokens", "loss": "metrics.val_loss"}
    assert len(read_table(logged.table(columns), columns=columns)) == len(trained)
    assert logged.frame["params.opt.lr"].tolist() == [run.lr for run in trained]
    path.write_text("summary,config,name\n\"__import__('os').abort()\",{},x\n")
    with pytest.raises(UserError, match="row 1, summary is no dictionary"):
        read_export([path], Asked())


def test_a_plain_table_is_no_export_and_a_wrong_file_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text("params,tokens,loss\n1e6,1e8,3\n")
    assert read_source(str(path), Asked()) is None
    with pytest.raises(UserError, match="no CSV that W&B exports"):
        read_source(f"wandb:{path}", Asked())


def test_runs_of_one_name_are_not_joined(runs_table: Path, chart: Path) -> None:
    text = runs_table.read_text().replace('lively-sun-1"', 'lively-sun-0"')
    runs_table.write_text(text)
    with pytest.raises(UserError, match="two runs are called 'lively-sun-0'"):
        read_export([runs_table, chart], Asked())
