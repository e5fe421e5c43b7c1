"""A raw-socket client for the media port: honest where a test needs a peer, hostile everywhere else.

STUN (RFC 8489, RFC 8445), DTLS records and ClientHellos (RFC 6347), RTP and RTCP (RFC 3550, RFC 4585), SRTP
through libsrtp. Everything blocks with a timeout; nothing here knows the engine's insides.
Not here: real DTLS handshakes (tests of the worker), signalling.
"""

import hashlib
import hmac
import itertools
import os
import select
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar, Final, TypeVar

import pylibsrtp

from sfu import _engine

MAGIC: Final = 0x2112A442
REQUEST: Final = 0x0001
INDICATION: Final = 0x0011
SUCCESS: Final = 0x0101
ERROR: Final = 0x0111
USERNAME: Final = 0x0006
INTEGRITY: Final = 0x0008
ERROR_CODE: Final = 0x0009
XOR_MAPPED: Final = 0x0020
PRIORITY: Final = 0x0024
USE_CANDIDATE: Final = 0x0025
FINGERPRINT: Final = 0x8028
CONTROLLED: Final = 0x8029
CONTROLLING: Final = 0x802A

WAIT_S: Final = 3.0  # longest wait for something that must come
QUIET_S: Final = 0.25  # how long "nothing comes" is watched
RETRANSMIT_S: Final = 0.5  # a check without an answer
SILENCE: Final = b""

AES128_CM: Final = 1
AES128_GCM: Final = 7
AES256_GCM: Final = 8
KEY_AND_SALT: Final = {AES128_CM: (16, 14), AES128_GCM: (16, 12), AES256_GCM: (32, 12)}
_POLICIES: Final = {
    AES128_CM: pylibsrtp.Policy.SRTP_PROFILE_AES128_CM_SHA1_80,
    AES128_GCM: pylibsrtp.Policy.SRTP_PROFILE_AEAD_AES_128_GCM,
    AES256_GCM: pylibsrtp.Policy.SRTP_PROFILE_AEAD_AES_256_GCM,
}


@dataclass(frozen=True, slots=True)
class Credentials:
    ufrag: str
    pwd: str

    @classmethod
    def fresh(cls) -> "Credentials":
        return cls(os.urandom(4).hex(), os.urandom(12).hex())


UNSET: Final = Credentials("", "")


# --- STUN


@dataclass(frozen=True, slots=True)
class Stun:
    kind: int
    transaction: bytes
    attributes: dict[int, bytes]
    raw: bytes

    def is_signed_with(self, pwd: str) -> bool:
        at = self.raw.rfind(struct.pack("!HH", INTEGRITY, 20))
        if at < 20:
            return False
        head = self.raw[:2] + struct.pack("!H", at + 4) + self.raw[4:at]
        tag = hmac.new(pwd.encode(), head, hashlib.sha1).digest()
        return tag == self.raw[at + 4 : at + 24]

    @property
    def mapped(self) -> tuple[str, int]:
        value = self.attributes[XOR_MAPPED]
        port = struct.unpack("!H", value[2:4])[0] ^ (MAGIC >> 16)
        if value[1] == 1:
            return str(socket.inet_ntoa(_xor(value[4:8], struct.pack("!I", MAGIC)))), port
        mask = struct.pack("!I", MAGIC) + self.transaction
        return socket.inet_ntop(socket.AF_INET6, _xor(value[4:20], mask)), port

    @property
    def error(self) -> int:
        value = self.attributes[ERROR_CODE]
        return value[2] * 100 + value[3]


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def is_stun(datagram: bytes) -> bool:
    return len(datagram) >= 20 and datagram[0] < 4 and datagram[4:8] == struct.pack("!I", MAGIC)


def parse_stun(datagram: bytes) -> Stun:
    kind, length = struct.unpack("!HH", datagram[:4])
    assert length == len(datagram) - 20
    attributes: dict[int, bytes] = {}
    at = 20
    while at < len(datagram):
        name, size = struct.unpack("!HH", datagram[at : at + 4])
        attributes.setdefault(name, datagram[at + 4 : at + 4 + size])
        at += 4 + (size + 3) // 4 * 4
    return Stun(kind, datagram[8:20], attributes, datagram)


