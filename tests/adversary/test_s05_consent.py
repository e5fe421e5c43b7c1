"""S5: media needs fresh consent (RFC 7675), and moves only where an authenticated check says."""

import time

import pytest

from tests.adversary.media import (
    QUIET_S,
    SILENCE,
    Credentials,
    Peer,
    Rig,
    Wire,
    check,
    is_rtp,
    publish_audio,
    rig,
    rtp,
    subscribe_audio,
)

A_SSRC, TO_B_SSRC = 0x0A0A0A0A, 0x0B0B0B0B
CONSENT_S = 30.0


def call(one: Rig) -> tuple[Peer, Peer]:
    a, b = Peer(one).connect(), Peer(one).connect()
    subscribe_audio(b, publish_audio(a, A_SSRC), TO_B_SSRC)
    a.settle()
    return a, b


def test_a_forged_source_without_integrity_moves_nothing(shards: int) -> None:
    with rig(shards=shards) as one:
        a, b = call(one)
        thief = Wire(one.address)
        wrong = [
            check(b.server, b.client, nominate=True, pwd="a guess of 24 characters"),
            check(b.server, Credentials.fresh(), nominate=True, pwd=a.server.pwd),
            check(b.server, b.client, nominate=True)[:-8],
            bytes(reversed(check(b.server, b.client, nominate=True))),
        ]
        for sequence in range(1, 51):
            for datagram in wrong:
                thief.send(datagram)
            thief.send(b.protect(rtp(TO_B_SSRC, sequence)))
            a.send_rtp(rtp(A_SSRC, sequence, b"for b %d" % sequence))
            assert b.receive_rtp()[12:] == b"for b %d" % sequence
        while datagram := thief.receive(QUIET_S):
            assert not is_rtp(datagram)


def test_an_authenticated_check_does_move_it(shards: int) -> None:
    """The counterpart: the rule above is not just deafness."""
    with rig(shards=shards) as one:
        a, b = call(one)
        old = b.move()
        assert b.check(nominate=True)
        a.send_rtp(rtp(A_SSRC, 1, b"at the new place"))
        assert b.receive_rtp()[12:] == b"at the new place"
        while datagram := old.receive(QUIET_S):
            assert not is_rtp(datagram)


@pytest.mark.slow
@pytest.mark.timeout(90)
def test_media_to_a_cut_client_stops_within_thirty_seconds(shards: int) -> None:
    with rig(shards=shards) as one:
        a, b = call(one)
        cut_at = last = time.monotonic()  # from here on b says nothing, but its port still counts
        sequence = 0
        while time.monotonic() - cut_at < CONSENT_S + 5:
            sequence += 1
            a.send_rtp(rtp(A_SSRC, sequence, b"x"))
            a.receive(0.02)  # a answers its consent checks
            while (datagram := b.wire.receive(0)) != SILENCE:
                if is_rtp(datagram):
                    last = time.monotonic()
        assert 20 < last - cut_at <= CONSENT_S + 0.1
        assert one.find("expired", b.transport)
        assert not one.find("expired", a.transport)
