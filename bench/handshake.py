"""What every client does before media: one authenticated ICE check, then DTLS; keys come out.

RFC 8445 (one check with USE-CANDIDATE: the server is lite), RFC 6347, RFC 5764; STUN by aioice.
Not here: signalling (`bench.peer`, `bench.livekit`, `bench.janus`), RTP (`engine/bench`).
"""

import asyncio
import secrets
import socket
import time
from typing import Final

from aioice import stun

from bench.load import Keyed
from sfu.description import Setup, Transport
from sfu.dtls import Association, Certificate, Outcome

CHECK_S: Final = 0.25  # before a check is repeated
CONNECT_S: Final = 30.0
RECEIVE_BUFFER_BYTES: Final = 2 << 20  # what a busy machine may keep waiting
_SO_RCVBUFFORCE: Final = 33  # Linux; needs a privilege


class JoinFailed(Exception):
    """The server did not do its part; the message says which."""


def new_socket(
    address: str = "127.0.0.1", buffer_bytes: int = RECEIVE_BUFFER_BYTES
) -> socket.socket:
    """Unconnected; inheritable only by whom it is passed to."""
    new = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    new.setblocking(False)
    try:
        new.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer_bytes)
    except PermissionError:
        new.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
    new.bind((address, 0))
    return new


def new_transport(certificate: Certificate, setup: Setup = Setup.ACTPASS) -> Transport:
    """Our side of a description."""
    return Transport(
        ufrag=secrets.token_hex(4),
        pwd=secrets.token_hex(16),
        fingerprints=(certificate.fingerprint,),
        setup=setup,
    )


async def connect(
    own: socket.socket,
    certificate: Certificate,
    ours: Transport,
    theirs: Transport,
    *,
    is_client: bool = True,
) -> Keyed:
    """Both handshakes on this socket. Raises `JoinFailed` or TimeoutError."""
    if not theirs.candidates:
        raise JoinFailed("no candidate")
    udp = next(c for c in theirs.candidates if c.protocol.lower() == "udp")
    async with asyncio.timeout(CONNECT_S):
        own.connect((udp.address, udp.port))
        await _check(own, ours, theirs)
        profile, material = await _shake(own, certificate, ours.pwd, theirs, is_client=is_client)
        return Keyed(own.fileno(), profile, material, ours.pwd, is_client)


async def _receive(own: socket.socket, pwd: str, within_s: float) -> bytes | None:
    """The next datagram; checks of the other side are answered on the way (libnice waits for that)."""
    try:
        async with asyncio.timeout(within_s):
            while True:
                datagram = await asyncio.get_running_loop().sock_recv(own, 2_048)
                if datagram[:2] != b"\x00\x01":
                    return datagram
                _answer(own, pwd, datagram)
    except TimeoutError:
        return None


def _answer(own: socket.socket, pwd: str, datagram: bytes) -> None:
    request = stun.parse_message(datagram)
    answer = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, request.transaction_id)
    answer.attributes["XOR-MAPPED-ADDRESS"] = own.getpeername()
    answer.add_message_integrity(pwd.encode())
    answer.add_fingerprint()
    own.send(bytes(answer))


async def _check(own: socket.socket, ours: Transport, theirs: Transport) -> None:
    while True:
        request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
        request.attributes["USERNAME"] = f"{theirs.ufrag}:{ours.ufrag}"
        request.attributes["PRIORITY"] = 1_853_693_695
        request.attributes["ICE-CONTROLLING"] = secrets.randbits(64)
        request.attributes["USE-CANDIDATE"] = None
        request.add_message_integrity(theirs.pwd.encode())
        request.add_fingerprint()
        own.send(bytes(request))
        while datagram := await _receive(own, ours.pwd, CHECK_S):
            if datagram[:2] == b"\x01\x01" and datagram[8:20] == request.transaction_id:
                return


async def _shake(
    own: socket.socket,
    certificate: Certificate,
    pwd: str,
    theirs: Transport,
    *,
    is_client: bool,
) -> tuple[int, bytes]:
    association = Association(certificate, is_client=is_client, fingerprints=theirs.fingerprints)
    association.start()
    while association.outcome is Outcome.HANDSHAKING:
        for datagram in association.outgoing():
            own.send(datagram)
        due_s = association.retransmit_in_s()
        heard = await _receive(own, pwd, 1.0 if due_s is None else due_s)
        if heard is None:
            association.retransmit()
        elif 20 <= heard[0] <= 63:
            association.receive(heard)
    for datagram in association.outgoing():
        own.send(datagram)
    keys = association.srtp_keys() if association.outcome is Outcome.CONNECTED else None
    if keys is None:
        raise JoinFailed(f"handshake {association.outcome.name.lower()}")
    return keys


def now_ns() -> int:
    return time.monotonic_ns()