def stun(
    kind: int,
    *attributes: tuple[int, bytes],
    pwd: str | None = None,
    transaction: bytes | None = None,
    fingerprint: bool = True,
) -> bytes:
    """A Binding message; signed if `pwd` is given."""
    body = b"".join(
        struct.pack("!HH", name, len(value)) + value + bytes(-len(value) % 4)
        for name, value in attributes
    )
    tail = struct.pack("!I", MAGIC) + (transaction or os.urandom(12))

    def message(extra: int) -> bytes:
        return struct.pack("!HH", kind, len(body) + extra) + tail + body

    if pwd is not None:
        tag = hmac.new(pwd.encode(), message(24), hashlib.sha1).digest()
        body += struct.pack("!HH", INTEGRITY, 20) + tag
    if fingerprint:
        crc = zlib.crc32(message(8)) ^ 0x5354554E
        body += struct.pack("!HHI", FINGERPRINT, 4, crc)
    return message(0)


def check(
    server: Credentials,
    client: Credentials,
    *,
    role: int = CONTROLLING,
    nominate: bool = False,
    pwd: str | None = None,
    transaction: bytes | None = None,
) -> bytes:
    """A connectivity check; `pwd` overrides the server's password."""
    attributes = [
        (USERNAME, f"{server.ufrag}:{client.ufrag}".encode()),
        (PRIORITY, struct.pack("!I", 1853693695)),
        (role, os.urandom(8)),
    ]
    if nominate:
        attributes.append((USE_CANDIDATE, b""))
    return stun(REQUEST, *attributes, pwd=pwd or server.pwd, transaction=transaction)


# --- DTLS, RTP, RTCP


def client_hello(
    *, suites: bytes = b"\x00\x00", version: int = 0xFEFD, fragment: int | None = None
) -> bytes:
    """A ClientHello in one record. The default offers TLS_NULL_WITH_NULL_NULL only."""
    body = struct.pack("!H", version) + os.urandom(32) + b"\x00\x00"
    body += struct.pack("!H", len(suites)) + suites + b"\x01\x00"
    size = len(body) if fragment is None else fragment
    handshake = b"\x01" + len(body).to_bytes(3, "big") + b"\x00\x00" + bytes(3)
    handshake += size.to_bytes(3, "big") + body[:size]
    record = struct.pack("!BHHHIH", 22, version, 0, 0, 0, len(handshake))
    return record + handshake


def rtp(
    ssrc: int,
    sequence: int,
    payload: bytes = b"payload",
    *,
    payload_type: int = 111,
    timestamp: int | None = None,
    marker: bool = False,
) -> bytes:
    timestamp = sequence * 960 if timestamp is None else timestamp
    second = payload_type | (0x80 if marker else 0)
    header = struct.pack("!BBHII", 0x80, second, sequence & 0xFFFF, timestamp & 0xFFFFFFFF, ssrc)
    return header + payload


def rtcp(kind: int, count: int, body: bytes) -> bytes:
    return struct.pack("!BBH", 0x80 | count, kind, len(body) // 4) + body


def receiver_report(ssrc: int) -> bytes:
    return rtcp(201, 0, struct.pack("!I", ssrc))


def bye(*ssrcs: int) -> bytes:
    return rtcp(203, len(ssrcs), struct.pack(f"!{len(ssrcs)}I", *ssrcs))


def pli(sender: int, media: int) -> bytes:
    return rtcp(206, 1, struct.pack("!II", sender, media))


def nack(sender: int, media: int, *packets: int) -> bytes:
    body = b"".join(struct.pack("!HH", packet, 0) for packet in packets)
    return rtcp(205, 1, struct.pack("!II", sender, media) + body)


def is_rtcp(datagram: bytes) -> bool:
    return len(datagram) > 1 and 128 <= datagram[0] <= 191 and 192 <= datagram[1] <= 223


def is_rtp(datagram: bytes) -> bool:
    return len(datagram) > 1 and 128 <= datagram[0] <= 191 and not is_rtcp(datagram)


# --- SRTP


class Keys:
    """What a DTLS exporter would have given both sides. The client end is the test's."""

    def __init__(self, profile: int = AES128_GCM) -> None:
        key, salt = KEY_AND_SALT[profile]
        self.profile = profile
        self.material = os.urandom(2 * (key + salt))
        m = self.material
        self._client = m[:key] + m[2 * key : 2 * key + salt]
        self._server = m[key : 2 * key] + m[2 * key + salt :]

    def sender(self) -> pylibsrtp.Session:
        return self._session(self._client, pylibsrtp.Policy.SSRC_ANY_OUTBOUND)

    def receiver(self) -> pylibsrtp.Session:
        return self._session(self._server, pylibsrtp.Policy.SSRC_ANY_INBOUND)

    def _session(self, key: bytes, direction: int) -> pylibsrtp.Session:
        policy = pylibsrtp.Policy(
            key=key, ssrc_type=direction, srtp_profile=_POLICIES[self.profile]
        )
        policy.window_size = 1024
        policy.allow_repeat_tx = True
        return pylibsrtp.Session(policy)


# --- a peer and the engine under test


class Rig:
    """An engine on loopback, its events kept until somebody asks for them."""

    def __init__(self, listen: list[str] | None = None, shards: int = 1) -> None:
        self.engine = _engine.Engine(listen=listen or ["127.0.0.1"], port=0, shards=shards)
        self.events: list[tuple[str, int, object]] = []
        self.panics = 0  # what the test brings about; `rig` looks at the end (S15)
        self._clerks: list[Peer] = []
        self._homes = itertools.cycle(range(self.engine.shards))

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.engine.port)

    def next_home(self) -> int:
        return next(self._homes)

    def credentials(self, shard: int) -> "Credentials":
        """Of a transport that is at home there."""
        while self.engine.shard_of((drawn := Credentials.fresh()).ufrag) != shard:
            pass
        return drawn

    def settle_shards(self) -> None:
        """Every shard has run its commands, and heard and answered what they told each other."""
        if self.engine.shards == 1:
            return
        if not self._clerks:
            homes = range(self.engine.shards)
            self._clerks = [Peer(self, server=self.credentials(home)) for home in homes]
        for _ in range(3):  # asked, answered, taken
            for clerk in self._clerks:
                clerk.check()

    def pump(self) -> None:
        self.events += self.engine.poll()

    def find(self, name: str, handle: int) -> list[object]:
        self.pump()
        return [detail for event, own, detail in self.events if (event, own) == (name, handle)]

    def wait_for(self, name: str, handle: int, within_s: float = WAIT_S) -> object:
        """The first such event's detail."""
        return until(lambda: self.find(name, handle), f"{name} of {handle}", within_s)[0]

    def counters(self, kind: str, handle: int = 0) -> dict[str, int]:
        return dict(self.engine.statistics()[kind]).get(handle, {})

    def wait_for_counter(self, kind: str, handle: int, name: str, least: int) -> int:
        def reached() -> int:
            value = self.counters(kind, handle).get(name, 0)
            return value if value >= least else 0

        return until(reached, f"{kind}.{name} >= {least}")


