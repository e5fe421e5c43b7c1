"""Sessions in the worker for legs of conferences: keeps `gateway.Media`, listens to every focus.

Gateways' calls and conference events become commands of the seam; the worker's events become signals to the
leg's gateway and transport truth for the conference.
Not here: what should be forwarded to whom (`media.room`), after a restart (`media.readoption`).
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

from bridge.conference.commands import Leave, SetLegState
from bridge.conference.errors import ConferenceError, IllegalTransition, Refused, Unavailable
from bridge.conference.events import Event, Joined, Left, Leg
from bridge.conference.ids import (
    ConferenceId,
    LeaveReason,
    LegId,
    TrackId,
    TrackKind,
    TrackSource,
)
from bridge.conference.ports import ConferenceRecord
from bridge.conference.streams import StreamPolicy
from bridge.gateway import MediaSignal, SessionOver, Store
from bridge.media.lane import Lane
from bridge.media.readoption import Readopted, correct, hold, keep_choices, match
from bridge.media.room import Room, Session
from bridge.media.rows import Rows
from bridge.media.signals import speaking, translate
from bridge.media.statistics import Gatherer, summary
from bridge.media.voice import Submit, Voice
from bridge.media.worker import Worker
from sfu import protocol
from sfu.client import Adopted, ClientError, Lost
from sfu.description import (
    Candidate,
    Description,
    Downstream,
    LayerSpec,
    MediaKind,
    Profile,
    Wish,
)

log = logging.getLogger(__name__)

LEAVE_AFTER_S: Final = 5.0  # a gateway has this long to end a leg whose sessions are over
FIRST_SNAPSHOT_S: Final = 15.0
ASK_STATISTICS_EVERY_S: Final = 5.0  # each time the worker goes on telling them for 10 s
MAX_WAITING_SIGNALS: Final = 64  # of one leg that has not joined yet

Deliver = Callable[[ConferenceRecord, Leg, MediaSignal], None]


class WorkerMedia:
    """`tasks` is the app's TaskGroup. `readopt` comes before `run`; `on_lost` may start a worker."""

    def __init__(
        self,
        worker: Worker,
        store: Store,
        tasks: asyncio.TaskGroup,
        deliver: Deliver,
        submit: Submit,
        *,
        on_lost: Callable[[], None] = lambda: None,
        policies: Callable[[ConferenceRecord], StreamPolicy] = lambda _: StreamPolicy(),
        leave_after_s: float = LEAVE_AFTER_S,
    ) -> None:
        self._worker = worker
        self._tasks = tasks
        self._deliver = deliver
        self._voice = Voice(submit, tasks)
        self._on_lost = on_lost
        self._policies = policies
        self._leave_after_s = leave_after_s
        self._rows = Rows(store, tasks)
        self._rooms: dict[ConferenceId, Room] = {}
        self._room_of_leg: dict[LegId, Room] = {}
        self._room_of_session: dict[str, Room] = {}
        self._opening: set[str] = set()
        self._waiting: dict[LegId, list[MediaSignal]] = {}
        self._over: list[tuple[Room, Session, str]] = []  # found by readopt, told by run
        self._readopted: list[tuple[Room, LegId]] = []
        self._leaving: set[LegId] = set()
        self._happenings = worker.events()  # one reader for ever: first `readopt`, then `run`
        self._lane = Lane(worker, tasks)
        self.statistics = Gatherer()

    # --- life ------------------------------------------------------------------------------------------

    async def readopt(self, live: Mapping[ConferenceRecord, Sequence[Leg]]) -> Readopted:
        """Know again what the worker still has of these legs. Raises `Unavailable`.

        Always called once, before `run`: what nobody knows any more is closed.
        """
        snapshot = await self._first_snapshot()
        for record, legs in live.items():
            room = self._rooms[record.id] = Room(record.id, record, rules=self._rules(record))
            for leg in legs:
                self._room_of_leg[leg.id] = room
                room.enter(leg)  # what it would send is planned again below
        sessions: dict[LegId, list[str]] = {}
        for row in await self._rows.load():
            room_of_leg = self._room_of_leg.get(row.session.leg)
            if room_of_leg is None:
                await self._rows.delete(row.session.name)
                continue
            room_of_leg.opened(row.session)
            self._room_of_session[row.session.name] = room_of_leg
            sessions.setdefault(row.session.leg, []).append(row.session.name)
        for room in self._rooms.values():
            correct(room, snapshot)
            keep_choices(room)
        held = [one for room in self._rooms.values() for one in hold(room)]
        self._over += self._compare(snapshot)
        self._readopted = [(room, leg) for room in self._rooms.values() for leg in room.legs]
        lost = {session.leg for _, session, _ in self._over}
        return Readopted(
            sessions={leg: tuple(names) for leg, names in sessions.items()},
            alive=frozenset(sessions.keys() - lost),
            held=tuple(held),
        )

    async def run(self) -> None:
        """Carry commands and events until cancelled or the client is closed."""
        sender = self._tasks.create_task(self._lane.run(), name="media-lane")
        asker = self._tasks.create_task(self._ask_statistics(), name="media-statistics")
        try:
            for room, session, reason in self._over:
                self._signal(room, session.leg, SessionOver(session.name, reason))
            for room, leg in self._readopted:
                self._sync_state(room, leg)
                self._leave_later(room, leg)
            async for happening in self._happenings:
                match happening:
                    case Adopted(snapshot=snapshot):
                        self._resync(snapshot)
                    case Lost():
                        self._on_lost()
                    case _:
                        self._handle(happening)
        finally:
            sender.cancel()
            asker.cancel()

    async def _ask_statistics(self) -> None:
        while True:  # as long as media runs
            await asyncio.sleep(ASK_STATISTICS_EVERY_S)
            if self._rooms:
                with suppress(ClientError):  # away: the next time will do
                    await self._worker.request(protocol.ReadStatistics())

    def record(self, conference: ConferenceId) -> ConferenceRecord | None:
        """Of a conference in which somebody is."""
        room = self._rooms.get(conference)
        return None if room is None else room.record

    def summary(self, conference: ConferenceId) -> str:
        """One line about a conference's media, empty when nothing is known."""
        return summary(self.statistics.loads.get(conference))

    def _rules(self, record: ConferenceRecord) -> StreamPolicy:
        return record.streams.over(self._policies(record))

    async def _first_snapshot(self) -> protocol.Snapshot:
        try:
            async with asyncio.timeout(FIRST_SNAPSHOT_S):
                async for happening in self._happenings:
                    if isinstance(happening, Adopted):
                        return happening.snapshot
        except TimeoutError as why:
            raise Unavailable("The media worker gave no snapshot.") from why
        raise Unavailable("The connection to the media worker was closed.")

    def _resync(self, snapshot: protocol.Snapshot) -> None:
        """The connection, or another worker, is there: what we believed may be wrong."""
        for room in self._rooms.values():
            correct(room, snapshot)
        for room, session, reason in self._compare(snapshot):
            self._tell_over(room, session, reason)
        for room in self._rooms.values():
            for leg in room.legs:
                self._sync_state(room, leg)

    # --- the conference --------------------------------------------------------------------------------

    def notify(self, conference: ConferenceRecord, events: Sequence[Event]) -> None:
        """Keeps `ports.Listener`; the first of them, so that gates are shut before anybody is told."""
        room = self._room(conference.id)
        room.record, room.rules = conference, self._rules(conference)
        for event in events:
            names: tuple[str, ...] = ()
            if isinstance(event, Left):
                names = tuple(session.name for session in room.sessions_of(event.leg.id))
                self._waiting.pop(event.leg.id, None)
                self._room_of_leg.pop(event.leg.id, None)
            self._lane.enqueue(room, room.apply(event))
            for name in names:
                self._room_of_session.pop(name, None)
                self._tasks.create_task(self._rows.delete(name), name="media-row")
            if isinstance(event, Joined):
                self._room_of_leg[event.leg.id] = room
                # Gateways learn of the leg in this very round; its signals come after that.
                asyncio.get_running_loop().call_soon(self._entered, room, event.leg.id)
        self._drop_if_empty(room)

    # --- what gateways call (gateway.Media) ------------------------------------------------------------

    async def open(
        self,
        conference: ConferenceId,
        leg: LegId,
        session: str,
        profile: Profile,
        *,
        receives: bool,
        media: Sequence[MediaKind] = (),
        auto_subscribe: bool = True,
    ) -> None:
        if session in self._room_of_session or session in self._opening:
            raise IllegalTransition("a session of this name is open")
        before = self._rooms.get(conference)
        was_in = before is not None and leg in before.legs
        follows = profile.downstream is Downstream.COMPACT
        state = Session(session, leg, receives, follows, auto_subscribe)
        self._opening.add(session)
        try:
            await self._rows.put(conference, state)
            try:
                await self._lane.do(protocol.Open(session, conference, profile, tuple(media)))
            except ConferenceError:
                await self._rows.delete(session)
                raise
        finally:
            self._opening.discard(session)
        room = self._room(conference)
        if was_in and leg not in room.legs:
            self._drop_if_empty(room)
            await self._rows.delete(session)
            await self._lane.do(protocol.Close(session, "left"))
            raise Refused("You left the call.")
        self._room_of_session[session] = room
        self._room_of_leg[leg] = room
        self._lane.enqueue(room, room.opened(state))

    async def offer(self, session: str, description: Description) -> Description:
        return await self._lane.describe(protocol.Offer(session, description))

    async def make_offer(self, session: str, *, restart_ice: bool = False) -> Description:
        return await self._lane.describe(protocol.MakeOffer(session, restart_ice))

    async def answer(self, session: str, description: Description) -> None:
        await self._lane.do(protocol.Answer(session, description))

    async def candidates(self, session: str, mid: str, candidates: Sequence[Candidate]) -> None:
        await self._lane.do(protocol.Candidates(session, mid, tuple(candidates)))

    async def restart_ice(self, session: str) -> None:
        await self._lane.do(protocol.RestartIce(session))

    async def expect(
        self,
        session: str,
        track: TrackId,
        kind: TrackKind,
        source: TrackSource,
        *,
        match: Sequence[str] = (),
        mid: str | None = None,
        layers: Sequence[LayerSpec] = (),
        encrypted: bool = False,
    ) -> None:
        room = self._room_of_session.get(session)
        if room is None:
            raise Refused("This media session is over; join again.")
        if room.publishers.get(track, session) != session:
            raise IllegalTransition("the track belongs to another session")
        await self._lane.do(
            protocol.Expect(
                session,
                track,
                MediaKind(kind.value),
                source.value,
                tuple(match),
                mid,
                tuple(layers),
                encrypted,
            )
        )
        if session in room.sessions:
            self._lane.enqueue(room, room.expected(session, track))

    async def set_subscribed(self, leg: LegId, track: TrackId, subscribed: bool) -> None:
        room = self._room_of_leg.get(leg)
        if room is not None:
            self._lane.enqueue(room, room.choose(leg, track, subscribed))

    async def wish(self, leg: LegId, track: TrackId, wish: Wish) -> None:
        room = self._room_of_leg.get(leg)
        if room is not None:
            self._lane.enqueue(room, room.wish(leg, track, wish))

    async def limit(self, session: str, *, egress_bps: int) -> None:
        await self._lane.do(protocol.Limits(session, egress_bps=egress_bps))

    async def send(self, session: str, channel: str, data: bytes, *, binary: bool = True) -> None:
        await self._lane.do(protocol.Send(session, channel, data, binary))

    async def close(self, session: str, reason: str = "") -> None:
        room = self._room_of_session.pop(session, None)
        if room is None:
            return
        leg = room.sessions[session].leg
        room.ended(session)
        self._drop_leg(room, leg)
        await self._rows.delete(session)
        with suppress(Refused):  # it was over already
            await self._lane.do(protocol.Close(session, reason))

    # --- the worker's events ---------------------------------------------------------------------------

    def _handle(self, event: protocol.Event) -> None:
        match event:
            case protocol.Speakers():
                self._speaking(event)
                return
            case protocol.Statistics():
                self.statistics.take(event, time.monotonic())
                return
        room = self._room_of_session.get(event.session)
        if room is None:
            return  # closed by us a moment ago
        session = room.sessions[event.session]
        match event:
            case protocol.Closed(reason=reason):
                self._forget_session(room, session)
                self._tell_over(room, session, reason)
                return
            case protocol.TrackLive(track=track):
                self._lane.enqueue(room, room.plan_track(TrackId(track)))
            case protocol.Connected() | protocol.Disconnected():
                room.heard(session, event)
                self._sync_state(room, session.leg)
        signal = translate(event)
        if signal is not None:
            self._signal(room, session.leg, signal)

    def _speaking(self, event: protocol.Speakers) -> None:
        room = self._rooms.get(ConferenceId(event.group))
        if room is not None:
            signal = speaking(room, event)
            for leg in tuple(room.legs):
                self._signal(room, leg, signal)

    def _tell_over(self, room: Room, session: Session, reason: str) -> None:
        self._signal(room, session.leg, SessionOver(session.name, reason))
        self._leave_later(room, session.leg)

    def _signal(self, room: Room, leg: LegId, signal: MediaSignal) -> None:
        known = room.legs.get(leg)
        if known is not None and room.record is not None and leg not in self._waiting:
            self._deliver(room.record, known, signal)
            return
        waiting = self._waiting.setdefault(leg, [])
        if len(waiting) < MAX_WAITING_SIGNALS:
            waiting.append(signal)

    def _entered(self, room: Room, leg: LegId) -> None:
        self._sync_state(room, leg)
        for signal in self._waiting.pop(leg, ()):
            self._signal(room, leg, signal)

    def _sync_state(self, room: Room, leg: LegId) -> None:
        known = room.legs.get(leg)
        state = room.transport_of(leg)
        if known is None or state is None or state is room.told.get(leg, known.state):
            return
        room.told[leg] = state
        self._voice.say(room.conference, SetLegState(leg, state))

    def _leave_later(self, room: Room, leg: LegId) -> None:
        """Only a leg without any session, now and then, is ended."""
        if not room.sessions_of(leg) and leg not in self._leaving:
            self._leaving.add(leg)
            self._tasks.create_task(self._leave_if_gone(room, leg), name="media-leave")

    async def _leave_if_gone(self, room: Room, leg: LegId) -> None:
        await asyncio.sleep(self._leave_after_s)
        self._leaving.discard(leg)
        if leg in room.legs and not room.sessions_of(leg):
            self._voice.say(room.conference, Leave(leg, LeaveReason.LOST))
        self._drop_leg(room, leg)

    # --- bookkeeping -----------------------------------------------------------------------------------

    def _compare(self, snapshot: protocol.Snapshot) -> list[tuple[Room, Session, str]]:
        """Put right what differs; returns our sessions that are over."""
        found = match(self._room_of_session, snapshot)
        for name, transport in found.alive.items():
            self._room_of_session[name].sessions[name].transport = transport
        over = []
        for name, reason in found.over.items():
            room = self._room_of_session[name]
            session = room.sessions[name]
            self._forget_session(room, session)
            over.append((room, session, reason))
        for room in self._rooms.values():
            self._lane.enqueue(room, room.plan_all())
        for name in found.strangers:
            if name not in self._opening:
                self._lane.enqueue_apart(protocol.Close(name, "unknown"))
        if found.tombstones:
            self._lane.enqueue_apart(protocol.Forget(found.tombstones))
        return over

    def _room(self, conference: ConferenceId) -> Room:
        return self._rooms.setdefault(conference, Room(conference))

    def _forget_session(self, room: Room, session: Session) -> None:
        room.ended(session.name)
        self._room_of_session.pop(session.name, None)
        self._tasks.create_task(self._rows.delete(session.name), name="media-row")

    def _drop_leg(self, room: Room, leg: LegId) -> None:
        """Forget a leg that never joined, with its last session."""
        if leg not in room.legs and not room.sessions_of(leg):
            self._room_of_leg.pop(leg, None)
            self._waiting.pop(leg, None)
        self._drop_if_empty(room)

    def _drop_if_empty(self, room: Room) -> None:
        if room.is_empty:
            self._rooms.pop(room.conference, None)
