"""Which conference is meant (`ports.Directory`).

Not here: bindings' changes and everything else that a command causes (`journal`).
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import BindParameter, Connection, Row, Select, bindparam, select, update

from bridge.conference.errors import Refused
from bridge.conference.ids import ConferenceId, Network, Place
from bridge.conference.ports import ConferenceRecord
from bridge.conference.streams import AS_CONFIGURED, StreamChoice
from bridge.store.database import Database, now_ms
from bridge.store.statements import insert
from bridge.store.tables import bindings, conferences
from bridge.store.values import from_text, random_name

_ID: Final = 26  # characters: 130 random bits
_SLUG: Final = 8  # characters: 40 random bits, short enough to read out; unique by the table
_TRIES: Final = 8  # random slugs; a second one is already improbable


# Built once: building a statement costs more than executing it.
_ALL: Final = (
    select(conferences, bindings.c.network, bindings.c.address)
    .select_from(conferences.outerjoin(bindings, bindings.c.conference == conferences.c.id))
    .order_by(conferences.c.created_ms, conferences.c.id, bindings.c.id)
)
_KEY: Final[BindParameter[str]] = bindparam("key")
BY_ID: Final = _ALL.where(conferences.c.id == _KEY)
BY_ROOM: Final = _ALL.where(conferences.c.room == _KEY)
BY_SLUG: Final = _ALL.where(conferences.c.slug == _KEY)
_BOUND: Final = bindings.alias("bound")
_BY_PLACE: Final = _ALL.where(
    conferences.c.id.in_(
        select(_BOUND.c.conference).where(
            _BOUND.c.network == bindparam("network"), _BOUND.c.address == _KEY
        )
    )
)


class SqlDirectory:
    """Keeps `ports.Directory`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def by_id(self, conference: ConferenceId) -> ConferenceRecord | None:
        return await self._one(BY_ID, conference)

    async def by_room(self, room: str) -> ConferenceRecord | None:
        return await self._one(BY_ROOM, room)

    async def by_slug(self, slug: str) -> ConferenceRecord | None:
        return await self._one(BY_SLUG, slug)

    async def by_place(self, place: Place) -> ConferenceRecord | None:
        return await self._one(_BY_PLACE, place.address, place.network.value)

    async def all(self) -> Sequence[ConferenceRecord]:
        return await self._database.read(lambda db: _records(db.execute(_ALL)))

    async def create(
        self, *, room: str, slug: str = "", title: str = "", auto: bool = False
    ) -> ConferenceRecord:
        """The conference of this room, made if absent. An `auto` one becomes a named one when asked for
        with `auto=False`. Raises `Refused` when another conference has the slug."""
        return await self._database.write(lambda db: _create(db, room, slug, title, auto))

    async def _one(
        self, query: Select[Any], key: str, network: str = ""
    ) -> ConferenceRecord | None:
        return await self._database.read(lambda db: find_conference(db, query, key, network))


def _create(db: Connection, room: str, slug: str, title: str, auto: bool) -> ConferenceRecord:
    _insert(db, room, slug, title, auto)
    found = find_conference(db, BY_ROOM, room)
    if found is None:
        raise Refused(f"another conference is called {slug!r} already: choose another slug")
    if not found.auto or auto:
        return found
    wanted: dict[str, Any] = {"auto": False, "title": title or found.title}
    if slug and slug != found.slug:
        if find_conference(db, BY_SLUG, slug):
            raise Refused(f"another conference is called {slug!r} already: choose another slug")
        wanted["slug"] = slug
    db.execute(update(conferences).where(conferences.c.id == found.id).values(wanted))
    named = find_conference(db, BY_ID, found.id)
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
        if added.rowcount or find_conference(db, BY_ROOM, room):
            return


def find_conference(
    db: Connection, query: Select[Any], key: str, network: str = ""
) -> ConferenceRecord | None:
    """The one conference of a query of this module, with its places."""
    found = _records(db.execute(query, {"key": key, "network": network}))
    return found[0] if found else None


def _records(rows: Iterable[Row[Any]]) -> list[ConferenceRecord]:
    """Conferences in order of creation, each with its places in order of binding."""
    found: dict[str, ConferenceRecord] = {}
    for row in rows:
        before = found.get(row.id)
        places = before.places if before else ()
        if row.network is not None:
            places = (*places, Place(Network(row.network), row.address))
        found[row.id] = ConferenceRecord(
            ConferenceId(row.id),
            row.slug,
            row.room,
            row.title,
            places,
            row.auto,
            AS_CONFIGURED if row.streams is None else from_text(row.streams, StreamChoice),
        )
    return list(found.values())