T = TypeVar("T")


def until(probe: Callable[[], T], what: str, within_s: float = WAIT_S) -> T:
    """Ask again every 5 ms until the answer is true."""
    end = time.monotonic() + within_s
    while not (answer := probe()):
        assert time.monotonic() < end, f"no {what} within {within_s} s"
        time.sleep(0.005)
    return answer


@contextmanager
def rig(listen: list[str] | None = None, *, shards: int = 1) -> Iterator[Rig]:
    under_test = Rig(listen, shards)
    try:
        yield under_test
    finally:
        under_test.engine.close()
        while Wire.opened:
            Wire.opened.pop().close()
    caught = under_test.counters("drops").get(
        "panics", 0
    )  # of a thread that has ended: all of them
    assert caught == under_test.panics, f"{caught} panics of the data plane"


class Wire:
    """A UDP socket aimed at the engine. As it is, a stranger's. `rig` closes it in the end."""

    opened: ClassVar[list["Wire"]] = []

    def __init__(self, address: tuple[str, int]) -> None:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.socket.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        self.socket.connect(address)
        Wire.opened.append(self)
        self.bytes_out = 0
        self.bytes_in = 0

    @property
    def name(self) -> tuple[str, int]:
        host, port = self.socket.getsockname()[:2]
        return str(host), int(port)

    def send(self, datagram: bytes) -> None:
        self.bytes_out += len(datagram)
        self.socket.send(datagram)

    def receive(self, within_s: float = WAIT_S) -> bytes:
        """One datagram, or `SILENCE`."""
        ready, _, _ = select.select([self.socket], [], [], within_s)
        if not ready:
            return SILENCE
        datagram = self.socket.recv(2048)
        self.bytes_in += len(datagram)
        return datagram

    def close(self) -> None:
        self.socket.close()


