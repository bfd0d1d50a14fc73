"""The ``execute`` section of a study: where its workers run, and what each of them gets."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints, field_validator, model_validator

from scaling.record import Record

__all__ = ["Execute", "LocalExecute", "RayExecute", "SlurmExecute"]

# A line break in a value would end its comment in the batch script, and what follows would be run.
Word = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=500)]
Option = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,63}$")]


class _Anywhere(Record):
    workers: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] = "auto"
    usd_per_hour: float | None = Field(default=None, ge=0)
    """Of one GPU; of the machine where it has none. A known GPU has the price of its table."""
    hang_seconds: float = Field(default=300, ge=1)
    """A worker that neither reports nor computes for so long is killed, and the run goes on from its checkpoint."""
    checkpoint_seconds: float = Field(default=20, gt=0)
    """What a killed worker loses at most."""
    ledger: Word | None = None
    """The database of a server that many hosts share; None is a file in the workspace, for one host."""

    @field_validator("ledger")
    @classmethod
    def _known_and_without_secret(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith("postgresql+psycopg://"):
            raise ValueError("must begin with postgresql+psycopg://, or be null for a file in the workspace")
        if url is not None and ":" in url.removeprefix("postgresql+psycopg://").partition("@")[0] and "@" in url:
            raise ValueError("holds a password, which every log would show: put it into ~/.pgpass")
        return url


class LocalExecute(_Anywhere):
    """Processes of this machine."""

    on: Literal["local"] = "local"


class RayExecute(_Anywhere):
    """A Ray cluster: at an address, the one at hand (``auto``), or a new one on this machine (null)."""

    on: Literal["ray"] = "ray"
    address: Word | None = None
    cpus_per_worker: float = Field(default=1, gt=0)
    gpus_per_worker: float = Field(default=0, ge=0)
    """A fraction packs several workers onto one GPU."""

    @field_validator("gpus_per_worker")
    @classmethod
    def _whole_beyond_one(cls, gpus: float) -> float:
        if gpus > 1 and gpus != int(gpus):
            raise ValueError(f"is {gpus}: a fraction of one GPU, or whole ones")
        return gpus

    @model_validator(mode="after")
    def _says_how_many(self) -> RayExecute:
        if self.workers == "auto" and self.address is not None:
            raise ValueError("on ray needs workers, a number: how many the cluster should run at once")
        return self


class SlurmExecute(_Anywhere):
    """An array job of SLURM's; ``sbatch`` holds further options as ``sbatch`` names them."""

    on: Literal["slurm"] = "slurm"
    partition: Word | None = None
    account: Word | None = None
    minutes: int = Field(default=240, ge=1)
    """Time limit of a job; a worker that reaches it saves, and is queued again."""
    cpus_per_worker: int = Field(default=1, ge=1)
    gpus_per_worker: int = Field(default=0, ge=0)
    sbatch: dict[Option, Word | int | bool] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _says_how_many(self) -> SlurmExecute:
        if self.workers == "auto":
            raise ValueError("on slurm needs workers, a number: how many jobs may run at once")
        return self


def _named_place(data: Any) -> Any:
    """Without ``on`` it is this machine; a word is a place with all its defaults."""
    if isinstance(data, str):
        return {"on": data}
    return {"on": "local"} | data if isinstance(data, dict) else data


_Places = LocalExecute | RayExecute | SlurmExecute
Execute = Annotated[Annotated[_Places, Field(discriminator="on")], BeforeValidator(_named_place)]
