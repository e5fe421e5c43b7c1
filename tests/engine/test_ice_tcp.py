"""ICE over TCP on the media port: one more 5-tuple, and what nobody may do with it (RFC 6544, RFC 4571).

Queue limits and ways of cutting a stream: engine/io/src/stream.rs.
"""

import os
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from sfu import _engine
from tests.adversary.media import (
    SUCCESS,
    Credentials,
    Keys,
    Peer,
    Rig,
    check,
    is_rtp,
    publish_audio,
    rig,
    rtp,
    subscribe_audio,
    until,
)
from tests.adversary.tcp import StreamWire


@pytest.fixture(params=[1, 4], ids=["one shard", "four shards"])
def under_test(request: pytest.FixtureRequest) -> Iterator[Rig]:
    with rig(shards=request.param) as one:
        yield one


def over_tcp(under_test: Rig) -> Peer:
    peer = Peer(under_test)
    peer.wire = StreamWire(under_test.address)
    return peer


def test_media_crosses_between_tcp_and_udp(under_test: Rig) -> None:
    ann, ben = over_tcp(under_test).connect(), Peer(under_test, keys=Keys()).connect()
    from_ann, from_ben = publish_audio(ann, 1_000), publish_audio(ben, 2_000, group=1)
    subscribe_audio(ben, from_ann, 77)
    subscribe_audio(ann, from_ben, 78)
    ann.settle()
    ben.settle()
    for sequence in range(1, 30):
        ann.send_rtp(rtp(1_000, sequence, b"ann"))
        ben.send_rtp(rtp(2_000, sequence, b"ben"))
    assert [ben.receive_rtp()[-3:] for _ in range(29)] == [b"ann"] * 29
    assert [ann.receive_rtp()[-3:] for _ in range(29)] == [b"ben"] * 29
    # On its way it may be in two reports.
    until(lambda: under_test.counters("connections").get("open") == 1, "one connection")


def test_the_answer_tells_the_connections_own_address(under_test: Rig) -> None:
    peer = over_tcp(under_test)
    answer = peer.check()
    assert answer.kind == SUCCESS
    assert answer.mapped == peer.wire.name
    assert answer.is_signed_with(peer.server.pwd)


def test_ipv6_and_a_wildcard_take_connections() -> None:
    with rig(["0.0.0.0", "::1"]) as both:
        for host in ("127.0.0.7", "::1"):
            peer = Peer(both)
            peer.wire = StreamWire((host, both.engine.port))
            assert peer.check().mapped == peer.wire.name


@pytest.mark.parametrize(
    "first",
    [
        b"\x16\xfe\xfd" + bytes(200),
        b"GET / HTTP/1.1\r\n\r\n",
        b"",
        check(Credentials.fresh(), Credentials.fresh()),
    ],
    ids=["dtls", "http", "empty", "unknown-ufrag"],
)
def test_who_does_not_begin_with_a_valid_check_is_closed(under_test: Rig, first: bytes) -> None:
    stranger = StreamWire(under_test.address)
    stranger.send(first)
    assert stranger.is_closed(1.0)
    assert stranger.bytes_in == 0
    under_test.wait_for_counter("connections", 0, "unproven", 1)


def test_a_wrong_password_is_closed_unanswered(under_test: Rig) -> None:
    peer = Peer(under_test)
    stranger = StreamWire(under_test.address)
    stranger.send(check(peer.server, peer.client, pwd="not the password at all"))
    assert stranger.is_closed(1.0)
    assert stranger.bytes_in == 0


def test_who_says_nothing_or_trickles_is_closed_after_five_seconds(under_test: Rig) -> None:
    silent, trickling = StreamWire(under_test.address), StreamWire(under_test.address)
    began = time.monotonic()
    trickling.socket.sendall(b"\x00\x80\x00")
    assert not silent.is_closed(3.5)
    trickling.socket.sendall(b"\x01")
    assert silent.is_closed(4.0)
    assert trickling.is_closed(1.0)
    assert 4.5 < time.monotonic() - began < 8.0


