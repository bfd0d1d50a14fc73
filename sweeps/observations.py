"""The ledger's finished runs as the one table that the science reads."""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd

from scaling import architectures
from scaling.compute import flops_6nd
from scaling.observation import COLUMNS, Observation
from sweeps.ledger.ledger import Ledger, RunRow, Stage
from sweeps.planning.plan import Plan

__all__ = ["curves", "observations"]


def observations(
    ledger: Ledger, study: str, plan: Plan, stages: Collection[Stage] = ("sweep", "hold-out")
) -> pd.DataFrame:
    """One row a finished or diverged run of the ``stages``, the cheapest first; columns ``COLUMNS``. What is not of the
    sweep has the role of a hold-out."""
    rows = [
        _observation(run, study, plan)
        for run in ledger.runs(study)
        if run.stage in stages and run.state in ("finished", "diverged")
    ]
    return pd.DataFrame([row.model_dump() for row in rows], columns=list(COLUMNS))


def _observation(run: RunRow, study: str, plan: Plan) -> Observation:
    shape, result = run.spec.shape, run.result or {}
    counts = architectures.get(shape.architecture).count_parameters(shape)
    return Observation(
        run_key=run.key,
        trunk_key=run.spec.trunk_key,
        study=study,
        label=run.label,
        phase="final",
        role="fit" if run.stage == "sweep" else "hold-out",
        architecture=shape.architecture,
        parametrisation=run.spec.parametrisation.name,
        data_key=run.spec.data_key,
        tokenizer_key=run.spec.tokenizer_key,
        context=shape.context,
        params_total=counts.total,
        params_nonembedding=counts.nonembedding,
        params_with_head=counts.with_head,
        tokens=run.spec.tokens,
        unique_tokens=min(run.spec.tokens, plan.corpus.train_tokens),
        flops_exact=run.flops,
        flops_6nd=flops_6nd(counts.total, run.spec.tokens),
        loss_nats=_number(result.get("loss_nats")),
        bits_per_byte=_number(result.get("bits_per_byte")),
        loss_sem=_number(result.get("loss_sem")),
        seed=run.spec.seed,
        learning_rate=run.spec.optimizer.learning_rate,
        batch_tokens=run.spec.global_batch_tokens,
        schedule=run.spec.schedule.kind,
        numerics=result["numerics"],
        status=result["status"],
        wall_seconds=result["wall_seconds"],
        device=plan.numerics.processor,
    )


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def curves(ledger: Ledger, study: str) -> pd.DataFrame:
    """All curve points of the sweep and the hold-out, a row a logged step; NaN where a step has only the other loss.

    Columns: run_key, step, tokens, flops, train_loss, held_out_loss.
    """
    points = [
        (row.run_key, row.step, row.tokens, row.flops, row.name, row.value)
        for run in ledger.runs(study)
        if run.stage in ("sweep", "hold-out")
        for row in ledger.points(run.key)
        if row.name in ("train_loss", "held_out_loss")
    ]
    index = ["run_key", "step", "tokens", "flops"]
    frame = pd.DataFrame(points, columns=[*index, "name", "value"])
    wide = frame.pivot(index=index, columns="name", values="value").reset_index()
    return wide.reindex(columns=[*index, "train_loss", "held_out_loss"]).rename_axis(columns=None)
