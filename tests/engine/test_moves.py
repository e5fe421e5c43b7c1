"""Media while paths change under it: ICE restart (MP4, R10), a new port (R9), marks and sizes of what leaves (N9).

The same with browsers: tests/scenarios/test_networks.py. Timers: engine/core/src/ice/tests.rs.
"""

import socket
import struct
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest

from sfu import _engine
from tests.adversary.media import (
    CONTROLLED,
    QUIET_S,
    SUCCESS,
    Credentials,
    Peer,
    Rig,
    Wire,
    check,
    is_rtp,
    is_stun,
    parse_stun,
    publish_audio,
    rig,
    rtp,
    subscribe_audio,
    until,
)
from tests.adversary.tcp import StreamWire

AUDIO_EF, VIDEO_AF41 = 46 << 2, 34 << 2  # the whole octet; ECN is zero


@pytest.fixture(params=[1, 4], ids=["one shard", "four shards"])
def under_test(request: pytest.FixtureRequest) -> Iterator[Rig]:
    with rig(shards=request.param) as one:
        yield one


def talk(ann: Peer, first: int, count: int) -> None:
    for sequence in range(first, first + count):
        ann.send_rtp(rtp(1_000, sequence, b"x" * 100))
        time.sleep(0.002)


def heard(peer: Peer, wire: Wire, within_s: float = QUIET_S) -> list[int]:
    """Sequence numbers of the RTP packets that wait on this wire."""
    mine, peer.wire = peer.wire, wire
    found = []
    while packet := peer.receive_rtp(within_s):
        found.append(struct.unpack("!H", packet[2:4])[0])
    peer.wire = mine
    return found


def in_a_row(numbers: list[int]) -> bool:
    return all((b - a) & 0xFFFF == 1 for a, b in pairwise(numbers))


@pytest.mark.parametrize("kind", [Wire, StreamWire], ids=["to-udp", "to-tcp"])
def test_a_restart_under_load_loses_nothing(under_test: Rig, kind: type[Wire]) -> None:
    """Make before break: the old pair carries everything until the new one is nominated."""
    ann, ben = Peer(under_test).connect(), Peer(under_test).connect()
    subscribe_audio(ben, publish_audio(ann, 1_000), 77)
    ann.settle()
    talk(ann, 1, 50)
    new = ben.restarted()
    under_test.engine.restart_ice(ben.transport, local_ufrag=new.ufrag, local_pwd=new.pwd)
    ours = Credentials.fresh()
    under_test.engine.set_remote(ben.transport, ufrag=ours.ufrag, pwd=ours.pwd)
    talk(ann, 51, 50)
    old, fresh = ben.wire, kind(under_test.address)
    fresh.send(check(new, ours))  # validated, not nominated
    assert parse_stun(fresh.receive()).kind == SUCCESS
    talk(ann, 101, 50)
    by_old = heard(ben, old)
    assert len(by_old) == 150
    assert is_stun(fresh.receive(0.1) or b"\x00\x01" + bytes(2) + b"\x21\x12\xa4\x42" + bytes(12))
    fresh.send(check(new, ours, nominate=True))
    assert parse_stun(_stun(fresh)).kind == SUCCESS
    talk(ann, 151, 50)
    assert heard(ben, old) == []
    by_new = heard(ben, fresh)
    assert len(by_new) == 50
    assert in_a_row(by_old + by_new)


def _stun(wire: Wire) -> bytes:
    """The next answer; questions of the engine's are left alone."""
    end = time.monotonic() + 3
    while time.monotonic() < end:
        datagram = wire.receive(end - time.monotonic())
        if is_stun(datagram) and parse_stun(datagram).kind == SUCCESS:
            return datagram
    raise AssertionError("no answer")


def test_a_rebound_port_loses_what_went_to_the_old_one_and_no_more(under_test: Rig) -> None:
    ann, ben = Peer(under_test).connect(), Peer(under_test, role=CONTROLLED, offered_by_us=True)
    ben.connect()
    subscribe_audio(ben, publish_audio(ann, 1_000), 77)
    ann.settle()
    talk(ann, 1, 20)
    old = ben.move()
    talk(ann, 21, 20)  # the NAT has forgotten us, and nobody knows yet
    assert ben.check().kind == SUCCESS
    talk(ann, 41, 20)
    by_old, by_new = heard(ben, old), heard(ben, ben.wire)
    assert (len(by_old), len(by_new)) == (40, 20)
    assert in_a_row(by_old + by_new)