def test_a_frame_over_1500_bytes_closes(under_test: Rig) -> None:
    peer = over_tcp(under_test)
    peer.check()
    assert isinstance(peer.wire, StreamWire)
    peer.wire.socket.sendall(struct.pack("!H", 1_501) + bytes(1_501))
    assert peer.wire.is_closed(1.0)


def test_one_source_cannot_take_all_connections(under_test: Rig) -> None:
    wires = [StreamWire(under_test.address) for _ in range(100)]
    under_test.wait_for_counter("connections", 0, "refused", 84)
    assert under_test.counters("connections")["open"] == 16
    other = socket.create_connection(under_test.address, source_address=("127.0.0.9", 0))
    try:
        until(lambda: under_test.counters("connections")["open"] == 17, "a place for others")
    finally:
        other.close()
    del wires


def test_a_peer_may_come_back_on_another_connection(under_test: Rig) -> None:
    ann, ben = Peer(under_test).connect(), over_tcp(under_test).connect()
    subscribe_audio(ben, publish_audio(ann, 1_000), 77)
    ann.settle()
    ann.send_rtp(rtp(1_000, 1, b"one"))
    assert ben.receive_rtp()[-3:] == b"one"
    ben.wire.close()
    until(lambda: under_test.counters("connections")["open"] == 0, "the end of the connection")
    ann.send_rtp(rtp(1_000, 2, b"two"))
    ben.wire = StreamWire(under_test.address)
    assert ben.check(nominate=True).kind == SUCCESS
    for sequence in range(3, 40):  # a stream without a way out is looked at again after a moment
        ann.send_rtp(rtp(1_000, sequence, b"six"))
        time.sleep(0.02)
    heard = ben.receive_rtp()[-3:]
    if heard == b"two":  # between two shards it may take longer than Ben
        heard = ben.receive_rtp()[-3:]
    assert heard == b"six"
    assert not under_test.find("expired", ben.transport)


def test_a_closed_transport_closes_its_connection(under_test: Rig) -> None:
    peer = over_tcp(under_test).connect()
    under_test.engine.close_transport(peer.transport)
    assert isinstance(peer.wire, StreamWire)
    assert peer.wire.is_closed(3.0)


def test_who_does_not_read_costs_bounded_memory_and_nobody_else(under_test: Rig) -> None:
    """Audio to one who sleeps is dropped, while another one hears everything."""
    ann, ben, cat = Peer(under_test).connect(), over_tcp(under_test), Peer(under_test).connect()
    ben.wire = StreamWire(under_test.address, receive_buffer_bytes=4_096)
    ben.connect()
    publication = publish_audio(ann, 1_000)
    subscribe_audio(ben, publication, 77)
    subscribe_audio(cat, publication, 78)
    ann.settle()
    payload = os.urandom(1_000)
    heard, sequence = 0, 0
    end = time.monotonic() + 10
    while not under_test.counters("connections")["dropped_audio"]:
        assert time.monotonic() < end
        for _ in range(50):
            sequence += 1
            ann.send_rtp(rtp(1_000, sequence, payload))
            heard += bool(cat.receive_rtp(1.0))
        time.sleep(0.02)  # the ingress limit
    assert heard >= sequence * 0.98
    assert under_test.counters("connections")["stuck"] == 0
    while is_rtp(ben.receive(0.3)):  # wakes up
        pass
    ann.send_rtp(rtp(1_000, sequence + 1, b"awake"))
    assert is_rtp(ben.receive(1.0))


def test_without_tcp_nobody_listens() -> None:
    engine = _engine.Engine(listen=["127.0.0.1"], port=0, tcp=False)
    try:
        with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
            probe.connect(("127.0.0.1", engine.port))
    finally:
        engine.close()
