"""Conference events -> Matrix: ghosts in calls, lines of text, notices.

`notify` only queues; one task renders. A ghost membership is for every leg whose account is not a Matrix one,
in every bound Matrix room.
Not here: how memberships stay alive (`memberships`), requests (`link`).
"""

import asyncio
import logging
import secrets
from collections.abc import Sequence
from typing import Any, Final

from bridge.conference.errors import Refused, Unavailable
from bridge.conference.events import (
    Bound,
    Ended,
    Event,
    Joined,
    Left,
    Leg,
    LegChanged,
    MuteRuled,
    StreamsRuled,
    TrackPublished,
    TrackUnpublished,
    Unbound,
)
from bridge.conference.ids import Account, LegId, Network
from bridge.conference.ports import ConferenceRecord
from bridge.conference.secrecy import Divisions
from bridge.conference.steering import news
from bridge.gateway import Context, OutboxRow
from bridge.gateways.matrix.ghosts import GhostBook
from bridge.gateways.matrix.link import Denied, Link
from bridge.gateways.matrix.memberships import Memberships, Person
from bridge.gateways.matrix.names import Namespace, clean_name

log = logging.getLogger(__name__)

MAX_QUEUED: Final = 10_000  # commands' worth of events; beyond it the view is read anew instead
MAX_NOTICES: Final = 200
NOTICE_TRIES: Final = 4
LOOK_BACK: Final = 50  # own events read before a line is sent a second time
KEY_FIELD: Final = (
    "parley_key"  # marks an event with its outbox key; the homeserver's memory is 30 minutes
)