@dataclass(slots=True)
class Peer:
    """An honest client: one transport of the engine, one 5-tuple (more through `move`)."""

    rig: Rig
    offered_by_us: bool = False
    server: Credentials = UNSET  # at home in the next shard
    client: Credentials = field(default_factory=Credentials.fresh)
    keys: Keys = field(default_factory=Keys)
    role: int = CONTROLLING
    transport: int = 0
    wire: Wire = field(init=False)
    asked: list[Stun] = field(default_factory=list)  # what the engine asked us
    _sender: pylibsrtp.Session = field(init=False)
    _receiver: pylibsrtp.Session = field(init=False)

    def __post_init__(self) -> None:
        engine = self.rig.engine
        if self.server is UNSET:
            self.server = self.rig.credentials(self.rig.next_home())
        self.wire = Wire(self.rig.address)
        self.transport = engine.open_transport(
            local_ufrag=self.server.ufrag,
            local_pwd=self.server.pwd,
            offered_by_us=self.offered_by_us,
        )
        engine.set_remote(self.transport, ufrag=self.client.ufrag, pwd=self.client.pwd)
        self._sender, self._receiver = self.keys.sender(), self.keys.receiver()

    def check(self, *, nominate: bool = False, within_s: float = WAIT_S) -> Stun:
        """One connectivity check and its answer; sent again while there is none (RFC 8445 section 14.3)."""
        request = check(self.server, self.client, role=self.role, nominate=nominate)
        end = time.monotonic() + within_s
        while (began := time.monotonic()) < end:
            self.wire.send(request)
            again = min(began + RETRANSMIT_S, end)
            while (left_s := again - time.monotonic()) > 0:
                datagram = self.receive(left_s)
                if is_stun(datagram) and datagram[8:20] == request[8:20]:
                    return parse_stun(datagram)
        raise AssertionError("the check was not answered")

    def connect(self) -> "Peer":
        """Validated and keyed, as after a handshake."""
        assert self.check(nominate=self.role == CONTROLLING).kind == SUCCESS
        self.rig.engine.set_keys(
            self.transport, profile=self.keys.profile, material=self.keys.material, is_client=False
        )
        self.settle()
        return self

    def settle(self) -> None:
        """Return when every command so far is done: they run before the datagrams of the next turn."""
        self.check()
        self.rig.settle_shards()

    def restarted(self) -> Credentials:
        """Fresh ones that lead to the same shard."""
        return self.rig.credentials(self.rig.engine.shard_of(self.server.ufrag))

    def receive(self, within_s: float = WAIT_S) -> bytes:
        """The next datagram. Checks of the engine are answered on the way and returned too."""
        datagram = self.wire.receive(within_s)
        if is_stun(datagram):
            message = parse_stun(datagram)
            if message.kind == REQUEST:
                self.asked.append(message)
                self.answer(message)
        return datagram

    def answer(self, request: Stun) -> None:
        mapped = b"\x00\x01" + struct.pack("!HI", 0, 0)
        answer = stun(
            SUCCESS, (XOR_MAPPED, mapped), pwd=self.client.pwd, transaction=request.transaction
        )
        self.wire.send(answer)

    def protect(self, packet: bytes) -> bytes:
        return bytes(self._sender.protect(packet))

    def send_rtp(self, packet: bytes) -> None:
        self.wire.send(self.protect(packet))

    def protect_rtcp(self, compound: bytes) -> bytes:
        return bytes(self._sender.protect_rtcp(compound))

    def send_rtcp(self, compound: bytes) -> None:
        self.wire.send(self.protect_rtcp(compound))

    def receive_rtp(self, within_s: float = WAIT_S) -> bytes:
        """The next RTP packet, decrypted, or `SILENCE`."""
        end = time.monotonic() + within_s
        while (left := end - time.monotonic()) > 0:
            datagram = self.receive(left)
            if is_rtp(datagram):
                return bytes(self._receiver.unprotect(datagram))
        return SILENCE

    def receive_rtcp(self, within_s: float = WAIT_S) -> bytes:
        """The next RTCP compound, decrypted, or `SILENCE`."""
        end = time.monotonic() + within_s
        while (left := end - time.monotonic()) > 0:
            datagram = self.receive(left)
            if is_rtcp(datagram):
                return bytes(self._receiver.unprotect_rtcp(datagram))
        return SILENCE

    def move(self) -> Wire:
        """A new local port, as a NAT would give. Returns the old socket, still open."""
        old, self.wire = self.wire, Wire(self.rig.address)
        return old


def audio_stream(ssrc: int, mid: str = "0") -> _engine.ReceiveStream:
    return _engine.ReceiveStream(
        mid=mid,
        video=False,
        codecs=[_engine.Codec(payload_type=111, name="opus", clock_rate=48000, channels=2)],
        extensions=_engine.Extensions(),
        ssrcs=[(ssrc, 0)],
    )


def publish_audio(peer: Peer, ssrc: int, group: int = 1) -> int:
    engine = peer.rig.engine
    return engine.publish(peer.transport, group=group, stream=audio_stream(ssrc))


def subscribe_audio(peer: Peer, publication: int, ssrc: int) -> int:
    """An outgoing stream of this peer that carries the publication."""
    engine = peer.rig.engine
    subscription = engine.subscribe(
        peer.transport,
        mid="0",
        video=False,
        codecs=[_engine.Codec(payload_type=96, name="opus", clock_rate=48000, channels=2)],
        extensions=_engine.Extensions(),
        ssrc=ssrc,
        cname="parley",
    )
    engine.set_source(subscription, publication)
    return subscription