def test_media_from_a_new_port_counts_only_after_its_check(under_test: Rig) -> None:
    ann, ben = Peer(under_test).connect(), Peer(under_test).connect()
    subscribe_audio(ben, publish_audio(ann, 1_000), 77)
    ann.settle()
    talk(ann, 1, 5)
    ann.move()
    talk(ann, 6, 5)
    assert len(heard(ben, ben.wire)) == 5
    assert ann.check(nominate=True).kind == SUCCESS
    talk(ann, 11, 5)
    assert len(heard(ben, ben.wire)) == 5


def _marks(wire: Wire, count: int) -> set[int]:
    """The traffic class octets of the next RTP datagrams."""
    is_v6 = wire.socket.family == socket.AF_INET6
    found: set[int] = set()
    wire.socket.settimeout(3)
    while count:
        data, extra, _, _ = wire.socket.recvmsg(2_048, 256)
        if not is_rtp(data):
            continue
        count -= 1
        kind = socket.IPV6_TCLASS if is_v6 else socket.IP_TOS
        found |= {value[0] for _, name, value in extra if name == kind}
    return found


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("is_wildcard", [False, True])
def test_audio_is_expedited_and_video_assured(host: str, is_wildcard: bool) -> None:
    listen = ("::" if ":" in host else "0.0.0.0") if is_wildcard else host
    with rig([listen]) as under_test:
        ann, ben = Peer(under_test), Peer(under_test)
        for peer in (ann, ben):
            peer.wire = Wire((host, under_test.engine.port))
            peer.connect()
        own = ben.wire.socket
        if own.family == socket.AF_INET6:
            own.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
        else:
            own.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        subscribe_audio(ben, publish_audio(ann, 1_000), 77)
        video = _engine.Codec(payload_type=100, name="VP8", clock_rate=90_000)
        publication = under_test.engine.publish(
            ann.transport,
            group=1,
            stream=_engine.ReceiveStream(
                mid="1",
                video=True,
                codecs=[video],
                extensions=_engine.Extensions(),
                ssrcs=[(2_000, 0)],
            ),
        )
        subscription = under_test.engine.subscribe(
            ben.transport,
            mid="1",
            video=True,
            codecs=[video],
            extensions=_engine.Extensions(),
            ssrc=88,
        )
        under_test.engine.set_source(subscription, publication)
        ann.settle()
        talk(ann, 1, 10)
        assert _marks(ben.wire, 10) == {AUDIO_EF}
        key_frame = bytes.fromhex("10000000009d012a0200020000")
        for sequence in range(1, 6):
            ann.send_rtp(rtp(2_000, sequence, key_frame, payload_type=100, marker=True))
            time.sleep(0.01)
        assert _marks(ben.wire, 1) == {VIDEO_AF41}


def test_without_dscp_nothing_is_marked() -> None:
    with rig() as under_test:
        under_test.engine.close()
        under_test.engine = _engine.Engine(listen=["127.0.0.1"], port=0, dscp=False)
        ann, ben = Peer(under_test).connect(), Peer(under_test).connect()
        ben.wire.socket.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        subscribe_audio(ben, publish_audio(ann, 1_000), 77)
        ann.settle()
        talk(ann, 1, 5)
        assert _marks(ben.wire, 5) == {0}


def test_a_connection_hung_up_in_a_restart_is_no_end(under_test: Rig) -> None:
    peer = Peer(under_test)
    peer.wire = StreamWire(under_test.address)
    peer.connect()
    peer.wire.close()
    until(lambda: under_test.counters("connections").get("open") == 0, "the end")
    new = peer.restarted()
    under_test.engine.restart_ice(peer.transport, local_ufrag=new.ufrag, local_pwd=new.pwd)
    fresh = Wire(under_test.address)
    fresh.send(check(new, Credentials.fresh(), nominate=True))
    assert parse_stun(fresh.receive()).kind == SUCCESS
    under_test.engine.send_datagram(peer.transport, b"\x16here")
    assert fresh.receive() == b"\x16here"
