"""The livekit gateway with the real rules behind it and fakes of everything that does I/O.

`Rig` serves the gateway's routes on a free port; `Client` is a WebSocket that speaks livekit.protocol.
"""

import asyncio
import base64
import contextlib
import gzip
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from livekit.protocol import models, rtc

from bridge.conference.commands import Command, Join
from bridge.conference.conference import Conference
from bridge.conference.errors import Refused
from bridge.conference.events import Event, Leg
from bridge.conference.ids import (
    ConferenceId,
    Identity,
    LegId,
    Place,
    Role,
    TrackId,
)
from bridge.conference.ports import Cause, ConferenceRecord, Restored
from bridge.config import ApiKey, Config, LivekitSection
from bridge.gateway import Context, MatrixProfile, MediaSignal, Membership, OpenIdToken
from bridge.gateways.livekit.gateway import LivekitGateway
from bridge.gateways.livekit.grants import Claims, VideoGrant
from bridge.http import Handler, Listener
from sfu import sdp
from sfu.description import (
    Candidate,
    Codec,
    Description,
    DescriptionType,
    Direction,
    Fingerprint,
    MediaKind,
    Profile,
    Section,
    Setup,
    Transport,
    Wish,
)

SECRET = "a secret of more than thirty-two bytes!"
OTHER_SECRET = "another secret, also of more than 32 bytes"
WAIT_S = 5.0


def transport(name: str = "abcd", *, lite: bool = False) -> Transport:
    fingerprint = Fingerprint("sha-256", ":".join(["AB"] * 32))
    return Transport(name, "p" * 24, (fingerprint,), Setup.ACTPASS, ice_lite=lite)


OPUS = Codec(111, "opus", 48_000, 2)
VP8 = Codec(96, "VP8", 90_000)


def section(
    mid: str,
    kind: MediaKind = MediaKind.AUDIO,
    direction: Direction = Direction.RECVONLY,
    track: str | None = None,
    *,
    rejected: bool = False,
) -> Section:
    if kind is MediaKind.APPLICATION:
        return Section(mid, kind, Direction.SENDRECV, transport(), sctp_port=5000)
    codec = OPUS if kind is MediaKind.AUDIO else VP8
    stream = None if track is None else "stream"
    return Section(
        mid,
        kind,
        direction,
        transport(),
        codecs=(codec,),
        stream=stream,
        track=track,
        rejected=rejected,
    )


def offer_text(*sections: Section) -> str:
    mids = tuple(s.mid for s in sections if not s.rejected)
    return sdp.print_description(Description(DescriptionType.OFFER, sections, mids))


