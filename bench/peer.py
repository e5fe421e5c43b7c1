"""One client of the worker: announces, subscribes and offers over the control protocol; then the load tool has it.

Not here: ICE and DTLS (`bench.handshake`), RTP (`engine/bench`), the public protocol (`bench.livekit`).
"""

import asyncio
import socket
from dataclasses import dataclass, field
from typing import Final

from bench.cast import Media
from bench.handshake import CONNECT_S, JoinFailed, connect, new_transport
from bench.load import Keyed, Sending
from sfu import protocol
from sfu.client import Client
from sfu.description import (
    Codec,
    Description,
    DescriptionType,
    Direction,
    Extension,
    Feedback,
    MediaKind,
    Profile,
    Rid,
    Section,
    Source,
    SourceGroup,
    Transport,
    Wish,
)
from sfu.dtls import Certificate

_FEEDBACK: Final = tuple(
    Feedback(*words) for words in (("nack",), ("nack", "pli"), ("ccm", "fir"), ("transport-cc",))
)
_VIDEO: Final = (
    Codec(97, "VP8", 90_000, 1, (), _FEEDBACK),
    Codec(98, "rtx", 90_000, 1, (("apt", "97"),)),
)
_AUDIO: Final = (
    Codec(111, "opus", 48_000, 2, (("useinbandfec", "1"),), (Feedback("transport-cc"),)),
)
CODECS: Final = {MediaKind.VIDEO: _VIDEO, MediaKind.AUDIO: _AUDIO}
# As a browser: everything that costs the server a few bytes and cycles per copy. Ids as in `engine/bench`.
TRANSPORT_CC: Final = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
_URIS: Final = {
    1: "urn:ietf:params:rtp-hdrext:sdes:mid",
    2: TRANSPORT_CC,
    3: "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
    4: "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
    5: "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
    6: "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
}
_IDS: Final = {MediaKind.VIDEO: (1, 2, 3, 4, 6), MediaKind.AUDIO: (1, 2, 3, 5)}
PROFILE: Final = Profile(
    name="bench", audio=_AUDIO, video=_VIDEO, extensions=tuple(_URIS.values()), ice_lite=True
)
_UNLIMITED_BPS, _UNLIMITED_PPS = 10**10, 10**6


def extensions(kind: MediaKind) -> tuple[Extension, ...]:
    return tuple(Extension(number, _URIS[number]) for number in _IDS[kind])


@dataclass(frozen=True, slots=True)
class Wanted:
    """A subscription to come."""

    track: str
    kind: MediaKind
    wish: Wish


@dataclass(slots=True)
class Peer:
    """A client with a section per track it sends, then one per track it wants."""

    client: Client
    certificate: Certificate
    socket: socket.socket
    number: int  # in the load tool
    group: str
    sends: tuple[tuple[int, Media], ...] = ()  # number of the track, what it is
    wants: tuple[Wanted, ...] = ()
    is_unlimited: bool = False
    sending: list[Sending] = field(default_factory=list)

    @property
    def session(self) -> str:
        return f"peer-{self.number}"

    async def open(self) -> None:
        """Reserve the session and announce what it will send."""
        await self.client.request(protocol.Open(self.session, self.group, PROFILE))
        if self.is_unlimited:
            await self.client.request(protocol.Limits(self.session, _UNLIMITED_BPS, _UNLIMITED_PPS))
        for number, media in self.sends:
            await self.client.request(
                protocol.Expect(
                    self.session,
                    track_name(number),
                    media.kind,
                    media.source,
                    match=(track_name(number),),
                    layers=tuple(layer.spec for layer in media.layers if layer.rid),
                )
            )

    async def connect(self) -> Keyed:
        """Subscribe, offer, shake hands. Raises `JoinFailed`, TimeoutError or what the worker says."""
        async with asyncio.timeout(CONNECT_S):
            for wanted in self.wants:
                await self.client.request(
                    protocol.Subscribe(self.session, wanted.track, wanted.wish)
                )
            ours = new_transport(self.certificate)
            offer = self._offer(ours)
            reply = await self.client.request(protocol.Offer(self.session, offer))
            assert isinstance(reply, protocol.Described)
            section = reply.description.sections[0]
            if any(one.rejected for one in reply.description.sections):
                raise JoinFailed("the worker rejects a section")
            return await connect(self.socket, self.certificate, ours, section.transport)

    def _offer(self, transport: Transport) -> Description:
        sections = [
            self._section_up(str(at), number, media, transport)
            for at, (number, media) in enumerate(self.sends)
        ]
        for wanted in self.wants:
            sections.append(
                Section(
                    mid=str(len(sections)),
                    kind=wanted.kind,
                    direction=Direction.RECVONLY,
                    transport=transport,
                    codecs=CODECS[wanted.kind],
                    extensions=extensions(wanted.kind),
                )
            )
        bundle = tuple(section.mid for section in sections)
        return Description(DescriptionType.OFFER, tuple(sections), bundle=bundle)

    def _section_up(self, mid: str, number: int, media: Media, transport: Transport) -> Section:
        streams = [
            Sending.new(self.number, number, at, mid, media) for at in range(len(media.layers))
        ]
        self.sending.extend(streams)
        has_rids = bool(media.layers[0].rid)
        first = streams[0]
        return Section(
            mid=mid,
            kind=media.kind,
            direction=Direction.SENDONLY,
            transport=transport,
            codecs=CODECS[media.kind],
            extensions=extensions(media.kind),
            # Rids speak for themselves; a single stream is announced.
            sources=() if has_rids else tuple(Source(ssrc) for ssrc in first.ssrcs),
            source_groups=()
            if has_rids or len(first.ssrcs) < 2
            else (SourceGroup("FID", first.ssrcs),),
            rids=tuple(Rid(layer.rid, send=True) for layer in media.layers if layer.rid),
            stream=f"stream-{self.number}",
            track=track_name(number),
        )


def track_name(number: int) -> str:
    return f"track-{number}"
