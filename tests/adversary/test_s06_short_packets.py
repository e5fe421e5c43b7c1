"""S6: every length from 0 to 64 of every packet shape, before and after authentication: no panic, no lost peer."""

import os
import struct
from collections.abc import Iterator

import pylibsrtp
import pytest

from tests.adversary.media import (
    AES128_CM,
    AES128_GCM,
    AES256_GCM,
    REQUEST,
    SUCCESS,
    Keys,
    Peer,
    Rig,
    Wire,
    bye,
    check,
    client_hello,
    nack,
    pli,
    publish_audio,
    receiver_report,
    rig,
    rtcp,
    rtp,
    stun,
    subscribe_audio,
)

A_SSRC, TO_B_SSRC = 0x0A0A0A0A, 0x0B0B0B0B
LONGEST = 64


def shapes(peer: Peer) -> list[bytes]:
    """One of each kind, at least `LONGEST` bytes long."""
    extended = struct.pack("!BBHIIHH", 0x90, 111, 1, 1, A_SSRC, 0xBEDE, 4) + b"\x10\xff" * 20
    two_byte = (
        struct.pack("!BBHIIHH", 0x90, 111, 1, 1, A_SSRC, 0x1000, 4) + b"\x01\x01\xff\x00" * 10
    )
    sources = struct.pack("!BBHII", 0x8F, 111, 1, 1, A_SSRC) + bytes(60)
    padded = struct.pack("!BBHII", 0xA0, 111, 1, 1, A_SSRC) + b"\xff" * 60
    feedback = [rtcp(kind, count, b"\xff" * 64) for kind in (205, 206) for count in (1, 4, 15, 31)]
    reports = [rtcp(kind, count, b"\x01" * 64) for kind in range(200, 208) for count in (0, 1, 31)]
    wrong_length = [bytes([0x81, kind, 0xFF, 0xFF]) + bytes(64) for kind in range(192, 224, 5)]
    return [
        check(peer.server, peer.client, nominate=True),
        stun(SUCCESS, (0x20, bytes(8)), pwd=peer.client.pwd) + bytes(20),
        stun(REQUEST, (6, b"x" * 40)),
        client_hello() + bytes(20),
        b"\x17\xfe\xfd" + bytes(70),
        rtp(A_SSRC, 1, b"payload" * 10),
        extended,
        two_byte,
        sources,
        padded,
        receiver_report(A_SSRC) + nack(1, TO_B_SSRC, *range(15)),
        receiver_report(A_SSRC) + pli(1, TO_B_SSRC) + bye(*range(12)),
        *feedback,
        *reports,
        *wrong_length,
        b"\x40" + bytes(70),
        os.urandom(70),
    ]


@pytest.fixture
def one(shards: int) -> Iterator[Rig]:
    with rig(shards=shards) as under_test:
        yield under_test


def is_well(one: Rig, a: Peer, b: Peer, sequence: int) -> None:
    a.settle()
    a.send_rtp(rtp(A_SSRC, sequence, b"still here"))
    assert b.receive_rtp()[12:] == b"still here"
    assert one.counters("drops").get("panics", 0) == 0
    assert not one.find("expired", a.transport)


@pytest.mark.parametrize("profile", [AES128_GCM, AES256_GCM, AES128_CM])
def test_every_length_of_every_shape(one: Rig, profile: int) -> None:
    a = Peer(one, keys=Keys(profile)).connect()
    b = Peer(one).connect()
    subscribe_audio(b, publish_audio(a, A_SSRC), TO_B_SSRC)
    a.settle()
    stranger = Wire(one.address)
    one.engine.set_ingress_limit(a.transport, bits_per_s=1 << 30, packets_per_s=1 << 20)
    for shape in shapes(a):
        for length in range(LONGEST + 1):
            stranger.send(shape[:length])
            a.wire.send(shape[:length])
        a.settle()  # keeps the socket's buffer short, so that everything is looked at
    is_well(one, a, b, 30_000)


def test_every_length_behind_authentication(one: Rig) -> None:
    """With a right tag the router's own parsers see the cut packet."""
    a, b = Peer(one).connect(), Peer(one).connect()
    subscribe_audio(b, publish_audio(a, A_SSRC), TO_B_SSRC)
    a.settle()
    sequence = 0
    for shape in shapes(a):
        for length in range(12, LONGEST + 1):
            packet = bytearray(shape[:length])
            try:
                if 192 <= packet[1] <= 223:
                    a.send_rtcp(bytes(packet))
                elif packet[0] >> 6 == 2:
                    sequence += 1
                    packet[2:4] = struct.pack("!H", sequence)
                    a.send_rtp(bytes(packet))
            except pylibsrtp.Error:
                pass  # libsrtp itself refuses to seal it
        a.settle()
    while b.receive_rtp(0.1):
        pass
    is_well(one, a, b, sequence + 1)