@dataclass
class FakeMedia:
    """Answers every offer; puts `placed` tracks on sections by mid."""

    calls: list[tuple[Any, ...]] = field(default_factory=list)
    placed: dict[str, tuple[str, str]] = field(default_factory=dict)  # mid -> (stream, track)
    sent: list[tuple[str, str, bytes]] = field(default_factory=list)
    profiles: dict[str, Profile] = field(default_factory=dict)
    broken: bool = False

    def of(self, name: str) -> list[tuple[Any, ...]]:
        return [call[1:] for call in self.calls if call[0] == name]

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
        self.profiles[session] = profile
        self.calls.append(("open", session, profile.name, receives, auto_subscribe))

    async def offer(self, session: str, description: Description) -> Description:
        self.calls.append(("offer", session, description))
        if self.broken:
            raise RuntimeError("a bug")
        sections = tuple(self._answered(one) for one in description.sections)
        return Description(DescriptionType.ANSWER, sections, description.bundle)

    def _answered(self, one: Section) -> Section:
        ours = replace(one.transport, setup=Setup.PASSIVE, ice_lite=True)
        if one.rejected:
            return one
        if one.kind is MediaKind.APPLICATION:
            return replace(one, transport=ours)
        stream, track = self.placed.get(one.mid, (None, None))
        direction = one.direction.reversed
        if one.direction is Direction.RECVONLY and track is None:
            direction = Direction.INACTIVE
        return replace(
            one, transport=ours, direction=direction, stream=stream, track=track, sources=()
        )

    async def make_offer(self, session: str, *, restart_ice: bool = False) -> Description:
        self.calls.append(("make_offer", session, restart_ice))
        sections = [section("0", MediaKind.APPLICATION)]
        for mid, (stream, track) in self.placed.items():
            one = section(mid, MediaKind.AUDIO, Direction.SENDONLY, track)
            sections.append(replace(one, stream=stream))
        mids = tuple(s.mid for s in sections)
        return Description(DescriptionType.OFFER, tuple(sections), mids)

    async def answer(self, session: str, description: Description) -> None:
        self.calls.append(("answer", session, description))

    async def candidates(self, session: str, mid: str, candidates: Sequence[Candidate]) -> None:
        self.calls.append(("candidates", session, mid, tuple(candidates)))

    async def restart_ice(self, session: str) -> None:
        self.calls.append(("restart_ice", session))

    async def expect(
        self, session: str, track: TrackId, kind: Any, source: Any, **how: Any
    ) -> None:
        self.calls.append(("expect", session, track, kind, source, how))

    async def set_subscribed(self, leg: LegId, track: TrackId, subscribed: bool) -> None:
        self.calls.append(("set_subscribed", leg, track, subscribed))

    async def wish(self, leg: LegId, track: TrackId, wish: Wish) -> None:
        self.calls.append(("wish", leg, track, wish))

    async def limit(self, session: str, *, egress_bps: int) -> None:
        self.calls.append(("limit", session, egress_bps))

    async def send(self, session: str, channel: str, data: bytes, *, binary: bool = True) -> None:
        self.sent.append((session, channel, data))

    async def close(self, session: str, reason: str = "") -> None:
        self.calls.append(("close", session, reason))


class FakeLegs:
    def __init__(self) -> None:
        self.saved: dict[LegId, Mapping[str, object]] = {}

    async def save(
        self, conference: ConferenceId, leg: LegId, gateway: str, wire_state: Mapping[str, object]
    ) -> None:
        self.saved[leg] = wire_state

    async def forget(self, leg: LegId) -> None:
        self.saved.pop(leg, None)


class FakeDirectory:
    def __init__(self) -> None:
        self.records: list[ConferenceRecord] = []

    async def _find(self, fits: Callable[[ConferenceRecord], bool]) -> ConferenceRecord | None:
        return next((record for record in self.records if fits(record)), None)

    async def by_id(self, conference: ConferenceId) -> ConferenceRecord | None:
        return await self._find(lambda r: r.id == conference)

    async def by_room(self, room: str) -> ConferenceRecord | None:
        return await self._find(lambda r: r.room == room)

    async def by_slug(self, slug: str) -> ConferenceRecord | None:
        return await self._find(lambda r: r.slug == slug)

    async def by_place(self, place: Place) -> ConferenceRecord | None:
        return await self._find(lambda r: place in r.places)

    async def all(self) -> Sequence[ConferenceRecord]:
        return self.records

    async def create(
        self, *, room: str, slug: str = "", title: str = "", auto: bool = False
    ) -> ConferenceRecord:
        known = await self.by_room(room)
        if known is not None:
            return known
        number = len(self.records)
        record = ConferenceRecord(
            ConferenceId(f"c_{number}"), slug or f"s{number}", room, title, (), auto
        )
        self.records.append(record)
        return record


class FakeProof:
    """@alice:hs.test, in !room:hs.test; the access token is the user's name."""

    def __init__(self) -> None:
        self.memberships: dict[tuple[str, str], Membership] = {}
        self.servers = {"hs.test"}
        self.trusted = "good"

    async def prove(self, token: OpenIdToken) -> str:
        if not token.access_token.startswith(self.trusted):
            raise Refused("not valid")
        return f"@{token.access_token.removeprefix('good-')}:{token.matrix_server_name}"

    async def membership(self, room_id: str, user_id: str) -> Membership:
        return self.memberships.get((room_id, user_id), Membership.UNKNOWN)

    async def profile(self, room_id: str | None, user_id: str) -> MatrixProfile:
        return MatrixProfile(f"Name of {user_id} ~ Who? >", "", Role.MEMBER)

    def allows_homeserver(self, server_name: str) -> bool:
        return server_name in self.servers


