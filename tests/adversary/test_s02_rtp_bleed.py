"""S2, S3: RTP Bleed and RTP Inject (CVE-2017-14099, CVE-2025-53399), SRTP error floods (CVE-2021-41105).

The destination follows authenticated STUN only, and the tag is checked before any state changes.
"""

import time
from collections.abc import Iterator

import pytest

from tests.adversary.media import (
    QUIET_S,
    SILENCE,
    Peer,
    Rig,
    Wire,
    bye,
    publish_audio,
    receiver_report,
    rig,
    rtp,
    subscribe_audio,
)

A_SSRC = 0x0A0A0A0A
B_SSRC = 0x0B0B0B0B


@pytest.fixture
def under_test(shards: int) -> Iterator[Rig]:
    with rig(shards=shards) as one:
        yield one


def call(under_test: Rig) -> tuple[Peer, Peer]:
    a, b = Peer(under_test).connect(), Peer(under_test).connect()
    subscribe_audio(b, publish_audio(a, A_SSRC), B_SSRC)
    a.settle()
    return a, b


def test_twenty_strangers_with_the_right_ssrc_hear_and_say_nothing(under_test: Rig) -> None:
    a, b = call(under_test)
    strangers = [Wire(under_test.address) for _ in range(20)]
    sent, got = [], []
    for sequence in range(1, 201):
        for stranger in strangers:
            stranger.send(rtp(A_SSRC, sequence, b"injected") + bytes(16))
            stranger.send(bye(A_SSRC) + bytes(20))
            stranger.send(receiver_report(B_SSRC)[:4])
        payload = b"true %d" % sequence
        sent.append(payload)
        a.send_rtp(rtp(A_SSRC, sequence, payload))
        got.append(b.receive_rtp()[12:])
    assert got == sent
    assert b.receive_rtp(QUIET_S) == SILENCE
    assert all(stranger.receive(0) == SILENCE for stranger in strangers)
    assert under_test.wait_for_counter("drops", 0, "unvalidated", 200 * 20 * 3) == 200 * 20 * 3


def test_forgeries_from_the_peers_own_address_change_nothing(under_test: Rig) -> None:
    """An attacker who can forge the source: sequence numbers far ahead must not move the window."""
    a, b = call(under_test)
    a.send_rtp(rtp(A_SSRC, 1, b"first"))
    assert b.receive_rtp()[12:] == b"first"
    for jump in range(2, 65_000, 13):
        a.wire.send(rtp(A_SSRC, jump, b"forged") + bytes(16))
        if (
            jump % (13 * 64) < 13
        ):  # one 5-tuple gets no more than its share of the way between two shards
            time.sleep(0.002)
    # Half of them look ahead of the window and fail at the tag, half look too old to need one.
    under_test.wait_for_counter("transports", a.transport, "auth_failures", 2_400)
    under_test.wait_for_counter("transports", a.transport, "replays", 2_400)
    for sequence in range(2, 12):
        a.send_rtp(rtp(A_SSRC, sequence, b"still %d" % sequence))
        assert b.receive_rtp()[12:] == b"still %d" % sequence


def test_an_error_flood_never_ends_the_call(under_test: Rig) -> None:
    """S3: far more than the hundred errors of CVE-2021-41105, as fast as this process can send."""
    a, b = call(under_test)
    garbage = rtp(A_SSRC, 7, bytes(100))
    lost = 0
    for sequence in range(1, 101):
        for _ in range(200):
            a.wire.send(garbage)
        a.send_rtp(rtp(A_SSRC, sequence, b"%d" % sequence))
        lost += b.receive_rtp(1.0)[12:] != b"%d" % sequence
    assert lost == 0
    assert not under_test.find("expired", a.transport)


def test_a_stranger_cannot_move_the_media(under_test: Rig) -> None:
    """Not with a copied packet of the peer, nor with a check that lacks the password."""
    a, b = call(under_test)
    stranger = Wire(under_test.address)
    b.send_rtcp(receiver_report(B_SSRC))
    copied = bytes(b.protect(rtp(B_SSRC, 1)))
    stranger.send(copied)
    stranger.send(b"\x00\x01\x00\x00\x21\x12\xa4\x42" + bytes(12))
    a.send_rtp(rtp(A_SSRC, 1, b"for b alone"))
    assert b.receive_rtp()[12:] == b"for b alone"
    assert stranger.receive(QUIET_S) == SILENCE


@pytest.mark.parametrize("length", range(1, 40))
def test_short_rtp_and_rtcp_from_a_validated_peer(under_test: Rig, length: int) -> None:
    """The captures of CVE-2025-53399 and of the pre-authentication panics (S6): every short length."""
    peer = Peer(under_test).connect()
    for first in (0x80, 0x81, 0x8F, 0x90, 0x9F, 0xBF):
        for second in (0, 111, 200, 201, 206, 255):
            peer.wire.send(bytes([first, second][:length]) + bytes(max(0, length - 2)))
    peer.settle()
    assert under_test.counters("drops").get("panics", 0) == 0
