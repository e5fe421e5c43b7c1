"""INSERT ... ON CONFLICT for both databases: same words, two dialect classes."""

from typing import Any

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection


def insert(db: AsyncConnection, table: Table) -> Any:
    """The dialect's insert, with `on_conflict_do_nothing` and `on_conflict_do_update`.

    Any: the two classes share these methods by convention, not by a base class.
    """
    if db.dialect.name == "sqlite":
        return sqlite.insert(table)
    return postgresql.insert(table)
