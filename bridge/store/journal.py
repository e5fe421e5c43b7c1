"""One commit for what a command caused (`ports.Journal`): inbox row, state, audit, outbox.

State is written from the events alone; each event type has one small writer in a table.
Not here: reading for senders (`outbox`), buffering while the database is away (focus).
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import Connection, delete, select, update

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
    StreamsRuled,
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
from bridge.store.directory import BY_ID, find_conference
from bridge.store.inbox import finish_row
from bridge.store.statements import insert, upsert
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

        has_lines = any(isinstance(event, Said) for event in events)

        def write(db: Connection) -> bool:
            fresh = True
            try:
                with db.begin_nested() if has_lines else nullcontext():
                    for event in events:
                        _WRITERS[type(event)](db, conference.id, event)
                    record(db, conference.id, events)
            except _Repeated:
                fresh = False
            if cause is not None:
                db.execute(finish_row(cause.inbox_id))
            return fresh

        fresh = True  # a caller that is gone meanwhile may leave rows behind
        try:
            fresh = await self._database.write(write)
        finally:
            if fresh and has_lines:
                self._added.ring()
        return fresh

    async def restore(self, conference: ConferenceId) -> Restored | None:
        return await self._database.read(lambda db: _restore(db, conference))

    async def live(self) -> Sequence[ConferenceId]:
        query = select(legs.c.conference).where(legs.c.leg.is_not(None)).distinct()

        def read(db: Connection) -> list[ConferenceId]:
            return [ConferenceId(row.conference) for row in db.execute(query)]

        return await self._database.read(read)


def _restore(db: Connection, conference: ConferenceId) -> Restored | None:
    found = find_conference(db, BY_ID, conference)
    if found is None:
        return None
    leg_rows = db.execute(
        select(legs.c.leg)
        .where(legs.c.conference == conference, legs.c.leg.is_not(None))
        .order_by(legs.c.joined_ms, legs.c.id)
    )
    rule_rows = db.execute(
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


# --- one writer per event ------------------------------------------------------------------------------


def _put_leg(db: Connection, conference: ConferenceId, leg: Leg) -> None:
    row = {
        "id": leg.id,
        "conference": conference,
        "gateway": leg.gateway,
        "leg": to_text(leg),
        "joined_ms": leg.joined_ms,
    }
    db.execute(upsert(db, legs, "leg", "joined_ms"), row)


def _leg_event(db: Connection, conference: ConferenceId, event: Joined | LegChanged) -> None:
    _put_leg(db, conference, event.leg)


def _left(db: Connection, conference: ConferenceId, event: Left) -> None:
    db.execute(delete(legs).where(legs.c.id == event.leg.id))


def _track_there(
    db: Connection, conference: ConferenceId, event: TrackPublished | TrackMuted
) -> None:
    _put_leg(db, conference, _with_track(event.leg, event.track))


def _track_gone(db: Connection, conference: ConferenceId, event: TrackUnpublished) -> None:
    rest = tuple(track for track in event.leg.tracks if track.id != event.track.id)
    _put_leg(db, conference, _with_tracks(event.leg, rest))


def _with_track(leg: Leg, track: Track) -> Leg:
    """The leg with this value of the track, in its old position if it had one."""
    if all(old.id != track.id for old in leg.tracks):
        return _with_tracks(leg, (*leg.tracks, track))
    return _with_tracks(leg, tuple(track if old.id == track.id else old for old in leg.tracks))


def _with_tracks(leg: Leg, tracks: tuple[Track, ...]) -> Leg:
    return leg if tracks == leg.tracks else replace(leg, tracks=tracks)


def _mute_ruled(db: Connection, conference: ConferenceId, event: MuteRuled) -> None:
    # One row per kind, so that lifting one half of an audio-and-video mute leaves the other half.
    for kind in tuple(TrackKind) if event.kind is None else (event.kind,):
        rule = {
            "conference": conference,
            "network": event.target.network.value,
            "address": event.target.address,
            "kind": kind.value,
        }
        if event.muted:
            db.execute(insert(db, mutes).values(**rule, ruled_ms=now_ms()).on_conflict_do_nothing())
        else:
            db.execute(
                delete(mutes).where(*(mutes.c[name] == value for name, value in rule.items()))
            )


def _bound(db: Connection, conference: ConferenceId, event: Bound) -> None:
    place = event.place
    added = db.execute(
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
        holder = db.execute(select(bindings.c.conference).where(_is_place(place)))
        if holder.scalar_one() != conference:
            raise Refused(
                f"{place.address} is linked to another conference already: unlink it there first"
            )
    db.execute(update(conferences).where(conferences.c.id == conference).values(auto=False))


def _unbound(db: Connection, conference: ConferenceId, event: Unbound) -> None:
    db.execute(delete(bindings).where(bindings.c.conference == conference, _is_place(event.place)))


def _is_place(place: Place) -> Any:
    return (bindings.c.network == place.network.value) & (bindings.c.address == place.address)


def _said(db: Connection, conference: ConferenceId, event: Said) -> None:
    source_id = bounded_id(event.source_id)
    added = db.execute(
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
        db.execute(
            insert(db, message_places).values(
                message=event.message_id,
                network=event.origin.network.value,
                address=event.origin.address,
                remote_id=source_id,
            )
        )
    bound = db.execute(
        select(bindings.c.network, bindings.c.address)
        .where(bindings.c.conference == conference)
        .order_by(bindings.c.id)
    )
    said = to_text(event)
    for row in bound.all():
        place = Place(Network(row.network), row.address)
        if place == event.origin:
            continue
        db.execute(
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


def _streams_ruled(db: Connection, conference: ConferenceId, event: StreamsRuled) -> None:
    db.execute(
        update(conferences)
        .where(conferences.c.id == conference)
        .values(streams=to_text(event.choice))
    )


def _ended(db: Connection, conference: ConferenceId, event: Ended) -> None:
    db.execute(delete(legs).where(legs.c.conference == conference))


_WRITERS: Final[dict[type[Any], Callable[[Connection, ConferenceId, Any], None]]] = {
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
    StreamsRuled: _streams_ruled,
    Ended: _ended,
}
