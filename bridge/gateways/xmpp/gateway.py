"""The XMPP gateway: one component stream, the bound chat rooms, the calls.

Composition only; each part has a file of its own. Life as in `bridge.gateway.Gateway`.
Not here: the rules (`bridge.conference`), media (`bridge.media`).
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from bridge.conference.errors import Refused, Unavailable
from bridge.conference.events import Bound, Event, Unbound
from bridge.conference.ids import LegId, Network
from bridge.conference.ports import ConferenceRecord
from bridge.gateway import Ability, Context, MediaSignal, OutboxRow, SavedLeg
from bridge.gateways.xmpp.calls import Calls
from bridge.gateways.xmpp.inbound import Door, Inbound
from bridge.gateways.xmpp.link import Link
from bridge.gateways.xmpp.outbound import Outbound
from bridge.gateways.xmpp.puppets import Puppets
from bridge.gateways.xmpp.rooms import Room

log = logging.getLogger(__name__)

EVENTS: Final = 4_096  # notices waiting for a slow room; calls get theirs at once
TIDY_EVERY_S: Final = 60.0


class XmppGateway:
    """Keeps the promise `bridge.gateway.Gateway`."""

    name = "xmpp"
    abilities = frozenset(
        {Ability.TEXT, Ability.PRESENCE, Ability.AUDIO, Ability.VIDEO, Ability.COMMANDS}
    )

    def __init__(self, context: Context) -> None:
        section = context.config.xmpp
        if section is None:
            raise Refused("the section xmpp is missing from the configuration")
        self._context = context
        self._places: dict[str, tuple[Room, Puppets]] = {}
        self._room_tasks: dict[str, asyncio.Task[None]] = {}
        self._up = asyncio.Event()
        self._events: asyncio.Queue[tuple[ConferenceRecord, Event]] = asyncio.Queue(EVENTS)
        self._stale = asyncio.Event()  # conferences or bindings may have changed
        self._rejoined: asyncio.Queue[Room] = asyncio.Queue(1_000)
        self._link = Link(
            section.component,
            section.secret.get_secret_value(),
            section.host,
            section.port,
            tls=section.tls,
            ca=section.ca,
            on_stanza=lambda element: self._inbound.stanza(element),
            on_up=self._on_up,
            on_down=self._on_down,
        )
        door = Door(context, self._link.domain, self._places)
        self._calls = Calls(context, self._link, door.find, door.admit, self._up)
        self._inbound = Inbound(context, self._link, self._calls, self._places, door)
        self._outbound = Outbound(context, self._places)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            await self._refresh(tasks)
            tasks.create_task(self._calls.run(), name="xmpp-calls")
            tasks.create_task(self._link.run(), name="xmpp-link")
            tasks.create_task(self._inbound.take_lines(), name="xmpp-lines")
            tasks.create_task(self._tell_rooms(), name="xmpp-notices")
            tasks.create_task(self._bring_back(), name="xmpp-puppets")
            tasks.create_task(self._tidy(), name="xmpp-tidy")
            try:
                while True:
                    await self._stale.wait()  # unbounded: bindings may never change
                    self._stale.clear()
                    await self._refresh(tasks)
            finally:
                if self._context.config.sfu.mode == "spawn":  # an external worker keeps the calls
                    self._calls.farewell()

    async def readopt(self, legs: Sequence[SavedLeg]) -> None:
        self._calls.readopt(legs)

    def notify(self, conference: ConferenceRecord, events: Sequence[Event]) -> None:
        if not conference.auto and conference.slug.lower() not in self._inbound.slugs:
            self._stale.set()
        for event in events:
            self._calls.event(event)
            if isinstance(event, Bound | Unbound):
                self._stale.set()
            try:
                self._events.put_nowait((conference, event))
            except asyncio.QueueFull:
                log.warning("notice dropped: rooms do not keep up")

    def signal(self, conference: ConferenceRecord, leg: LegId, signal: MediaSignal) -> None:
        self._calls.signal(leg, signal)

    async def deliver(self, row: OutboxRow) -> str | None:
        found = self._places.get(row.place.address.lower())
        if found is None:
            await self._await_place(row.place.address.lower())
            found = self._places.get(row.place.address.lower())
        if found is None:
            raise Refused("the chat room is not bound any more")
        return await found[1].deliver(row)

    async def _await_place(self, address: str) -> None:
        """A line may come before we have seen the binding that it follows from."""
        self._stale.set()
        for _ in range(40):  # 2 s
            if address in self._places:
                return
            await asyncio.sleep(0.05)

    def status(self) -> str:
        if not self._up.is_set():
            return "not connected to the XMPP server"
        joined = sum(1 for room, _ in self._places.values() if room.is_joined)
        return f"connected, in {joined} of {len(self._places)} rooms, {len(self._calls)} calls"

    # --- rooms ---------------------------------------------------------------------------------------------

    async def _refresh(self, tasks: asyncio.TaskGroup) -> None:
        """Make rooms follow bindings, and know every slug."""
        try:
            records = await self._context.directory.all()
        except Unavailable:
            self._stale.set()
            await asyncio.sleep(1.0)
            return
        self._inbound.slugs = frozenset(
            record.slug.lower() for record in records if not record.auto
        )
        wanted = {
            place.address.lower(): record
            for record in records
            for place in record.places
            if place.network is Network.XMPP
        }
        for address in [a for a in self._places if a not in wanted]:
            self._unbind(address)
        for address, record in wanted.items():
            if address not in self._places:
                self._bind(address, record, tasks)

    def _bind(self, address: str, record: ConferenceRecord, tasks: asyncio.TaskGroup) -> None:
        room = Room(self._context, self._link, record, address, self._up, self._room_joined)
        self._places[address] = (room, Puppets(self._context, self._link, room))
        self._room_tasks[address] = tasks.create_task(room.run(), name="xmpp-room")

    def _unbind(self, address: str) -> None:
        room, puppets = self._places.pop(address)
        self._room_tasks.pop(address).cancel()
        try:
            puppets.leave_all()
            room.leave()
        except Unavailable:
            log.debug("left a room without a stream")

    def _on_up(self) -> None:
        self._up.set()

    def _on_down(self) -> None:
        self._up.clear()
        for room, puppets in self._places.values():
            room.link_lost()
            puppets.lost()

    def _room_joined(self, room: Room) -> None:
        if not self._rejoined.full():
            self._rejoined.put_nowait(room)

    async def _bring_back(self) -> None:
        """R2: after the focus is in again, so are the people of the call."""
        while True:
            room = await self._rejoined.get()  # unbounded: joins are rare
            found = self._places.get(room.address)
            if found is None:
                continue
            people = dict(found[1].in_call)
            for leg in self._context.view(room.conference.id):
                if leg.account.network is not Network.XMPP and not leg.hidden:
                    people[leg.account] = leg.name
            for account, name in people.items():
                try:
                    await found[1].enter(account, name, in_call=True)
                except (Refused, Unavailable) as why:
                    log.info("puppet not back", extra={"why": str(why)})
            try:
                await found[1].dismiss_left_behind()
            except Unavailable as why:
                log.info("puppets left behind stay a while", extra={"why": str(why)})

    async def _tell_rooms(self) -> None:
        while True:
            conference, event = await self._events.get()  # unbounded: a quiet house
            await self._outbound.event(conference, event)

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(TIDY_EVERY_S)
            for _, puppets in self._places.values():
                puppets.leave_idle()
