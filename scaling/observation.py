"""The one table between training and science: a row is a (model, token count) point.

``Observations`` is a :class:`pandas.DataFrame` with the columns below. Only ``params_*`` (one of them), ``tokens`` and
``loss_nats`` are needed to fit; the rest says where a row came from and under which conventions it was measured.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from scaling.record import Record

__all__ = ["COLUMNS", "FlopsConvention", "Observation", "ParamsConvention"]

ParamsConvention = Literal["total", "nonembedding", "with-head"]
FlopsConvention = Literal["exact", "6nd"]


class Observation(Record):
    """One measured point."""

    run_key: str
    trunk_key: str = Field(description="the shared prefix; a run without branches is its own trunk")
    study: str
    label: str
    phase: Literal["stable", "cooled", "final"] = Field(description="where in its schedule the loss was measured")
    role: Literal["fit", "hold-out"]
    architecture: str
    parametrisation: str
    data_key: str
    tokenizer_key: str
    context: int
    params_total: int
    params_nonembedding: int
    params_with_head: int
    tokens: int
    unique_tokens: int
    flops_exact: float
    flops_6nd: float = Field(description="6 * params_total * tokens")
    loss_nats: float = Field(description="held-out loss, nats a token")
    bits_per_byte: float
    loss_sem: float = Field(description="standard error over the shared held-out set, not the noise between runs")
    seed: int
    learning_rate: float
    batch_tokens: int
    schedule: str
    numerics: str
    status: Literal["finished", "diverged"]
    wall_seconds: float
    device: str


COLUMNS: tuple[str, ...] = tuple(Observation.model_fields)