class FakeHttp:
    def __init__(self) -> None:
        self.app = web.Application()

    def route(self, listener: Listener, method: str, path: str, handler: Handler) -> None:
        assert listener is Listener.PUBLIC
        self.app.router.add_route(method, path, handler)

    def client_address(self, request: web.Request) -> str:
        return request.remote or ""


def config(tmp: Path, **livekit: Any) -> Config:
    keys = (ApiKey(key="ours", secret=SECRET), ApiKey(key="theirs", secret=OTHER_SECRET))
    section_ = LivekitSection(**({"keys": keys, "url": "ws://parley.test"} | livekit))
    return Config(state_dir=tmp, livekit=section_)


class Rig:
    """Everything around the gateway. `conferences` hold the real rules."""

    def __init__(self, tmp: Path, **livekit: Any) -> None:
        """`livekit`: of the configuration's section."""
        self.livekit = livekit
        self.media = FakeMedia()
        self.legs = FakeLegs()
        self.directory = FakeDirectory()
        self.proof = FakeProof()
        self.conferences: dict[ConferenceId, Conference] = {}
        self.commands: list[Command] = []
        self.events: list[Event] = []
        self.http = FakeHttp()
        self.tmp = tmp
        self.port = 0
        self.session: aiohttp.ClientSession | None = None
        self.sockets: list[aiohttp.ClientWebSocketResponse] = []
        self.gateway = self.make()

    def make(self) -> LivekitGateway:
        anything: Any = None
        self.http = FakeHttp()
        fakes: dict[str, Any] = {
            "media": self.media,
            "directory": self.directory,
            "legs": self.legs,
            "http": self.http,
        }
        context = Context(
            config=config(self.tmp, **self.livekit),
            submit=self.submit,
            view=self.view,
            inbox=anything,
            outbox=anything,
            store=anything,
            fetch=anything,
            proof=self.proof,
            **fakes,
        )
        return LivekitGateway(context)

    def view(self, conference: ConferenceId) -> Sequence[Leg]:
        known = self.conferences.get(conference)
        return () if known is None else known.legs

    async def submit(
        self, conference: ConferenceId, command: Command, cause: Cause | None = None
    ) -> tuple[Event, ...]:
        self.commands.append(command)
        record = await self.directory.by_id(conference)
        assert record is not None
        live = self.conferences.setdefault(conference, Conference(Restored(record)))
        if isinstance(command, Join) and command.identity is None:
            ghost = Identity(f"@_parley_{command.account.address}:hs.test:{command.leg}")
            command = replace(command, identity=ghost)
        events = live.apply(command, time.time_ns() // 1_000_000)
        self.events += events
        self.gateway.notify(record, events)
        return events

    def signal(self, signal: MediaSignal, leg: Leg) -> None:
        record = next(r for r in self.directory.records if leg in self.view(r.id))
        self.gateway.signal(record, leg.id, signal)

    def leg(self, name: str) -> Leg:
        """By the subject of its token."""
        legs = [leg for live in self.conferences.values() for leg in live.legs]
        return next(leg for leg in legs if leg.token_subject == name)

    def has(self, name: str) -> bool:
        legs = [leg for live in self.conferences.values() for leg in live.legs]
        return any(leg.token_subject == name for leg in legs)

    def token(self, subject: str, room: str = "room", issuer: str = "ours", **grant: Any) -> str:
        name = grant.pop("name", subject.title())
        account, role = grant.pop("account", None), grant.pop("role", None)
        claims = Claims(
            issuer,
            subject,
            VideoGrant(room, can_update_own_metadata=True, **grant),
            name,
            account=account,
            role=role,
        )
        return self.gateway.tokens.sign(claims, 600)

    def matrix_token(self, user: str, identity: str, room: str = "room") -> str:
        return self.gateway.tokens.mint_matrix(
            room=room, identity=identity, user_id=user, name=user, role=Role.MEMBER
        )

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["Rig"]:
        runner = web.AppRunner(self.http.app, max_line_size=128 * 1024, shutdown_timeout=0.2)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port = runner.addresses[0][1]
        task = asyncio.create_task(self.gateway.run())
        await asyncio.sleep(0)
        try:
            async with aiohttp.ClientSession() as session:
                self.session = session
                yield self
                closing = (asyncio.wait_for(socket.close(), 1) for socket in self.sockets)
                await asyncio.gather(*closing, return_exceptions=True)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await runner.cleanup()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def single(self, subject: str, *sections: Section, **how: Any) -> "Client":
        """Join over one connection, with an offer if sections are given, up to the JoinResponse."""
        join = rtc.JoinRequest(**how.pop("join", {}))
        if sections:
            join.publisher_offer.CopyFrom(
                rtc.SessionDescription(type="offer", sdp=offer_text(*sections), id=1)
            )
        token = how.pop("token", None) or self.token(subject, **how)
        return await self.open("/rtc/v1", token, join_request=wrap(join))

    async def dual(self, subject: str, **query: str) -> "Client":
        return await self.open("/rtc", self.token(subject), **query)

    async def open(self, path: str, token: str, **query: str) -> "Client":
        assert self.session is not None
        socket = await self.session.ws_connect(
            self.url + path, params={"access_token": token} | query, autoclose=True
        )
        self.sockets.append(socket)
        return Client(socket)


def wrap(join: rtc.JoinRequest, *, compressed: bool = True) -> str:
    raw = join.SerializeToString()
    wrapped = rtc.WrappedJoinRequest(
        compression=rtc.WrappedJoinRequest.GZIP if compressed else rtc.WrappedJoinRequest.NONE,
        join_request=gzip.compress(raw) if compressed else raw,
    )
    return base64.urlsafe_b64encode(wrapped.SerializeToString()).decode()


class Client:
    """The other end of a signalling socket."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.log: list[rtc.SignalResponse] = []

    async def send(self, **message: Any) -> None:
        await self.socket.send_bytes(rtc.SignalRequest(**message).SerializeToString())

    async def next(self) -> rtc.SignalResponse:
        async with asyncio.timeout(WAIT_S):
            frame = await self.socket.receive()
        assert frame.type is aiohttp.WSMsgType.BINARY, frame
        message = rtc.SignalResponse.FromString(frame.data)
        self.log.append(message)
        return message

    async def until(self, kind: str, fits: Callable[[Any], bool] = lambda _: True) -> Any:
        """The next message of this kind that fits; the others stay in `log`."""
        while True:
            message = await self.next()
            if message.WhichOneof("message") == kind and fits(getattr(message, kind)):
                return getattr(message, kind)

    async def until_participant(
        self, fits: Callable[[models.ParticipantInfo], bool]
    ) -> models.ParticipantInfo:
        while True:
            update = await self.until("update")
            for info in update.participants:
                if fits(info):
                    return info

    async def closed(self) -> int | None:
        """The close code, once the server closed; messages before it go to `log`."""
        async with asyncio.timeout(WAIT_S):
            while True:
                frame = await self.socket.receive()
                if frame.type is not aiohttp.WSMsgType.BINARY:
                    return self.socket.close_code
                self.log.append(rtc.SignalResponse.FromString(frame.data))

    def kinds(self) -> list[str | None]:
        return [message.WhichOneof("message") for message in self.log]

    async def add_track(self, cid: str, **how: Any) -> models.TrackInfo:
        kind = how.pop("type", models.TrackType.AUDIO)
        source = how.pop("source", models.TrackSource.MICROPHONE)
        request = rtc.AddTrackRequest(cid=cid, type=kind, source=source, **how)
        await self.send(add_track=request)
        published = await self.until("track_published", lambda told: told.cid == cid)
        info: models.TrackInfo = published.track
        return info


async def eventually(claim: Callable[[], bool], wait_s: float = WAIT_S) -> None:
    async with asyncio.timeout(wait_s):
        while not claim():  # noqa: ASYNC110  (claims look at plain state)
            await asyncio.sleep(0.01)