class Outbound:
    """Everything this gateway says. `run` in the gateway's task group."""

    def __init__(
        self,
        context: Context,
        link: Link,
        own: Namespace,
        ghosts: GhostBook,
        memberships: Memberships,
    ) -> None:
        self._context, self._link, self._own = context, link, own
        self._ghosts, self._memberships = ghosts, memberships
        self._events: asyncio.Queue[tuple[ConferenceRecord, tuple[Event, ...]]] = asyncio.Queue(
            MAX_QUEUED
        )
        self._notices: asyncio.Queue[tuple[str, str, str]] = asyncio.Queue(MAX_NOTICES)
        self._overflowed = False
        self._divisions = Divisions()

    # --- in ---------------------------------------------------------------------------------------------

    def notify(self, conference: ConferenceRecord, events: Sequence[Event]) -> None:
        try:
            self._events.put_nowait((conference, tuple(events)))
        except asyncio.QueueFull:
            if not self._overflowed:
                log.error("matrix events overflow; the rooms will be reconciled")
            self._overflowed = True

    def notice(self, room: str, text: str, key: str = "") -> None:
        """A short m.notice by the bot, best effort. The same key is sent once."""
        if not text:
            return
        try:
            self._notices.put_nowait((room, text, key or secrets.token_hex(12)))
        except asyncio.QueueFull:
            log.warning("matrix notice dropped")

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._render(), name="matrix events")
            tasks.create_task(self._announce(), name="matrix notices")

    async def _render(self) -> None:
        while True:
            conference, events = await self._events.get()
            for event in events:
                self._apply(conference, event)
            self._tell_mutes(conference, [e for e in events if isinstance(e, MuteRuled)])
            if any(isinstance(e, TrackPublished | TrackUnpublished | Left) for e in events):
                self._tell_division(conference)
            if self._overflowed and self._events.empty():
                try:
                    await self.reconcile()
                    self._overflowed = False
                except Unavailable as why:  # tried again after the next event
                    log.warning("matrix rooms not reconciled", extra={"why": str(why)})

    async def _announce(self) -> None:
        while True:
            room, text, key = await self._notices.get()
            for attempt in range(NOTICE_TRIES):
                try:
                    await self.say(room, text, key)
                except Unavailable:
                    await asyncio.sleep(2.0**attempt)
                except Refused as why:
                    log.info("matrix notice refused", extra={"why": str(why)})
                    break
                else:
                    break

    async def say(self, room: str, text: str, key: str) -> None:
        """The bot's notice, now. Raises `Unavailable`, `Refused`."""
        content = {"msgtype": "m.notice", "body": text, "m.mentions": {}}
        await self._link.join(room, self._own.bot_mxid)
        await self._link.send(room, "m.room.message", content, key=key)

    # --- rendering --------------------------------------------------------------------------------------

    def _apply(self, conference: ConferenceRecord, event: Event) -> None:
        match event:
            case Joined(leg):
                for room in rooms_of(conference):
                    self._hold(conference, leg, room)
            case Left(leg):
                self._release_leg(leg.id)
            case LegChanged(leg):
                self._memberships.rename(leg.id, _shown(leg))
            case Bound(place) if place.network is Network.MATRIX:
                for leg in self._context.view(conference.id):
                    self._hold(conference, leg, place.address)
            case Unbound(place) if place.network is Network.MATRIX:
                self._memberships.release(
                    lambda seat: seat.room == place.address and seat.conference == conference.id
                )
            case StreamsRuled():
                self._tell_policy(conference, event)
            case Ended():
                present = {leg.id for leg in self._context.view(conference.id)}
                self._memberships.release(
                    lambda seat: seat.conference == conference.id and seat.leg not in present
                )
            case _:
                pass

    def _hold(self, conference: ConferenceRecord, leg: Leg, room: str) -> None:
        if leg.account.network is Network.MATRIX or leg.hidden:
            return
        device = self._own.device(leg.account, leg.identity)
        if device is None:  # Element Call could not match it: a tile without media
            log.warning("leg without a ghost's identity", extra={"leg": leg.id})
            return
        self._memberships.hold(conference.id, leg.id, device, room, _shown(leg))

    def _release_leg(self, leg: LegId) -> None:
        self._memberships.release(lambda seat: seat.leg == leg)

    def _tell_mutes(self, conference: ConferenceRecord, rules: Sequence[MuteRuled]) -> None:
        """What one command ruled is one sentence."""
        if not rules:
            return
        first = rules[0]
        what = " and ".join("all" if rule.kind is None else rule.kind.value for rule in rules)
        verb = "muted" if first.muted else "unmuted"
        by = clean_name(first.by.name) or first.by.account.address
        text = f"{self._name(conference, first.target)} was {verb} by {by} ({what})."
        for room in rooms_of(conference):
            self.notice(room, text)

    def _tell_policy(self, conference: ConferenceRecord, event: StreamsRuled) -> None:
        by = clean_name(event.by.name) or event.by.account.address
        text = f"{by} {news(event, self._context.streams(conference))}"
        for room in rooms_of(conference):
            self.notice(room, text)

    def _tell_division(self, conference: ConferenceRecord) -> None:
        text = self._divisions.news(conference.id, self._context.view(conference.id))
        for room in rooms_of(conference):
            self.notice(room, text)

    def _name(self, conference: ConferenceRecord, account: Account) -> str:
        for leg in self._context.view(conference.id):
            if leg.account == account and clean_name(leg.name):
                return clean_name(leg.name)
        return account.address

    async def reconcile(self) -> None:
        """Rooms show who is in the calls now: after a start, or when events were lost."""
        live: set[tuple[LegId, str]] = set()
        for conference in await self._context.directory.all():
            for leg in self._context.view(conference.id):
                for room in rooms_of(conference):
                    live.add((leg.id, room))
                    self._hold(conference, leg, room)
        self._memberships.release(lambda seat: (seat.leg, seat.room) not in live)

    # --- text -------------------------------------------------------------------------------------------

    async def deliver(self, row: OutboxRow) -> str | None:
        """One line into one room, by the speaker's ghost; by the bot for a Matrix person (no ghost imitates one)."""
        said, room = row.said, row.place.address
        if not said.text.strip():
            return None
        body, msgtype = said.text, "m.emote" if said.is_emote else "m.text"
        if said.by.account.network is Network.MATRIX:
            name = clean_name(said.by.name) or said.by.account.address
            body, msgtype = (f"* {name} {body}" if said.is_emote else f"{name}: {body}"), "m.text"
            sender = self._own.bot_mxid
            await self._link.join(room, sender)
        else:
            ghost = await self._ghosts.show(said.by.account, said.by.name, said.avatar, room)
            sender = ghost.mxid
        content = {"msgtype": msgtype, "body": body, "m.mentions": {}, KEY_FIELD: row.key}
        if row.attempts:
            known = await self._already(room, sender, row.key)
            if known:
                return known
        try:
            return await self._send(room, content, row.key, sender)
        except Denied as why:
            if not why.is_forbidden:
                raise
        # Not in the room after all: once more through the door, by the bot's invitation.
        await self._link.forget_join(room, sender)
        await self._link.join(room, sender, again=True)
        return await self._send(room, content, row.key, sender)

    async def _send(self, room: str, content: dict[str, Any], key: str, sender: str) -> str:
        return await self._link.send(room, "m.room.message", content, key=key, user=sender)

    async def _already(self, room: str, sender: str, key: str) -> str:
        """The event of an earlier attempt that did arrive, if any."""
        try:
            events = await self._link.recent(room, sender=sender, limit=LOOK_BACK)
        except Denied:
            return ""
        for event in events:
            content = event.get("content")
            if isinstance(content, dict) and content.get(KEY_FIELD) == key:
                return str(event.get("event_id", ""))
        return ""


def rooms_of(conference: ConferenceRecord) -> tuple[str, ...]:
    """The bound Matrix rooms."""
    return tuple(p.address for p in conference.places if p.network is Network.MATRIX)


def _shown(leg: Leg) -> Person:
    return Person(leg.account, leg.name, leg.avatar)
