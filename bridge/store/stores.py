"""The opened store: every repository over one database.

Not here: SQL (one module per aggregate), engine and locking (`database`).
"""

from dataclasses import dataclass

from bridge.config import Config
from bridge.store.directory import SqlDirectory
from bridge.store.inbox import SqlInbox
from bridge.store.journal import SqlJournal
from bridge.store.keyvalue import SqlKeyValue
from bridge.store.legs import SqlLegs
from bridge.store.outbox import SqlOutbox


@dataclass(frozen=True, slots=True)
class Stores:
    """What the app hands out as ports."""

    directory: SqlDirectory
    journal: SqlJournal
    legs: SqlLegs
    inbox: SqlInbox
    outbox: SqlOutbox
    store: SqlKeyValue

    async def epoch(self) -> int:
        """This start's number: a counter in SQL, raised by one on the first call, then constant."""
        raise NotImplementedError

    async def ping(self) -> None:
        """Health: returns when the database answers, else raises `Unavailable`."""
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError


async def open_store(config: Config) -> Stores:
    """Open the configured database. Raises `Refused` (another parley runs, schema not migrated) or `Unavailable`."""
    raise NotImplementedError
