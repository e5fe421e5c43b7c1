"""The durable note about each session: enough to know it again after a restart of parley.

Kept through `gateway.Store` under the name `media`, keyed by session. A database that is away costs nobody
his call: the note is written as soon as it is back.
Not here: gateways' own wire state (`gateway.Legs`).
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from bridge.conference.errors import Malformed, Unavailable
from bridge.conference.ids import ConferenceId, LegId
from bridge.gateway import Store
from bridge.media.room import Session

log = logging.getLogger(__name__)

OWNER: Final = "media"
VERSION: Final = 1
PUT_TIMEOUT_S: Final = 1.0  # a joining client waits at most this long for a slow database
RETRY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Row:
    """A session of before the restart."""

    conference: ConferenceId
    session: Session


class Rows:
    """Write-behind when it must be: `put` and `delete` never fail."""

    def __init__(self, store: Store, tasks: asyncio.TaskGroup) -> None:
        self._store = store
        self._tasks = tasks
        self._late: dict[str, Mapping[str, object] | None] = {}  # None = to delete
        self._writer: asyncio.Task[None] | None = None

    async def load(self) -> list[Row]:
        """Raises `Unavailable`. What cannot be read is dropped: its session counts as unknown."""
        rows = []
        for name, value in await self._store.items(OWNER, ""):
            try:
                rows.append(parse(name, value))
            except Malformed as why:
                log.error("media row dropped", extra={"session": name, "why": str(why)})
                await self._store.delete(OWNER, name)
        return rows

    async def put(self, conference: ConferenceId, session: Session) -> None:
        await self._write(session.name, spell(conference, session))

    async def delete(self, name: str) -> None:
        await self._write(name, None)

    async def _write(self, name: str, value: Mapping[str, object] | None) -> None:
        if self._late:
            self._postpone(name, value)
            return
        try:
            async with asyncio.timeout(PUT_TIMEOUT_S):
                await self._store_one(name, value)
        except (TimeoutError, Unavailable):
            self._postpone(name, value)

    def _postpone(self, name: str, value: Mapping[str, object] | None) -> None:
        """Only the last word about a session counts, so this is bounded by the number of sessions."""
        self._late[name] = value
        if self._writer is None or self._writer.done():
            self._writer = self._tasks.create_task(self._write_late(), name="media-rows")

    async def _write_late(self) -> None:
        while self._late:
            name, value = next(iter(self._late.items()))
            try:
                async with asyncio.timeout(10 * PUT_TIMEOUT_S):
                    await self._store_one(name, value)
            except (TimeoutError, Unavailable):
                await asyncio.sleep(RETRY_S)
                continue
            if self._late.get(name) is value:
                del self._late[name]

    async def _store_one(self, name: str, value: Mapping[str, object] | None) -> None:
        if value is None:
            await self._store.delete(OWNER, name)
        else:
            await self._store.put(OWNER, name, value)


def spell(conference: ConferenceId, session: Session) -> Mapping[str, object]:
    return {
        "version": VERSION,
        "conference": conference,
        "leg": session.leg,
        "receives": session.receives,
        "follows": session.follows,
        "auto_subscribe": session.auto_subscribe,
    }


def parse(name: str, value: Mapping[str, object]) -> Row:
    if value.get("version") != VERSION:
        raise Malformed("media row of another version")
    match value:
        case {
            "conference": str(conference),
            "leg": str(leg),
            "receives": bool(receives),
            "follows": bool(follows),
            "auto_subscribe": bool(auto_subscribe),
        }:
            session = Session(name, LegId(leg), receives, follows, auto_subscribe)
            return Row(ConferenceId(conference), session)
        case _:
            raise Malformed("media row without its fields")
