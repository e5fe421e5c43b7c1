"""One client of the worker: offers over the control protocol, checks, shakes hands; then the load tool has it.

RFC 8445 (one check with USE-CANDIDATE: the worker is lite), RFC 6347, RFC 5764; STUN by aioice.
Not here: RTP (`engine/bench`).
"""

import asyncio
import secrets
import socket
import time
from dataclasses import dataclass
from typing import Final

from aioice import stun

from bench.load import Keyed
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
    Section,
    Setup,
    Source,
    Transport,
)
from sfu.dtls import Association, Certificate, Outcome

CHECK_S: Final = 0.25  # before a check is repeated
CONNECT_S: Final = 20.0
RECEIVE_BUFFER_BYTES: Final = 2 << 20  # what a busy machine may keep waiting
_SO_RCVBUFFORCE: Final = 33  # Linux; needs a privilege

_FEEDBACK: Final = tuple(
    Feedback(*words) for words in (("nack",), ("nack", "pli"), ("ccm", "fir"), ("transport-cc",))
)
_VIDEO: Final = (
    Codec(97, "VP8", 90_000, 1, (), _FEEDBACK),
    Codec(98, "rtx", 90_000, 1, (("apt", "97"),)),
)
# As a browser: everything that costs the server a few bytes and cycles per copy. Ids as in `engine/bench`.
_EXTENSIONS: Final = (
    Extension(1, "urn:ietf:params:rtp-hdrext:sdes:mid"),
    Extension(2, "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"),
    Extension(3, "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"),
)
PAYLOAD_TYPE: Final = 97
PROFILE: Final = Profile(
    name="bench",
    audio=(),
    video=_VIDEO,
    extensions=tuple(extension.uri for extension in _EXTENSIONS),
    ice_lite=True,
)


class JoinFailed(Exception):
    """The worker did not do its part; the message says which."""


def new_socket() -> socket.socket:
    """Unconnected, on loopback; inheritable only by whom it is passed to."""
    new = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    new.setblocking(False)
    try:
        new.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
    except PermissionError:
        new.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    new.bind(("127.0.0.1", 0))
    return new


@dataclass(slots=True)
class Peer:
    """A client with one video section: it sends (`ssrc` given) or receives."""

    client: Client
    certificate: Certificate
    socket: socket.socket
    session: str
    ssrc: int = 0

    async def connect(self, group: str, track: str) -> Keyed:
        """From `Open` to a finished handshake. Raises `JoinFailed`, TimeoutError or what the worker says."""
        async with asyncio.timeout(CONNECT_S):
            await self.client.request(protocol.Open(self.session, group, PROFILE))
            if self.ssrc:
                expected = protocol.Expect(
                    self.session, track, MediaKind.VIDEO, "camera", match=(track,)
                )
                await self.client.request(expected)
            else:
                await self.client.request(protocol.Subscribe(self.session, track))
            ours = Transport(
                ufrag=secrets.token_hex(4),
                pwd=secrets.token_hex(16),
                fingerprints=(self.certificate.fingerprint,),
                setup=Setup.ACTPASS,
            )
            reply = await self.client.request(
                protocol.Offer(self.session, self._offer(ours, track))
            )
            assert isinstance(reply, protocol.Described)
            section = reply.description.sections[0]
            if section.rejected or not section.transport.candidates:
                raise JoinFailed("the worker rejects the section")
            theirs = section.transport
            self.socket.connect((theirs.candidates[0].address, theirs.candidates[0].port))
            await self._check(ours, theirs)
            profile, material = await self._shake(theirs)
            return Keyed(self.socket.fileno(), profile, material, ours.pwd)

    def _offer(self, transport: Transport, track: str) -> Description:
        section = Section(
            mid="0",
            kind=MediaKind.VIDEO,
            direction=Direction.SENDONLY if self.ssrc else Direction.RECVONLY,
            transport=transport,
            codecs=_VIDEO,
            extensions=_EXTENSIONS,
            sources=(Source(self.ssrc),) if self.ssrc else (),
            stream="stream" if self.ssrc else None,
            track=track if self.ssrc else None,
        )
        return Description(DescriptionType.OFFER, (section,), bundle=("0",))

    async def _receive(self, within_s: float) -> bytes | None:
        try:
            async with asyncio.timeout(within_s):
                return await asyncio.get_running_loop().sock_recv(self.socket, 2_048)
        except TimeoutError:
            return None

    async def _check(self, ours: Transport, theirs: Transport) -> None:
        while True:
            request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
            request.attributes["USERNAME"] = f"{theirs.ufrag}:{ours.ufrag}"
            request.attributes["PRIORITY"] = 1_853_693_695
            request.attributes["ICE-CONTROLLING"] = secrets.randbits(64)
            request.attributes["USE-CANDIDATE"] = None
            request.add_message_integrity(theirs.pwd.encode())
            self.socket.send(bytes(request))
            while datagram := await self._receive(CHECK_S):
                if datagram[:2] == b"\x01\x01" and datagram[8:20] == request.transaction_id:
                    return

    async def _shake(self, theirs: Transport) -> tuple[int, bytes]:
        association = Association(
            self.certificate, is_client=True, fingerprints=theirs.fingerprints
        )
        association.start()
        while association.outcome is Outcome.HANDSHAKING:
            for datagram in association.outgoing():
                self.socket.send(datagram)
            due_s = association.retransmit_in_s()
            heard = await self._receive(1.0 if due_s is None else due_s)
            if heard is None:
                association.retransmit()
            elif 20 <= heard[0] <= 63:
                association.receive(heard)
        keys = association.srtp_keys() if association.outcome is Outcome.CONNECTED else None
        if keys is None:
            raise JoinFailed(f"handshake {association.outcome.name.lower()}")
        return keys


def now_ns() -> int:
    return time.monotonic_ns()
