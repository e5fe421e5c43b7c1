"""Durable, deduplicated arrival (`gateway.Inbox`, S29).

A batch, its items and their ids are one commit; the gateway answers its peer after it. A single item that
cannot be stored becomes a dead letter and never blocks the batch.
Not here: the end of rows that lead to a command (`journal`).
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, select, update

from bridge.conference.errors import Unavailable
from bridge.gateway import InboxRow
from bridge.store.bell import Bell
from bridge.store.database import Database, now_ms
from bridge.store.statements import insert
from bridge.store.tables import DEAD, DONE, NEW, inbox, inbox_batches
from bridge.store.values import bounded_id, dumps, loads

_log = logging.getLogger(__name__)

_LOOK_S: Final = 30.0  # rows ring the bell; this only bounds the wait
_RETRY_S: Final = 1.0  # while the database is away
_PAGE: Final = 100  # rows read at once


class SqlInbox:
    """Keeps `gateway.Inbox`."""

    def __init__(self, database: Database, arrived: Bell) -> None:
        self._database = database
        self._arrived = arrived
        # Commits in order of their row ids, so that a reader past id n never misses a smaller one.
        self._order = asyncio.Lock()

    async def put(
        self, gateway: str, batch: str, items: Sequence[tuple[str, Mapping[str, object]]]
    ) -> bool:
        at_ms = now_ms()
        batch = bounded_id(batch)
        rows = [_row(gateway, batch, at_ms, source_id, payload) for source_id, payload in items]

        def write(db: Connection) -> bool:
            added = db.execute(
                insert(db, inbox_batches)
                .values(gateway=gateway, batch=batch, arrived_ms=at_ms)
                .on_conflict_do_nothing()
            )
            if added.rowcount:
                for row in rows:
                    db.execute(insert(db, inbox).values(row).on_conflict_do_nothing())
            return bool(added.rowcount)

        async with self._order:
            fresh = True  # a caller that is gone meanwhile may leave rows behind
            try:
                fresh = await self._database.write(write)
            finally:
                if fresh:
                    self._arrived.ring()
        return fresh

    async def rows(self, gateway: str) -> AsyncIterator[InboxRow]:
        """Each undone row once per call of this, oldest first; a database outage only makes it wait."""
        last = 0
        seen = self._arrived.rings
        while True:
            try:
                page = await self._page(gateway, last)
            except Unavailable:
                _log.warning("inbox unavailable", extra={"gateway": gateway})
                await asyncio.sleep(_RETRY_S)
                continue
            for row in page:
                last = row.id
                yield row
            if not page:
                seen = await self._arrived.wait(_LOOK_S, seen)

    async def _page(self, gateway: str, after: int) -> list[InboxRow]:
        query = (
            select(inbox.c.id, inbox.c.source_id, inbox.c.payload)
            .where(inbox.c.gateway == gateway, inbox.c.state == NEW, inbox.c.id > after)
            .order_by(inbox.c.id)
            .limit(_PAGE)
        )

        def read(db: Connection) -> list[InboxRow]:
            return [
                InboxRow(row.id, gateway, row.source_id, loads(row.payload))
                for row in db.execute(query)
            ]

        return await self._database.read(read)

    async def done(self, row: int) -> None:
        await self._database.write(lambda db: db.execute(finish_row(row)))

    async def dead(self, row: int, why: str) -> None:
        _log.warning("dead letter in", extra={"row": row, "why": why})
        query = update(inbox).where(inbox.c.id == row).values(state=DEAD, why=dumps(why))
        await self._database.write(lambda db: db.execute(query))


def finish_row(row: int) -> Any:
    """Mark a row done and let go of its payload; its ids stay for deduplication."""
    return update(inbox).where(inbox.c.id == row).values(state=DONE, payload=None)


def _row(
    gateway: str, batch: str, at_ms: int, source_id: str, payload: Mapping[str, object]
) -> dict[str, object]:
    row: dict[str, object] = {
        "gateway": gateway,
        "source_id": bounded_id(source_id),
        "batch": batch,
        "payload": None,
        "state": NEW,
        "why": None,
        "arrived_ms": at_ms,
    }
    try:
        row["payload"] = dumps(payload)
    except (TypeError, ValueError, RecursionError) as why:
        _log.warning("dead letter in", extra={"gateway": gateway, "why": str(why)})
        row |= {"state": DEAD, "why": dumps(f"not JSON: {type(why).__name__}")}
    return row
