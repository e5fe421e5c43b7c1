"""What both ways of negotiating share: SDP in and out, and which section carries whose track.

RFC 8829; LiveKit's `SessionDescription{type, sdp, id, mid_to_track_id}` (fact sheet sections 2.3, 2.4).
Not here: the order of messages (`single`, `dual`), the meaning of SDP (`sfu.sdp`, the worker).
"""

import asyncio
import zlib
from collections.abc import Callable
from typing import Protocol

from livekit.protocol import rtc

from bridge.conference.errors import Malformed
from bridge.gateway import NegotiationWanted
from bridge.gateways.livekit import frames
from sfu import sdp
from sfu.description import Description, DescriptionType, MediaKind
from sfu.description import Malformed as MalformedDescription

Send = Callable[[rtc.SignalResponse], None]
Told = Callable[[set[str]], None]
"""Called with the tracks that a client can see from now on."""


class Negotiator(Protocol):
    """One leg's sessions, towards the client."""

    @property
    def sessions(self) -> tuple[str, ...]:
        """Every open session."""

    @property
    def down(self) -> str:
        """The session that carries media and channels towards the client."""

    async def open(self) -> None: ...
    async def begin(self) -> None:
        """After the JoinResponse."""

    async def resume(self) -> None:
        """After the ReconnectResponse."""

    async def for_publishing(self) -> str:
        """The session that publications arrive on, open."""

    async def offer(self, description: rtc.SessionDescription) -> None: ...
    async def answer(self, description: rtc.SessionDescription) -> None: ...
    async def wanted(self, signal: NegotiationWanted) -> None: ...
    def session_of(self, target: int) -> str | None:
        """The session a trickled candidate belongs to."""


async def read_description(
    description: rtc.SessionDescription, kind: DescriptionType
) -> Description:
    """Raises `Malformed`. Long texts are read off the loop's thread."""
    if description.type and description.type != kind.value:
        raise Malformed("description of another type")
    try:
        if len(description.sdp) > frames.OFF_LOOP_BYTES:
            return await asyncio.to_thread(sdp.parse, description.sdp, kind)
        return sdp.parse(description.sdp, kind)
    except MalformedDescription as why:
        raise Malformed(f"session description: {why}") from why


def tracks_down(description: Description) -> dict[str, str]:
    """Section -> track, for what this description of ours sends."""
    return {
        section.mid: section.track
        for section in description.sections
        if section.kind is not MediaKind.APPLICATION
        and section.direction.sends
        and section.track is not None
    }


def spell(
    description: Description, number: int, session: str, version: int
) -> rtc.SessionDescription:
    """`number` pairs offer and answer; session and version make the o= line (RFC 8866 section 5.2)."""
    session_id = zlib.crc32(session.encode())  # the same after a restart of ours
    text = sdp.print_description(description, session_id=session_id, session_version=version)
    spelled = rtc.SessionDescription(type=description.kind.value, sdp=text, id=number)
    spelled.mid_to_track_id.update(tracks_down(description))
    return spelled
