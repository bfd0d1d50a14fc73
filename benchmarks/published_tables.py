"""Other people's training runs as (params, tokens, loss), each a table that a forecast can be tested on.

The files lie in ``../shared/data/published`` (never part of the project); ``SOURCES.md`` there says whose they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

PUBLISHED = Path(__file__).resolve().parents[2] / "shared" / "data" / "published"
QUICKSTART = Path(__file__).resolve().parents[1] / "results" / "quickstart" / "observations.csv"
PORIAN_SETTING = ["hparams", "warmup", "decay", "param_count", "split"]

Table = tuple[np.ndarray, np.ndarray, np.ndarray]


def tuning_tables(folder: Path = PUBLISHED) -> dict[str, Table]:
    """The tables that the forecast's prior was learned from, each judged by what the others taught."""
    epoch = pd.read_csv(folder / "epoch_chinchilla_245.csv")
    found = {"epoch": _table(epoch[~epoch["dropped_by_besiroglu"]], "n_params", "tokens", "loss")}
    gadre = pd.read_csv(folder / "gadre_overtraining.csv")
    for name, rows in gadre.groupby("dataset_name"):
        found[f"gadre {name}"] = _table(rows, "N", "D", "loss_c4_val")
    olmo = pd.read_csv(folder / "olmo_ladder_step1.csv")
    found["olmo c4"] = _table(olmo[olmo["metric"] == "c4"], "n_params", "tokens", "value")
    porian = pd.read_csv(folder / "porian_owt2_isoflop_points.csv")
    for setting, rows in porian.groupby(PORIAN_SETTING):
        found["porian " + " ".join(setting)] = _table(rows, "n_params", "tokens", "loss")
    repeated = pd.read_csv(folder / "datablations_c4_points.csv")
    found["datablations, one epoch"] = _table(repeated[repeated["epochs"] <= 1.0001], "n_params", "tokens", "loss")
    found["step law"] = _table(pd.read_csv(folder / "steplaw_dense_best_per_ND.csv"), "N", "D", "smooth loss")
    ours = pd.read_csv(QUICKSTART)
    found["quickstart"] = _table(ours[ours["status"] == "finished"], "params_total", "tokens", "loss_nats")
    return found


def fresh_tables(folder: Path = PUBLISHED) -> dict[str, Table]:
    """Tables first looked at after the method and its prior were frozen: the same runs measured on other text."""
    olmo = pd.read_csv(folder / "olmo_ladder_step1.csv")
    found = {
        f"olmo {task}, bits per byte": _table(rows, "n_params", "tokens", "value")
        for task, rows in olmo[olmo["metric"] == "rc_bpb"].groupby("task")
    }
    gadre = pd.read_csv(folder / "gadre_overtraining.csv")
    for name, rows in gadre.groupby("dataset_name"):
        for column in ("loss_openlm", "loss_paloma_ptb", "loss_paloma_redpajama", "loss_val_de-en_100"):
            found[f"gadre {name} on {column.removeprefix('loss_')}"] = _table(rows, "N", "D", column)
    return found


def _table(rows: pd.DataFrame, params: str, tokens: str, loss: str) -> Table:
    table = rows[[params, tokens, loss]].astype(float).to_numpy()
    usable = np.isfinite(table).all(axis=1) & (table > 0).all(axis=1)
    return table[usable, 0], table[usable, 1], table[usable, 2]


def splits(table: Table, shares: tuple[float, ...] = (0.5, 0.6, 0.7, 0.8)) -> Iterator[tuple[float, np.ndarray]]:
    """(share, mask of the runs below it): the largest budgets left out, cut at shares of the log range of compute.

    Only with at least ten runs of three sizes below the cut and one above.
    """
    params, tokens, _ = table
    flops = 6 * params * tokens
    position = np.log(flops / flops.min()) / np.log(flops.max() / flops.min())
    seen: set[bytes] = set()
    for share in shares:
        below = position < share + 1e-9
        if below.sum() < 10 or below.all() or len(np.unique(params[below])) < 3 or below.tobytes() in seen:
            continue
        seen.add(below.tobytes())
        yield share, below
