"""What runs were trained on, kept from their first moment: a run that fails leaves no result to say it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from sweeps.ledger.ledger import Ledger
from sweeps.ledger.schema import MEMBERS, RUN_FACTS, insert

__all__ = ["facts_of_study", "record_facts"]


def record_facts(ledger: Ledger, keys: Sequence[str], facts: Mapping[str, Any]) -> None:
    """Remember ``facts`` for runs that are being taken up; those of an earlier attempt are replaced."""
    with ledger.transaction() as db:
        for key in keys:
            statement = insert(db, RUN_FACTS).values(run_key=key, facts=dict(facts))
            db.execute(statement.on_conflict_do_update(index_elements=["run_key"], set_={"facts": dict(facts)}))


def facts_of_study(ledger: Ledger, study: str) -> dict[str, dict[str, Any]]:
    """By run key."""
    members = sa.select(MEMBERS.c.run_key).where(MEMBERS.c.study == study)
    with ledger.reading() as db:
        return {
            row.run_key: row.facts for row in db.execute(sa.select(RUN_FACTS).where(RUN_FACTS.c.run_key.in_(members)))
        }
