"""The opened store: every repository over one database.

Not here: SQL (one module per aggregate), engine and locking (`database`).
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection, delete, select, update

from bridge.config import Config
from bridge.store.bell import Bell
from bridge.store.database import Database, ProcessLock, lock_for, now_ms
from bridge.store.directory import SqlDirectory
from bridge.store.inbox import SqlInbox
from bridge.store.journal import SqlJournal
from bridge.store.keyvalue import SqlKeyValue
from bridge.store.legs import SqlLegs
from bridge.store.outbox import SqlOutbox
from bridge.store.schema import require_head
from bridge.store.statements import insert
from bridge.store.tables import DONE, inbox, inbox_batches, legs, outbox
from bridge.store.tables import epoch as epoch_table

_KEEP_MS: Final = (
    30 * 86_400_000
)  # 30 days of ids of finished rows: longer than any server repeats itself


@dataclass(slots=True)
class Stores:
    """What the app hands out as ports."""

    directory: SqlDirectory
    journal: SqlJournal
    legs: SqlLegs
    inbox: SqlInbox
    outbox: SqlOutbox
    store: SqlKeyValue
    _database: Database
    _lock: ProcessLock
    _epoch: int = field(default=0, init=False)

    async def epoch(self) -> int:
        """This start's number: a counter in SQL, raised by one on the first call, then constant."""
        if not self._epoch:
            self._epoch = await self._database.write(_next_epoch)
        return self._epoch

    async def ping(self) -> None:
        """Health: returns when the database answers, else raises `Unavailable`."""
        await self._database.ping()

    async def close(self) -> None:
        """Close connections, then let the next parley in."""
        await self._database.close()
        self._lock.release()


async def open_store(config: Config) -> Stores:
    """Open the configured database. Raises `Refused` (another parley runs, schema not migrated) or `Unavailable`."""
    lock = lock_for(config)
    database = Database(config.database.url)
    try:
        await require_head(database)
        await database.write(_clean)
    except BaseException:
        await database.close()
        lock.release()
        raise
    arrived, added = Bell(), Bell()
    return Stores(
        directory=SqlDirectory(database),
        journal=SqlJournal(database, added),
        legs=SqlLegs(database),
        inbox=SqlInbox(database, arrived),
        outbox=SqlOutbox(database, added),
        store=SqlKeyValue(database),
        _database=database,
        _lock=lock,
    )


@asynccontextmanager
async def open_directory(config: Config) -> AsyncIterator[SqlDirectory]:
    """The directory alone, for command-line verbs that only read, also while a parley runs."""
    database = Database(config.database.url)
    try:
        await require_head(database)
        yield SqlDirectory(database)
    finally:
        await database.close()


def _next_epoch(db: Connection) -> int:
    db.execute(insert(db, epoch_table).values(id=1, value=0).on_conflict_do_nothing())
    db.execute(update(epoch_table).values(value=epoch_table.c.value + 1))
    value: int = db.execute(select(epoch_table.c.value)).scalar_one()
    return value


def _clean(db: Connection) -> None:
    """What a new start no longer needs: notes of legs that never joined, and old finished rows."""
    before = now_ms() - _KEEP_MS
    db.execute(delete(legs).where(legs.c.leg.is_(None)))
    db.execute(delete(inbox).where(inbox.c.state == DONE, inbox.c.arrived_ms < before))
    db.execute(delete(inbox_batches).where(inbox_batches.c.arrived_ms < before))
    db.execute(delete(outbox).where(outbox.c.state == DONE, outbox.c.created_ms < before))
