"""One LiveKit client over two connections (`/rtc`): token, WebSocket, protobuf, SDP; then the load tool has it.

The public protocol as an SDK speaks it, except that data channels are accepted and never used.
Not here: ICE and DTLS (`bench.handshake`), RTP (`engine/bench`), a server to join (`bench.publicstage`).
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import aiohttp
from livekit import api
from livekit.protocol import models, rtc

from bench.cast import Media
from bench.handshake import CONNECT_S, JoinFailed, connect, new_transport
from bench.load import Keyed, Sending
from bench.peer import CODECS, TRANSPORT_CC, extensions
from sfu import sdp
from sfu.description import (
    Description,
    DescriptionType,
    Direction,
    MediaKind,
    Section,
    Setup,
    Source,
    SourceGroup,
    Transport,
)
from sfu.dtls import Certificate
from sfu.sdp_print import print_description

PROTOCOL: Final = 16  # of LiveKit, as recent SDKs over two connections
_KINDS: Final = {MediaKind.AUDIO: models.TrackType.AUDIO, MediaKind.VIDEO: models.TrackType.VIDEO}
_SOURCES: Final = {
    MediaKind.AUDIO: models.TrackSource.MICROPHONE,
    MediaKind.VIDEO: models.TrackSource.CAMERA,
}


@dataclass(frozen=True, slots=True)
class Door:
    """Where to knock, and with whose key tokens are signed."""

    ws_url: str
    key: str
    secret: str

    def token(self, identity: str, room: str) -> str:
        grants = api.VideoGrants(room_join=True, room=room)
        return (
            api.AccessToken(self.key, self.secret)
            .with_identity(identity)
            .with_grants(grants)
            .to_jwt()
        )


@dataclass(slots=True)
class Device:
    """A person's device. `number` is its receiving side in the load tool, `number` + 1 what it sends with."""

    door: Door
    http: aiohttp.ClientSession
    certificate: Certificate
    room: str
    number: int
    down: socket.socket
    up: socket.socket | None = None
    sends: tuple[tuple[int, Media], ...] = ()
    sending: list[Sending] = field(default_factory=list)
    transport_cc: int = 0  # id of the header extension that the server chose; 0 = not yet
    answered: int = 0  # offers
    _ws: aiohttp.ClientWebSocketResponse | None = None
    _offers: asyncio.Queue[rtc.SessionDescription] = field(default_factory=asyncio.Queue)
    _answers: asyncio.Queue[rtc.SessionDescription] = field(default_factory=asyncio.Queue)
    _published: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    _ours: Transport | None = None

    @asynccontextmanager
    async def signalling(self) -> AsyncIterator[None]:
        """The socket, from `join` until the end; later offers are answered meanwhile."""
        token = self.door.token(f"person-{self.number}", self.room)
        url = f"{self.door.ws_url}/rtc?access_token={token}&protocol={PROTOCOL}&auto_subscribe=1"
        async with self.http.ws_connect(url, max_msg_size=0) as ws:
            self._ws = ws
            first = rtc.SignalResponse.FromString(await ws.receive_bytes())
            if not first.HasField("join"):
                raise JoinFailed("no join response")
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(self._read(ws))
                try:
                    yield
                finally:
                    reading.cancel()

    async def _read(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        async for frame in ws:
            if frame.type is not aiohttp.WSMsgType.BINARY:
                continue
            message = rtc.SignalResponse.FromString(frame.data)
            match message.WhichOneof("message"):
                case "offer" if self._ours is not None:
                    await self._answer(message.offer)
                case "offer":
                    self._offers.put_nowait(message.offer)
                case "answer":
                    self._answers.put_nowait(message.answer)
                case "track_published":
                    self._published.put_nowait(message.track_published.cid)

    async def _say(self, request: rtc.SignalRequest) -> None:
        assert self._ws is not None
        await self._ws.send_bytes(request.SerializeToString())

    # --- what comes down: the server offers

    async def receive(self) -> Keyed:
        """Answer the first offer and shake hands."""
        async with asyncio.timeout(CONNECT_S):
            offer = await self._offers.get()
            self._ours = new_transport(self.certificate, Setup.ACTIVE)
            theirs = await self._answer(offer)
            return await connect(self.down, self.certificate, self._ours, theirs)

    async def _answer(self, offer: rtc.SessionDescription) -> Transport:
        assert self._ours is not None
        offered = sdp.parse(offer.sdp, DescriptionType.OFFER)
        for section in offered.sections:
            for extension in section.extensions:
                if extension.uri == TRANSPORT_CC:
                    self.transport_cc = extension.id
        sections = tuple(
            Section(
                mid=section.mid,
                kind=section.kind,
                direction=Direction.SENDRECV
                if section.kind is MediaKind.APPLICATION
                else section.direction.reversed,
                transport=self._ours,
                codecs=section.codecs,
                extensions=section.extensions,
                sctp_port=section.sctp_port,
                max_message_size=section.max_message_size,
                rejected=section.rejected,
            )
            for section in offered.sections
        )
        answer = Description(DescriptionType.ANSWER, sections, bundle=offered.bundle)
        text = print_description(answer)
        spelled = rtc.SessionDescription(type="answer", sdp=text, id=offer.id)
        await self._say(rtc.SignalRequest(answer=spelled))
        self.answered += 1
        return offered.sections[0].transport

    # --- what goes up: we offer

    async def publish(self) -> Keyed:
        """Announce the tracks, offer them and shake hands on the second connection."""
        assert self.up is not None
        async with asyncio.timeout(CONNECT_S):
            for number, media in self.sends:
                request = rtc.AddTrackRequest(
                    cid=f"track-{number}",
                    name=media.source,
                    type=_KINDS[media.kind],
                    source=_SOURCES[media.kind],
                )
                await self._say(rtc.SignalRequest(add_track=request))
                await self._published.get()
            ours = new_transport(self.certificate)
            sections = tuple(
                self._section(str(at), number, media, ours)
                for at, (number, media) in enumerate(self.sends)
            )
            offer = Description(
                DescriptionType.OFFER, sections, bundle=tuple(one.mid for one in sections)
            )
            spelled = rtc.SessionDescription(type="offer", sdp=print_description(offer), id=1)
            await self._say(rtc.SignalRequest(offer=spelled))
            answer = await self._answers.get()
            theirs = sdp.parse(answer.sdp, DescriptionType.ANSWER).sections[0].transport
            return await connect(self.up, self.certificate, ours, theirs)

    def _section(self, mid: str, number: int, media: Media, transport: Transport) -> Section:
        stream = Sending.new(self.number + 1, number, 0, mid, media)
        self.sending.append(stream)
        return Section(
            mid=mid,
            kind=media.kind,
            direction=Direction.SENDONLY,
            transport=transport,
            codecs=CODECS[media.kind],
            extensions=extensions(media.kind),
            sources=tuple(
                Source(ssrc, (("cname", f"person-{self.number}"),)) for ssrc in stream.ssrcs
            ),
            source_groups=(SourceGroup("FID", stream.ssrcs),) if stream.rtx_ssrc else (),
            stream=f"person-{self.number}",
            track=f"track-{number}",
        )
