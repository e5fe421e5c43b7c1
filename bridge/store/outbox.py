"""Lines to deliver, in order per place (`gateway.Outbox`) and the app's reading side.

Not here: who adds rows (`journal`, in the commit of the line itself), how a line looks on a network (gateways).
"""

import logging
from collections.abc import Sequence

from sqlalchemy import Connection, select, update

from bridge.conference.events import Said
from bridge.conference.ids import Network, Place
from bridge.gateway import OutboxRow
from bridge.store.bell import Bell
from bridge.store.database import Database
from bridge.store.directory import BY_ID, find_conference
from bridge.store.statements import insert
from bridge.store.tables import DEAD, DONE, NEW, message_places, outbox
from bridge.store.values import bounded_id, dumps, from_text

_log = logging.getLogger(__name__)


class SqlOutbox:
    """Keeps `gateway.Outbox`. A sender of one place loops: `next`, `begin`, `deliver`, `confirm` or `dead`."""

    def __init__(self, database: Database, added: Bell) -> None:
        self._database = database
        self._added = added

    async def places(self) -> Sequence[Place]:
        """Places with undelivered rows."""
        query = (
            select(outbox.c.network, outbox.c.address)
            .where(outbox.c.state == NEW)
            .distinct()
            .order_by(outbox.c.network, outbox.c.address)
        )

        def read(db: Connection) -> list[Place]:
            return [Place(Network(row.network), row.address) for row in db.execute(query)]

        return await self._database.read(read)

    async def next(self, place: Place) -> OutboxRow | None:
        """The oldest undelivered row. `attempts` counts earlier attempts, not the one about to be made."""
        query = (
            select(outbox)
            .where(
                outbox.c.network == place.network.value,
                outbox.c.address == place.address,
                outbox.c.state == NEW,
            )
            .order_by(outbox.c.id)
            .limit(1)
        )

        def read(db: Connection) -> OutboxRow | None:
            row = db.execute(query).one_or_none()
            if row is None:
                return None
            conference = find_conference(db, BY_ID, row.conference)
            if conference is None:
                raise RuntimeError("outbox row without its conference")  # a foreign key forbids it
            said = from_text(row.said, Said)
            return OutboxRow(row.id, conference, place, said, row.key, row.attempts)

        return await self._database.read(read)

    async def begin(self, row: int) -> None:
        """Count one attempt durably, before anything is sent."""
        query = update(outbox).where(outbox.c.id == row).values(attempts=outbox.c.attempts + 1)
        await self._database.write(lambda db: db.execute(query))

    async def confirm(self, row: int, remote_id: str) -> None:
        """Delivered. An empty `remote_id` means there was nothing to send."""

        def write(db: Connection) -> None:
            sent = db.execute(
                update(outbox)
                .where(outbox.c.id == row)
                .values(state=DONE, remote_id=bounded_id(remote_id), said=None)
                .returning(outbox.c.message, outbox.c.network, outbox.c.address)
            ).one_or_none()
            if sent is None or not remote_id:
                return
            db.execute(
                insert(db, message_places)
                .values(
                    message=sent.message,
                    network=sent.network,
                    address=sent.address,
                    remote_id=bounded_id(remote_id),
                )
                .on_conflict_do_nothing()
            )

        await self._database.write(write)

    async def dead(self, row: int, why: str) -> None:
        """Never to be delivered; the next row of the place is free to go."""
        _log.warning("dead letter out", extra={"row": row, "why": why})
        query = update(outbox).where(outbox.c.id == row).values(state=DEAD, why=dumps(why))
        await self._database.write(lambda db: db.execute(query))

    async def wait(self, timeout_s: float, seen: int = 0) -> int:
        """Until a commit added rows or the time is over; returns how many such commits there were so far.

        Returns at once when that count is beyond `seen`, so a caller that passes back what it got
        misses no wake-up: `seen = await outbox.wait(30, seen)`. Any number of tasks may wait.
        """
        return await self._added.wait(timeout_s, seen)
