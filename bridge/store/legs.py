"""Gateways' durable notes about their legs (`gateway.Legs`).

Not here: the leg itself (`journal` writes it from events).
"""

from collections.abc import Mapping
from typing import Final

from sqlalchemy import Connection, bindparam, delete, select

from bridge.conference.ids import ConferenceId, LegId
from bridge.store.database import Database, now_ms
from bridge.store.statements import upsert
from bridge.store.tables import legs
from bridge.store.values import dumps, loads

_FORGET: Final = delete(legs).where(legs.c.id == bindparam("leg"))


class SqlLegs:
    """Keeps `gateway.Legs`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def save(
        self, conference: ConferenceId, leg: LegId, gateway: str, wire_state: Mapping[str, object]
    ) -> None:
        """May come before the leg's `Joined` is committed; notes without a leg go at the next start."""
        text = dumps(wire_state)
        row = {
            "id": leg,
            "conference": conference,
            "gateway": gateway,
            "wire_state": text,
            "joined_ms": now_ms(),
        }
        await self._database.write(lambda db: db.execute(upsert(db, legs, "wire_state"), row))

    async def forget(self, leg: LegId) -> None:
        await self._database.write(lambda db: db.execute(_FORGET, {"leg": leg}))

    async def load(self, conference: ConferenceId) -> Mapping[LegId, Mapping[str, object]]:
        """wire_state of every leg that `Journal.restore` returns (empty if the gateway never saved one)."""
        query = select(legs.c.id, legs.c.wire_state).where(
            legs.c.conference == conference, legs.c.leg.is_not(None)
        )

        def read(db: Connection) -> Mapping[LegId, Mapping[str, object]]:
            return {
                LegId(row.id): loads(row.wire_state) if row.wire_state else {}
                for row in db.execute(query)
            }

        return await self._database.read(read)
