"""One commit for what a command caused (`ports.Journal`): inbox row, state, audit, outbox.

State is written from the events alone; each event type has one small writer in a table.
Not here: reading for senders (`outbox`), buffering while the database is away (focus).
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from bridge.conference.errors import Refused
from bridge.conference.events import (
    Bound,
    Ended,
    Event,
    Joined,
    Left,
    Leg,
    LegChanged,
    MuteRuled,
    Said,
    Track,
    TrackMuted,
    TrackPublished,
    TrackUnpublished,
    Unbound,
)
from bridge.conference.ids import Account, ConferenceId, Network, Place, TrackKind
from bridge.conference.ports import Cause, ConferenceRecord, MuteRule, Restored
from bridge.store.audit import record
from bridge.store.bell import Bell
from bridge.store.database import Database, now_ms
from bridge.store.directory import find_conference
from bridge.store.inbox import finish_row
from bridge.store.statements import insert
from bridge.store.tables import (
    NEW,
    bindings,
    conferences,
    legs,
    message_places,
    messages,
    mutes,
    outbox,
)
from bridge.store.values import bounded_id, from_text, outbox_key, to_text


class _Repeated(Exception):
    """A `Said` that was committed before; rolls the transaction back."""


class SqlJournal:
    """Keeps `ports.Journal`."""

    def __init__(self, database: Database, added: Bell) -> None:
        self._database = database
        self._added = added

    async def commit(
        self, conference: ConferenceRecord, events: Sequence[Event], cause: Cause | None = None
    ) -> bool:
        """False: a `Said` among them was committed before; nothing is written but the inbox row's end.

        Raises `Refused` when a `Bound` place belongs to another conference (nothing is written).
        """
        async with self._database.write() as db:
            try:
                async with db.begin_nested():
                    for event in events:
                        await _WRITERS[type(event)](db, conference.id, event)
                        await record(db, conference.id, event)
                fresh = True
            except _Repeated:
                fresh = False
            if cause is not None:
                await db.execute(finish_row(cause.inbox_id))
        if fresh and any(isinstance(event, Said) for event in events):
            self._added.ring()
        return fresh

    async def restore(self, conference: ConferenceId) -> Restored | None:
        async with self._database.read() as db:
            found = await find_conference(db, conferences.c.id == conference)
            if found is None:
                return None
            leg_rows = await db.execute(
                select(legs.c.leg)
                .where(legs.c.conference == conference, legs.c.leg.is_not(None))
                .order_by(legs.c.joined_ms, legs.c.id)
            )
            rule_rows = await db.execute(
                select(mutes)
                .where(mutes.c.conference == conference)
                .order_by(mutes.c.ruled_ms, mutes.c.network, mutes.c.address, mutes.c.kind)
            )
            return Restored(
                found,
                tuple(from_text(row.leg, Leg) for row in leg_rows),
                tuple(
                    MuteRule(Account(Network(row.network), row.address), TrackKind(row.kind))
                    for row in rule_rows
                ),
            )

    async def live(self) -> Sequence[ConferenceId]:
        query = select(legs.c.conference).where(legs.c.leg.is_not(None)).distinct()
        async with self._database.read() as db:
            return [ConferenceId(row.conference) for row in await db.execute(query)]


# --- one writer per event ------------------------------------------------------------------------------


async def _put_leg(db: AsyncConnection, conference: ConferenceId, leg: Leg) -> None:
    text = to_text(leg)
    await db.execute(
        insert(db, legs)
        .values(
            id=leg.id,
            conference=conference,
            gateway=leg.gateway,
            leg=text,
            joined_ms=leg.joined_ms,
        )
        .on_conflict_do_update(
            index_elements=[legs.c.id], set_={"leg": text, "joined_ms": leg.joined_ms}
        )
    )


async def _leg_event(
    db: AsyncConnection, conference: ConferenceId, event: Joined | LegChanged
) -> None:
    await _put_leg(db, conference, event.leg)


async def _left(db: AsyncConnection, conference: ConferenceId, event: Left) -> None:
    await db.execute(delete(legs).where(legs.c.id == event.leg.id))


async def _track_there(
    db: AsyncConnection, conference: ConferenceId, event: TrackPublished | TrackMuted
) -> None:
    await _put_leg(db, conference, _with_track(event.leg, event.track))


async def _track_gone(
    db: AsyncConnection, conference: ConferenceId, event: TrackUnpublished
) -> None:
    rest = tuple(track for track in event.leg.tracks if track.id != event.track.id)
    await _put_leg(db, conference, _with_tracks(event.leg, rest))


def _with_track(leg: Leg, track: Track) -> Leg:
    """The leg with this value of the track, in its old position if it had one."""
    if all(old.id != track.id for old in leg.tracks):
        return _with_tracks(leg, (*leg.tracks, track))
    return _with_tracks(leg, tuple(track if old.id == track.id else old for old in leg.tracks))


def _with_tracks(leg: Leg, tracks: tuple[Track, ...]) -> Leg:
    return leg if tracks == leg.tracks else replace(leg, tracks=tracks)


async def _mute_ruled(db: AsyncConnection, conference: ConferenceId, event: MuteRuled) -> None:
    # One row per kind, so that lifting one half of an audio-and-video mute leaves the other half.
    for kind in tuple(TrackKind) if event.kind is None else (event.kind,):
        rule = {
            "conference": conference,
            "network": event.target.network.value,
            "address": event.target.address,
            "kind": kind.value,
        }
        if event.muted:
            await db.execute(
                insert(db, mutes).values(**rule, ruled_ms=now_ms()).on_conflict_do_nothing()
            )
        else:
            await db.execute(
                delete(mutes).where(*(mutes.c[name] == value for name, value in rule.items()))
            )


async def _bound(db: AsyncConnection, conference: ConferenceId, event: Bound) -> None:
    place = event.place
    added = await db.execute(
        insert(db, bindings)
        .values(
            conference=conference,
            network=place.network.value,
            address=place.address,
            bound_ms=now_ms(),
        )
        .on_conflict_do_nothing()
    )
    if not added.rowcount:
        holder = await db.execute(select(bindings.c.conference).where(_is_place(place)))
        if holder.scalar_one() != conference:
            raise Refused(
                f"{place.address} is linked to another conference already: unlink it there first"
            )
    await db.execute(update(conferences).where(conferences.c.id == conference).values(auto=False))


async def _unbound(db: AsyncConnection, conference: ConferenceId, event: Unbound) -> None:
    await db.execute(
        delete(bindings).where(bindings.c.conference == conference, _is_place(event.place))
    )


def _is_place(place: Place) -> Any:
    return (bindings.c.network == place.network.value) & (bindings.c.address == place.address)


async def _said(db: AsyncConnection, conference: ConferenceId, event: Said) -> None:
    source_id = bounded_id(event.source_id)
    added = await db.execute(
        insert(db, messages)
        .values(
            id=event.message_id,
            conference=conference,
            source=event.source,
            source_id=source_id,
            said_ms=event.at_ms,
        )
        .on_conflict_do_nothing(index_elements=[messages.c.source, messages.c.source_id])
    )
    if not added.rowcount:
        raise _Repeated
    if event.origin is not None:
        await db.execute(
            insert(db, message_places).values(
                message=event.message_id,
                network=event.origin.network.value,
                address=event.origin.address,
                remote_id=source_id,
            )
        )
    bound = await db.execute(
        select(bindings.c.network, bindings.c.address)
        .where(bindings.c.conference == conference)
        .order_by(bindings.c.id)
    )
    said = to_text(event)
    for row in bound.all():
        place = Place(Network(row.network), row.address)
        if place == event.origin:
            continue
        await db.execute(
            insert(db, outbox).values(
                key=outbox_key(event.source, event.source_id, place),
                conference=conference,
                message=event.message_id,
                network=row.network,
                address=row.address,
                said=said,
                state=NEW,
                attempts=0,
                created_ms=now_ms(),
            )
        )


async def _ended(db: AsyncConnection, conference: ConferenceId, event: Ended) -> None:
    await db.execute(delete(legs).where(legs.c.conference == conference))


_WRITERS: Final[
    dict[type[Any], Callable[[AsyncConnection, ConferenceId, Any], Awaitable[None]]]
] = {
    Joined: _leg_event,
    LegChanged: _leg_event,
    Left: _left,
    TrackPublished: _track_there,
    TrackMuted: _track_there,
    TrackUnpublished: _track_gone,
    MuteRuled: _mute_ruled,
    Bound: _bound,
    Unbound: _unbound,
    Said: _said,
    Ended: _ended,
}
