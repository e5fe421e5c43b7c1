"""Which conference is meant (`ports.Directory`).

Not here: bindings' changes and everything else that a command causes (`journal`).
"""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, select, update

from bridge.conference.errors import Refused
from bridge.conference.ids import ConferenceId, Network, Place
from bridge.conference.ports import ConferenceRecord
from bridge.store.database import Database, now_ms
from bridge.store.statements import insert
from bridge.store.tables import bindings, conferences
from bridge.store.values import random_name

_ID: Final = 26  # characters: 130 random bits
_SLUG: Final = 8  # characters: 40 random bits, short enough to read out; unique by the table
_TRIES: Final = 8  # random slugs; a second one is already improbable


class SqlDirectory:
    """Keeps `ports.Directory`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def by_id(self, conference: ConferenceId) -> ConferenceRecord | None:
        return await self._one(conferences.c.id == conference)

    async def by_room(self, room: str) -> ConferenceRecord | None:
        return await self._one(conferences.c.room == room)

    async def by_slug(self, slug: str) -> ConferenceRecord | None:
        return await self._one(conferences.c.slug == slug)

    async def by_place(self, place: Place) -> ConferenceRecord | None:
        return await self._one(
            conferences.c.id.in_(
                select(bindings.c.conference).where(
                    bindings.c.network == place.network.value, bindings.c.address == place.address
                )
            )
        )

    async def all(self) -> Sequence[ConferenceRecord]:
        return await self._database.read(lambda db: find_conferences(db, None))

    async def create(
        self, *, room: str, slug: str = "", title: str = "", auto: bool = False
    ) -> ConferenceRecord:
        """The conference of this room, made if absent. An `auto` one becomes a named one when asked for
        with `auto=False`. Raises `Refused` when another conference has the slug."""
        return await self._database.write(lambda db: _create(db, room, slug, title, auto))

    async def _one(self, condition: ColumnElement[bool]) -> ConferenceRecord | None:
        return await self._database.read(lambda db: find_conference(db, condition))


def _create(db: Connection, room: str, slug: str, title: str, auto: bool) -> ConferenceRecord:
    _insert(db, room, slug, title, auto)
    found = find_conference(db, conferences.c.room == room)
    if found is None:
        raise Refused(f"another conference is called {slug!r} already: choose another slug")
    if not found.auto or auto:
        return found
    wanted: dict[str, Any] = {"auto": False, "title": title or found.title}
    if slug and slug != found.slug:
        if find_conference(db, conferences.c.slug == slug):
            raise Refused(f"another conference is called {slug!r} already: choose another slug")
        wanted["slug"] = slug
    db.execute(update(conferences).where(conferences.c.id == found.id).values(wanted))
    named = find_conference(db, conferences.c.id == found.id)
    return named or found


def _insert(db: Connection, room: str, slug: str, title: str, auto: bool) -> None:
    for _ in range(1 if slug else _TRIES):
        added = db.execute(
            insert(db, conferences)
            .values(
                id=f"c_{random_name(_ID)}",
                slug=slug or random_name(_SLUG),
                room=room,
                title=title,
                auto=auto,
                created_ms=now_ms(),
            )
            .on_conflict_do_nothing()
        )
        if added.rowcount or find_conference(db, conferences.c.room == room):
            return


def find_conference(db: Connection, condition: ColumnElement[bool]) -> ConferenceRecord | None:
    """The one conference of a unique condition, with its places."""
    found = find_conferences(db, condition)
    return found[0] if found else None


def find_conferences(
    db: Connection, condition: ColumnElement[bool] | None
) -> list[ConferenceRecord]:
    """Conferences in order of creation, each with its places in order of binding."""
    query = select(conferences, bindings.c.network, bindings.c.address).select_from(
        conferences.outerjoin(bindings, bindings.c.conference == conferences.c.id)
    )
    if condition is not None:
        query = query.where(condition)
    query = query.order_by(conferences.c.created_ms, conferences.c.id, bindings.c.id)
    found: dict[str, ConferenceRecord] = {}
    for row in db.execute(query):
        before = found.get(row.id)
        places = before.places if before else ()
        if row.network is not None:
            places = (*places, Place(Network(row.network), row.address))
        found[row.id] = ConferenceRecord(
            ConferenceId(row.id), row.slug, row.room, row.title, places, row.auto
        )
    return list(found.values())
