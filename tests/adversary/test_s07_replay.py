"""S7: replay windows and rollover: every packet once, however often and in whatever order it comes."""

import random

import pytest

from tests.adversary.media import (
    AES128_CM,
    AES128_GCM,
    Keys,
    Peer,
    nack,
    publish_audio,
    receiver_report,
    rig,
    rtp,
    subscribe_audio,
)

A_SSRC, TO_B_SSRC = 0x0A0A0A0A, 0x0B0B0B0B
FAR = 512  # packets by which one may be late; the window is 1,024


def numbers(got: list[bytes]) -> list[int]:
    return [int(packet[12:]) for packet in got]


def drained(b: Peer, wait_s: float) -> list[bytes]:
    got = []
    while packet := b.receive_rtp(wait_s):
        got.append(packet)
    return got


@pytest.mark.parametrize("profile", [AES128_GCM, AES128_CM])
def test_three_times_and_out_of_order_is_delivered_once(shards: int, profile: int) -> None:
    source = random.Random(7)
    with rig(shards=shards) as one:
        a, b = Peer(one, keys=Keys(profile)).connect(), Peer(one).connect()
        subscribe_audio(b, publish_audio(a, A_SSRC), TO_B_SSRC)
        one.engine.set_ingress_limit(a.transport, bits_per_s=1 << 30, packets_per_s=1 << 20)
        a.settle()
        count = 2_000
        sealed = [a.protect(rtp(A_SSRC, n, b"%d" % n)) for n in range(1, count + 1)]
        copies = [(n + source.randrange(FAR), n) for n in range(count) for _ in range(3)]
        a.wire.send(sealed[0])
        got = [b.receive_rtp()]
        for at, (_, n) in enumerate(sorted(copies)):
            a.wire.send(sealed[n])
            if at % 100 == 99:
                a.settle()
                got += drained(b, 0.001)
        got += drained(b, 0.2)
        heard = numbers(got)
        assert len(heard) == len(set(heard)), "delivered twice"
        assert set(heard) == set(range(1, count + 1))
        assert (
            one.wait_for_counter("transports", a.transport, "replays", 2 * count) == 2 * count + 1
        )


def test_old_packets_are_replays_for_ever(shards: int) -> None:
    with rig(shards=shards) as one:
        a, b = Peer(one).connect(), Peer(one).connect()
        subscribe_audio(b, publish_audio(a, A_SSRC), TO_B_SSRC)
        a.settle()
        old = a.protect(rtp(A_SSRC, 1, b"1"))
        a.wire.send(old)
        assert numbers([b.receive_rtp()]) == [1]
        for n in range(2, 1_200):
            a.send_rtp(rtp(A_SSRC, n, b"%d" % n))
            assert numbers([b.receive_rtp()]) == [n]
        a.wire.send(old)
        assert not b.receive_rtp(0.1)


@pytest.mark.parametrize("profile", [AES128_GCM, AES128_CM])
def test_control_packets_count_once_too(shards: int, profile: int) -> None:
    """SRTCP has an index and a window of its own: a captured NACK is not answered again and again."""
    source = random.Random(13)
    with rig(shards=shards) as one:
        a, b = Peer(one).connect(), Peer(one, keys=Keys(profile)).connect()
        subscription = subscribe_audio(b, publish_audio(a, A_SSRC), TO_B_SSRC)
        one.engine.set_ingress_limit(b.transport, bits_per_s=1 << 30, packets_per_s=1 << 20)
        a.settle()
        a.send_rtp(rtp(A_SSRC, 1, b"1"))
        assert numbers([b.receive_rtp()]) == [1]
        count = 1_500  # beyond the window of 1,024
        asking = receiver_report(1) + nack(1, TO_B_SSRC, 1)
        sealed = [b.protect_rtcp(asking) for _ in range(count)]
        copies = sorted((n + source.randrange(FAR), n) for n in range(count) for _ in range(3))
        for at, (_, n) in enumerate(copies):
            b.wire.send(sealed[n])
            if at % 100 == 99:
                b.settle()
        of_b = ("transports", b.transport)
        assert one.wait_for_counter(*of_b, "replays", 2 * count) == 2 * count
        b.wire.send(sealed[0])  # long out of the window
        b.settle()
        assert one.wait_for_counter(*of_b, "replays", 2 * count + 1) == 2 * count + 1
        assert one.counters("subscriptions", subscription)["nacks"] == count
        assert one.counters(*of_b)["auth_failures"] == 0


@pytest.mark.parametrize("profile", [AES128_GCM, AES128_CM])
def test_two_wraps_with_a_tenth_lost(shards: int, profile: int) -> None:
    """65535 -> 0 twice; our own outgoing numbers wrap as well (they begin below 2^15)."""
    source = random.Random(11)
    with rig(shards=shards) as one:
        a, b = Peer(one, keys=Keys(profile)).connect(), Peer(one).connect()
        subscribe_audio(b, publish_audio(a, A_SSRC), TO_B_SSRC)
        one.engine.set_ingress_limit(a.transport, bits_per_s=1 << 30, packets_per_s=1 << 20)
        a.settle()
        sent, got = [], []
        # Steps of 100 but for the neighbourhood of the wraps, so that it stays short; the rollover counter of
        # sender and receiver follows all the same (RFC 3711 section 3.3.1: half the numbers at most).
        near = [*range(65_536 - 300, 65_536 + 300), *range(131_072 - 300, 131_072 + 300)]
        for n in sorted({*range(1, 140_000, 100), *near}):
            packet = a.protect(rtp(A_SSRC, n, b"%d" % n))
            if source.random() < 0.1:
                continue
            a.wire.send(packet)
            sent.append(n)
            if len(sent) % 50 == 0:
                a.settle()
                got += drained(b, 0.001)
        got += drained(b, 0.2)
        assert sorted(numbers(got)) == sent
        assert one.counters("transports", a.transport)["auth_failures"] == 0
