"""Large runs beside what was forecast of them, and beside a published law whose exponents are carried over.

    python benchmarks/final_runs.py WORKSPACE [--out benchmarks/results/final_runs.json]

Rows that the file holds already are kept, but for those that are measured again.

WORKSPACE holds studies whose large runs (`scaling recommend STUDY --register`, `scaling train`) have been scored. The
reference takes the exponents of a published law and fits E, A and B to the same sweep (non-negative least squares on
relative errors): what somebody does who trusts the literature's exponents.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls

from scaling.published import chinchilla_constants
from sweeps.ledger.ledger import Ledger
from sweeps.ledger.registry import registry
from sweeps.observations import observations
from sweeps.planning.plan import Plan
from sweeps.workspace import Workspace

REFERENCES = {"hoffmann": "Hoffmann's exponents", "besiroglu": "Besiroglu's exponents"}


def carried_over(key: str, params: np.ndarray, tokens: np.ndarray, loss: np.ndarray, at: tuple[float, float]) -> float:
    """The loss at (N, D) by the exponents of the published law ``key``, E, A and B from the runs."""
    constants = chinchilla_constants(key)
    assert constants is not None
    alpha, beta = constants[3:]

    def terms(size: np.ndarray, long: np.ndarray) -> np.ndarray:
        return np.column_stack((np.ones_like(size), size**-alpha, long**-beta))

    fitted, _ = nnls(terms(params, tokens) / loss[:, None], np.ones_like(loss))
    return float((terms(np.array([at[0]]), np.array([at[1]])) @ fitted)[0])


def large_runs(workspace: Workspace) -> list[dict[str, Any]]:
    ledger = Ledger(workspace.ledger_url)
    rows = []
    for each in registry(ledger, workspace.forecasts).forecasts:
        runs = {run.key: run for run in ledger.runs(each.study, "final")}
        if each.outcome is None or not set(each.run_keys) <= set(runs):
            continue
        frozen = ledger.plan_of(each.study)
        assert frozen is not None
        table = observations(ledger, each.study, Plan.model_validate(frozen[1]))
        sweep = table[(table["role"] == "fit") & (table["status"] == "finished")]
        columns = [sweep[name].to_numpy(np.float64) for name in ("params_total", "tokens", "loss_nats")]
        at = (each.forecast.params.estimate, each.forecast.tokens.estimate)
        rows.append(
            {
                "study": each.study,
                "problems": list(each.problems),
                "flops": each.forecast.flops,
                "times_largest": 10**each.forecast.extrapolation_orders,
                "forecast": each.forecast.loss.model_dump(),
                "measured": each.outcome.loss,
                "error": each.outcome.relative_error,
                "inside": each.outcome.inside,
                **{key: carried_over(key, *columns, at) / each.outcome.loss - 1 for key in REFERENCES},
            }
        )
    ledger.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows = large_runs(Workspace(arguments.workspace))
    print(f"{'study':<14}{'beyond':>8}{'forecast':>26}{'measured':>10}{'error':>9}   " + "  ".join(REFERENCES.values()))
    for row in rows:
        held = row["forecast"]
        said = f"{held['estimate']:.4f} [{held['low']:.4f}, {held['high']:.4f}]"
        print(
            f"{row['study']:<14}{row['times_largest']:>7.1f}x{said:>26}{row['measured']:>10.4f}{row['error']:>+9.2%}"
            f"{'' if row['inside'] else ' OUTSIDE'}   " + "  ".join(f"{row[key]:>+20.2%}" for key in REFERENCES)
        )
    if rows:
        for name in ("error", *REFERENCES):
            print(
                f"median |error|, {REFERENCES.get(name, 'ours')}: {statistics.median(abs(r[name]) for r in rows):.2%}"
            )
    if arguments.out:
        before = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.exists() else []
        new = {(row["study"], row["forecast"]["estimate"]) for row in rows}
        kept = [row for row in before if (row["study"], row["forecast"]["estimate"]) not in new]
        arguments.out.write_text(json.dumps(kept + rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
