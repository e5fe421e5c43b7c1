"""INSERT ... ON CONFLICT for both databases: same words, two dialect classes.

What runs with every join is built once (`upsert`): a statement costs more to build than to execute.
"""

from functools import cache
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite


def insert(db: Connection, table: Table) -> Any:
    """The dialect's insert, with `on_conflict_do_nothing` and `on_conflict_do_update`.

    Any: the two classes share these methods by convention, not by a base class.
    """
    return _insert(db.dialect.name, table)


def upsert(db: Connection, table: Table, *columns: str) -> Any:
    """Insert a row given as parameters; where its key exists, only these columns change."""
    return _upsert(db.dialect.name, table, columns)


def _insert(dialect: str, table: Table) -> Any:
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


@cache
def _upsert(dialect: str, table: Table, columns: tuple[str, ...]) -> Any:
    statement = _insert(dialect, table)
    return statement.on_conflict_do_update(
        index_elements=list(table.primary_key.columns),
        set_={column: statement.excluded[column] for column in columns},
    )
