"""One LiveKit leg's life: joined, perhaps cut off and resumed, gone.

Everything that waits for others (media, conference, store) runs in one task per leg, in order, so that
negotiation never overlaps itself.
Fact sheet sections 2.2 to 2.6. Not here: what requests mean (`requests`), the socket (`signalling`),
descriptions (`single`, `dual`), data packets
(`packets`), telling all legs (`rooms`).
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Set
from dataclasses import dataclass
from functools import partial
from typing import Final

from livekit.protocol import models, rtc

from bridge.conference.commands import Leave
from bridge.conference.errors import ConferenceError, Malformed, Refused, Unavailable
from bridge.conference.events import Leg, Said
from bridge.conference.ids import LeaveReason, LegId, TrackId
from bridge.conference.ports import ConferenceRecord
from bridge.gateway import (
    ChannelMessage,
    Context,
    LayersWanted,
    MediaSignal,
    NegotiationWanted,
    QualityGrade,
    SessionOver,
    SessionSilent,
    SessionUp,
    Speaking,
    StreamPaused,
)
from bridge.gateways.livekit import wire
from bridge.gateways.livekit.dual import Dual
from bridge.gateways.livekit.joins import Ask
from bridge.gateways.livekit.negotiation import Negotiator
from bridge.gateways.livekit.news import PARTICIPANTS, QUALITIES, News, join_response, news_of
from bridge.gateways.livekit.packets import Packets
from bridge.gateways.livekit.publishing import Publications
from bridge.gateways.livekit.relays import ice_servers
from bridge.gateways.livekit.rooms import Rooms
from bridge.gateways.livekit.signalling import Connection
from bridge.gateways.livekit.silence import Silence
from bridge.gateways.livekit.single import Single
from bridge.gateways.livekit.speakers import Speakers
from bridge.gateways.livekit.state import WireState
from bridge.gateways.livekit.streams import Streams
from bridge.gateways.livekit.tokens import AccessTokens

log = logging.getLogger(__name__)

NAME: Final = "livekit"
MAX_WORK: Final = 1000  # things to do; a reader waits, a signal beyond it ends the leg
WORK_TIMEOUT_S: Final = 20.0  # longer than any single port call may take
CLEANUP_TIMEOUT_S: Final = 5.0
REFRESH_S: Final = 300.0  # of the token, as livekit's server
MAX_DEPARTED: Final = 1000  # kept for a client that is cut off
_GRADES: Final = (
    models.ConnectionQuality.LOST,
    models.ConnectionQuality.POOR,
    models.ConnectionQuality.GOOD,
    models.ConnectionQuality.EXCELLENT,
)

Work = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Services:
    """What every device works with."""

    context: Context
    tokens: AccessTokens
    rooms: Rooms
    sif_trailer: bytes


class Device:
    """A leg. Synchronous methods are called from events and never block."""

    def __init__(
        self, services: Services, conference: ConferenceRecord, leg_id: LegId, state: WireState
    ) -> None:
        self.services = services
        self.conference = conference
        self.leg_id = leg_id
        self.state = state
        self.silence = Silence(time.monotonic())
        self.publications = Publications(services.context, conference.id, leg_id, state, self.save)
        kind = Single if state.is_single else Dual
        self.negotiator: Negotiator = kind(
            services.context,
            conference.id,
            leg_id,
            state,
            self.publications,
            self.send,
            self._told,
        )
        self._connection: Connection | None = None
        self._is_told = False  # the first message is out; before it, nothing else may be
        self._work: asyncio.Queue[Work] = asyncio.Queue(MAX_WORK)
        self.packets = Packets(self)
        self._speakers = Speakers()
        self._streams = Streams(self)
        self._seen: set[str] = set()
        self._departed: dict[str, News] = {}
        self._refresh_s = 0.0
        self._reason: LeaveReason | None = None  # set: gone

    # --- what others ask of it, at once --------------------------------------------------------------

    @property
    def extras(self) -> wire.Extras:
        return wire.Extras(
            grant=self.state.claims.video,
            metadata=self.state.metadata,
            attributes=tuple(self.state.attributes.items()),
            bump=self.state.bump,
        )

    @property
    def leg(self) -> Leg | None:
        """The conference's view of it, None before the join and after the leave."""
        legs = self.services.rooms.legs(self.conference.id)
        return next((leg for leg in legs if leg.id == self.leg_id), None)

    def send(self, message: rtc.SignalResponse) -> None:
        """To the client; dropped while it is cut off (a resume tells everything anew)."""
        if self._connection is not None and self._is_told:
            self._connection.send(message)

    def send_latest(self, key: str, data: bytes) -> None:
        """An encoded message; one of the same key that still waits is replaced."""
        if self._connection is not None and self._is_told:
            self._connection.send_latest(key, data)

    def hear_quality(self, leg: LegId, data: bytes) -> None:
        """`data` is an encoded `ConnectionQualityInfo` of that leg."""
        if self._connection is not None and self._is_told:
            self._connection.merge(QUALITIES, leg, data)

    def update(self, news: Iterable[News]) -> None:
        if self._connection is not None and self._is_told:
            for one in news:
                self._connection.merge(PARTICIPANTS, one.sid, one.data)
            return
        for one in news:
            if one.is_gone and len(self._departed) < MAX_DEPARTED:
                self._departed[one.sid] = one

    def is_seen(self, tracks: Set[str]) -> None:
        """Somebody receives these tracks of this leg."""
        for track in tracks - self._seen:
            self._seen.add(track)
            told = rtc.TrackSubscribed(track_sid=track)
            self.send(rtc.SignalResponse(track_subscribed=told))

    def unpublished(self, track: TrackId) -> None:
        self._seen.discard(track)
        self._streams.forget(track)
        if track in self.state.cids:  # not by the client's own offer: it must hear of it
            self.publications.forget(track)
            ended = rtc.TrackUnpublishedResponse(track_sid=track)
            self.send(rtc.SignalResponse(track_unpublished=ended))

    def hear(self, said: Said, identity: str) -> None:
        self.packets.hear(said, identity)

    def parted(self, reason: LeaveReason) -> None:
        """The conference says it is gone. Tell the client why, then clean up."""
        if self._reason is not None:
            return
        if reason is not LeaveReason.LEFT:
            self.send(wire.leave(reason))
        self._end(reason)

    def signal(self, signal: MediaSignal) -> None:
        match signal:
            case SessionUp():
                self.post(partial(self._session_up, signal.session))
            case SessionSilent():
                self.post(partial(self._session_silent, signal.session))
            case SessionOver():
                log.info("session over", extra={"leg": self.leg_id, "why": signal.reason})
                self.post(partial(self.leave, LeaveReason.FAILED))
            case NegotiationWanted():
                self.post(partial(self.negotiator.wanted, signal))
            case ChannelMessage():
                self.packets.take(signal)
            case Speaking():
                message = self._speakers.change(signal)
                if message is not None:
                    self.send(message)
            case QualityGrade():
                self._grade(signal.grade)
            case StreamPaused():
                self._streams.pause(signal)
            case LayersWanted():
                self._streams.want(signal)
            case _:
                pass  # TrackIsLive: clients see it by themselves

    def post(self, work: Work) -> None:
        """Do this in turn."""
        try:
            self._work.put_nowait(work)
        except asyncio.QueueFull:
            log.warning("leg overwhelmed", extra={"leg": self.leg_id})
            self._end(LeaveReason.FAILED)

    async def ask(self, work: Work) -> None:
        """The same from the reader, which waits for room: a slow worker slows the client."""
        await self._work.put(work)

    # --- the socket comes and goes -------------------------------------------------------------------

    def detached(self, connection: Connection) -> None:
        if self._connection is connection:
            self._connection = None
            self._is_told = False
            self.silence.closed(time.monotonic())
            self.post(self._nothing)  # deadlines changed

    async def begin(self, connection: Connection, ask: Ask) -> None:
        """The first socket: JoinResponse, announced tracks, the offer that came along."""
        leg = self._take(connection)
        if leg is None:
            return
        legs = [one for one in self.services.rooms.legs(self.conference.id) if one != leg]
        rooms = self.services.rooms
        join = wire.join_response(
            self.conference,
            wire.participant_info(leg, self.extras, to_itself=True),
            [leg, *legs],
            subscriber_primary=not self.state.is_single,
            sif_trailer=self.services.sif_trailer,
            video_codecs=self.services.context.config.livekit.video_codecs,
            ice_servers=self._relays(),
        )
        others = [rooms.news(one, self.conference.id) for one in legs if not one.hidden]
        connection.send_encoded(join_response(join, others))
        self._is_told = True
        self._departed.clear()
        for track in ask.tracks:
            session = await self.negotiator.for_publishing()
            self.send(await self.publications.announce(session, track))
        await self.negotiator.begin()
        if ask.offer is not None:
            await self.negotiator.offer(ask.offer)

    async def resume(self, connection: Connection) -> None:
        """A socket after the first: everything the client may have missed."""
        leg = self._take(connection)
        if leg is None:
            return
        rooms = self.services.rooms
        connection.send(
            rtc.SignalResponse(
                reconnect=rtc.ReconnectResponse(
                    ice_servers=self._relays(),
                    client_configuration=wire.client_configuration(),
                    server_info=wire.server_info(),
                )
            )
        )
        self._is_told = True
        legs = rooms.legs(self.conference.id)
        room = wire.room_info(
            self.conference, legs, self.services.context.config.livekit.video_codecs
        )
        self.send(rtc.SignalResponse(room_update=rtc.RoomUpdate(room=room)))
        present = {one.id for one in legs}
        self.update(one for sid, one in self._departed.items() if sid not in present)
        self._departed.clear()
        for one in legs:
            if one.id == self.leg_id:
                own = wire.participant_info(one, self.extras, to_itself=True)
                self.update((news_of(own),))
            elif not one.hidden:
                self.update((rooms.news(one, self.conference.id),))
        self._speakers.forget()
        self._streams.resume()
        await self.negotiator.resume()

    def _relays(self) -> list[rtc.ICEServer]:
        """Fresh with every socket; bound to the leg, whose id says nothing about the person."""
        return ice_servers(self.services.context.config.turn, str(self.leg_id), time.time())

    def _take(self, connection: Connection) -> Leg | None:
        leg = self.leg
        if leg is None or self._reason is not None:
            connection.send(wire.start_over())
            connection.close()
            return None
        if self._connection is not None:
            self._connection.close()  # a newer socket of the same client
        self._connection = connection
        self._is_told = False
        now_s = time.monotonic()
        self.silence.opened(now_s)
        self._refresh_s = now_s + REFRESH_S
        return leg

    # --- its task ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Live until gone. Cancelled = the program stops: the leg stays for the next start."""
        try:
            async with asyncio.TaskGroup() as tasks:
                packets = tasks.create_task(self.packets.run(), name=f"data-{self.leg_id}")
                while self._reason is None:
                    await self._turn()
                packets.cancel()
        finally:
            self.services.rooms.remove(self)
            if self._connection is not None:
                self._connection.close()
        await self._clean_up()

    async def _turn(self) -> None:
        try:
            async with asyncio.timeout(self._wait_s()):
                work = await self._work.get()
        except TimeoutError:
            await self._guarded(self._tick)
            return
        await self._guarded(work)

    def _wait_s(self) -> float:
        now_s = time.monotonic()
        times = [now_s + REFRESH_S]
        if self._connection is not None:
            times.append(self._refresh_s)
        ends_s = self.silence.deadline_s()
        if ends_s is not None:
            times.append(ends_s)
        return max(0.0, min(times) - now_s)

    async def _tick(self) -> None:
        now_s = time.monotonic()
        ends_s = self.silence.deadline_s()
        if ends_s is not None and now_s >= ends_s:
            await self.leave(LeaveReason.LOST)
        elif self._connection is not None and now_s >= self._refresh_s:
            self._refresh_s = now_s + REFRESH_S
            token = self.services.tokens.refresh(self.state.claims)
            self.send(rtc.SignalResponse(refresh_token=token))

    async def _guarded(self, work: Work) -> None:
        """One leg's fault, or its client's, stays its own."""
        try:
            async with asyncio.timeout(WORK_TIMEOUT_S):
                await work()
        except Malformed as why:
            log.info("client broke the protocol", extra={"leg": self.leg_id, "why": str(why)})
            await self._fail(wire.refuse())
        except Refused as why:
            log.info("refused", extra={"leg": self.leg_id, "why": str(why)})
        except (Unavailable, TimeoutError) as why:
            log.warning("leg failed", extra={"leg": self.leg_id, "why": str(why)})
            await self._fail(wire.leave(LeaveReason.FAILED))
        except Exception:
            log.exception("leg broke", extra={"leg": self.leg_id})
            await self._fail(wire.leave(LeaveReason.FAILED))

    async def _fail(self, goodbye: rtc.SignalResponse) -> None:
        self.send(goodbye)
        self._end(LeaveReason.FAILED)
        try:
            async with asyncio.timeout(CLEANUP_TIMEOUT_S):
                await self._submit_leave(LeaveReason.FAILED)
        except (ConferenceError, TimeoutError):
            log.warning("leave not taken", extra={"leg": self.leg_id})

    async def leave(self, reason: LeaveReason) -> None:
        """Ask the conference; its `Left` comes back as `parted`."""
        await self._submit_leave(reason)

    async def _submit_leave(self, reason: LeaveReason) -> None:
        leave = Leave(self.leg_id, reason)
        events = await self.services.context.submit(self.conference.id, leave, None)
        if not events:
            self._end(reason)  # it was not in (any more)

    def _end(self, reason: LeaveReason) -> None:
        if self._reason is None:
            self._reason = reason
            while self._work.full():
                self._work.get_nowait()
            self._work.put_nowait(self._nothing)
            if self._connection is not None:
                self._connection.close()

    async def _clean_up(self) -> None:
        context = self.services.context
        for session in self.negotiator.sessions:
            try:
                async with asyncio.timeout(CLEANUP_TIMEOUT_S):
                    await context.media.close(session, "close")
            except (ConferenceError, TimeoutError):
                log.info("session was gone already", extra={"leg": self.leg_id})
        try:
            async with asyncio.timeout(CLEANUP_TIMEOUT_S):
                await context.legs.forget(self.leg_id)
        except (ConferenceError, TimeoutError):
            log.warning("leg not forgotten", extra={"leg": self.leg_id})

    async def save(self) -> None:
        await self.services.context.legs.save(
            self.conference.id, self.leg_id, NAME, self.state.to_json()
        )

    async def _nothing(self) -> None:
        """Wakes the task, so that it looks at its deadlines."""

    # --- signals -------------------------------------------------------------------------------------

    async def _session_up(self, session: str) -> None:
        """`bridge.media` tells the conference; here it only moves the deadline."""
        self.silence.session_up(session)

    async def _session_silent(self, session: str) -> None:
        self.silence.session_silent(session, time.monotonic())

    def _grade(self, grade: int) -> None:
        quality = _GRADES[max(0, min(grade, 3))]
        info = rtc.ConnectionQualityInfo(
            participant_sid=self.leg_id, quality=quality, score=grade * 5 / 3
        )
        data = info.SerializeToString()
        for device in self.services.rooms.of(self.conference.id):
            device.hear_quality(self.leg_id, data)

    def _told(self, tracks: set[str]) -> None:
        self.services.rooms.seen(tracks, self.conference.id)
