"""The ``corpus`` section of the files that people write: what is tokenised, and how."""

from __future__ import annotations

from pydantic import Field

from scaling.record import Record

__all__ = ["CorpusSettings"]


class CorpusSettings(Record):
    """What :func:`trainer.data.prepare.prepare` takes of these names; its defaults suit the embedded corpus."""

    source: str = "starter"
    vocabulary: int = Field(default=1024, ge=257, le=1_000_000)
    held_out: float = Field(default=0.05, gt=0, lt=0.5)
    text_key: str = "text"
    domain_key: str = "domain"
    cut_bytes: int = Field(default=4096, ge=256)
