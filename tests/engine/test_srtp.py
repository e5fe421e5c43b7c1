"""SRTP through the built module against libsrtp: three profiles, replay, reorder, wrap, forgeries (S2, S7)."""

import random
import struct
from collections.abc import Iterator

import pytest

from tests.adversary.media import (
    AES128_CM,
    AES128_GCM,
    AES256_GCM,
    QUIET_S,
    SILENCE,
    Keys,
    Peer,
    Rig,
    Wire,
    publish_audio,
    receiver_report,
    rig,
    rtp,
    subscribe_audio,
)

A_SSRC = 0x0A0A0A0A
B_SSRC = 0x0B0B0B0B


@pytest.fixture(params=[1, 4], ids=["one shard", "four shards"])
def under_test(request: pytest.FixtureRequest) -> Iterator[Rig]:
    with rig(shards=request.param) as one:
        yield one


def call(under_test: Rig, profile: int = AES128_GCM) -> tuple[Peer, Peer, int]:
    """A publishes audio, B subscribes. Returns both and the publication."""
    a = Peer(under_test, keys=Keys(profile)).connect()
    b = Peer(under_test, keys=Keys(profile)).connect()
    publication = publish_audio(a, A_SSRC)
    subscribe_audio(b, publication, B_SSRC)
    a.settle()
    return a, b, publication


@pytest.mark.parametrize("profile", [AES128_CM, AES128_GCM, AES256_GCM])
def test_a_packet_crosses_under_the_subscribers_own_keys_and_ssrc(
    under_test: Rig, profile: int
) -> None:
    a, b, publication = call(under_test, profile)
    for sequence in range(100, 110):
        a.send_rtp(rtp(A_SSRC, sequence, b"opus %d" % sequence))
        packet = b.receive_rtp()
        assert packet[12:] == b"opus %d" % sequence
        assert struct.unpack("!I", packet[8:12])[0] == B_SSRC
        assert packet[1] & 0x7F == 96
    assert under_test.wait_for("first_packet", publication) == (0, 111)


def test_keys_of_different_profiles_meet(under_test: Rig) -> None:
    a = Peer(under_test, keys=Keys(AES128_CM)).connect()
    b = Peer(under_test, keys=Keys(AES256_GCM)).connect()
    subscribe_audio(b, publish_audio(a, A_SSRC), B_SSRC)
    a.settle()
    a.send_rtp(rtp(A_SSRC, 1, b"mixed"))
    assert b.receive_rtp()[12:] == b"mixed"


@pytest.mark.parametrize("profile", [AES128_CM, AES128_GCM, AES256_GCM])
def test_rtcp_is_authenticated_and_answered_in_kind(under_test: Rig, profile: int) -> None:
    a, _b, _publication = call(under_test, profile)
    a.send_rtp(rtp(A_SSRC, 1))
    a.send_rtcp(receiver_report(A_SSRC))
    assert a.receive_rtcp(), "no report from the engine"
    forged = bytearray(a.protect(rtp(A_SSRC, 2)))
    forged[-1] ^= 1
    a.wire.send(bytes(forged))
    under_test.wait_for_counter("transports", a.transport, "auth_failures", 1)


def test_every_packet_three_times_and_reordered_arrives_once(under_test: Rig) -> None:
    """S7: reordering up to 512, over the wrap of the sequence number."""
    a, b, _publication = call(under_test)
    packets = [a.protect(rtp(A_SSRC, s, b"%d" % s)) for s in range(65_000, 66_400)]
    source = random.Random(7)
    order = sorted(range(len(packets)), key=lambda at: at + source.uniform(0, 256))
    got: list[bytes] = []
    for start in range(0, len(order), 20):
        for at in order[start : start + 20]:
            for _ in range(3):
                a.wire.send(packets[at])
        while packet := b.receive_rtp(0.02):
            got.append(packet[12:])
    while packet := b.receive_rtp(QUIET_S):
        got.append(packet[12:])
    assert len(got) == len(set(got))
    replays = under_test.wait_for_counter("transports", a.transport, "replays", 2 * len(packets))
    assert replays == 2 * len(packets)
    # The router may hold back what came far too late to be of use; nothing else is missing.
    assert len(got) >= 0.98 * len(packets)


def test_nothing_moves_before_the_keys(under_test: Rig) -> None:
    a = Peer(under_test)
    a.check(nominate=True)
    publish_audio(a, A_SSRC)
    a.settle()
    a.send_rtp(rtp(A_SSRC, 1))
    under_test.wait_for_counter("drops", 0, "no_keys", 1)


def test_the_same_keys_again_do_not_start_the_indices_again(under_test: Rig) -> None:
    a, b, _publication = call(under_test)
    once = a.protect(rtp(A_SSRC, 1, b"once"))
    a.wire.send(once)
    assert b.receive_rtp()[12:] == b"once"
    for peer in (a, b):
        under_test.engine.set_keys(
            peer.transport, profile=7, material=peer.keys.material, is_client=False
        )
    a.settle()
    a.wire.send(once)
    under_test.wait_for_counter("transports", a.transport, "replays", 1)
    a.send_rtp(rtp(A_SSRC, 2, b"twice"))
    assert b.receive_rtp()[12:] == b"twice"


def test_new_keys_replace_the_old_ones(under_test: Rig) -> None:
    """The peer restarted DTLS."""
    a, b, _publication = call(under_test)
    fresh = Keys()
    under_test.engine.set_keys(
        a.transport, profile=fresh.profile, material=fresh.material, is_client=False
    )
    a.settle()
    a.send_rtp(rtp(A_SSRC, 1, b"old keys"))
    under_test.wait_for_counter("transports", a.transport, "auth_failures", 1)
    a.wire.send(bytes(fresh.sender().protect(rtp(A_SSRC, 2, b"new keys"))))
    assert b.receive_rtp()[12:] == b"new keys"


def test_a_closed_gate_lets_nothing_through(under_test: Rig) -> None:
    a, b, publication = call(under_test)
    a.send_rtp(rtp(A_SSRC, 1, b"open"))
    assert b.receive_rtp()[12:] == b"open"
    under_test.engine.set_gate(publication, False)
    a.settle()
    a.send_rtp(rtp(A_SSRC, 2, b"closed"))
    assert b.receive_rtp(QUIET_S) == SILENCE
    under_test.engine.set_gate(publication, True)
    a.settle()
    a.send_rtp(rtp(A_SSRC, 3, b"open again"))
    assert b.receive_rtp()[12:] == b"open again"


def test_more_than_the_limit_is_not_forwarded(under_test: Rig) -> None:
    a, b, _publication = call(under_test)
    under_test.engine.set_ingress_limit(a.transport, bits_per_s=10_000_000, packets_per_s=50)
    a.settle()
    for sequence in range(200):
        a.send_rtp(rtp(A_SSRC, sequence))
    under_test.wait_for_counter("drops", 0, "over_limit", 100)
    got = 0
    while b.receive_rtp(QUIET_S):
        got += 1
    assert 40 <= got <= 100


def test_a_foreign_address_gets_nothing(under_test: Rig) -> None:
    """With the right SSRC, and even with a packet that was valid on the pair."""
    a, b, _publication = call(under_test)
    stranger = Wire(under_test.address)
    stranger.send(a.protect(rtp(A_SSRC, 1, b"stolen")))
    assert b.receive_rtp(QUIET_S) == SILENCE
    assert stranger.receive(QUIET_S) == SILENCE
    under_test.wait_for_counter("drops", 0, "unvalidated", 1)
