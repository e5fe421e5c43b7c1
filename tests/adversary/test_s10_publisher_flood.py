"""S10: what one peer sends beyond its allowance is dropped before it is forwarded, and others do not wait for it.

The cap of eight tracks is in tests/sfu/test_resync.py (the worker refuses the ninth).
"""

import subprocess
import sys
import time

import pytest

from tests.adversary.media import Peer, Rig, publish_audio, rig, rtp, subscribe_audio

FLOOD_SSRC, A_SSRC, TO_B_SSRC, TO_C_SSRC = 0x0F0F0F0F, 0x0A0A0A0A, 0x0B0B0B0B, 0x0C0C0C0C
DEFAULT_BPS = 12_000_000
DEFAULT_PPS = 3_000
PACKET_BYTES = 1_200
LEAST_SENT = 0.7  # of the flood, on a busy machine of two cores
SEND = """
import socket, sys, time
wire = socket.socket(fileno=int(sys.argv[1]))
seconds, rate = float(sys.argv[2]), int(sys.argv[3])
data = sys.stdin.buffer.read()
size = int(sys.argv[4])
packets = [data[at:at + size] for at in range(0, len(data), size)]
began, sent = time.monotonic(), 0
while (passed := time.monotonic() - began) < seconds and sent < len(packets):
    while sent < min(rate * passed, len(packets)):
        wire.send(packets[sent])
        sent += 1
    time.sleep(0.0005)
print(sent)
"""


def flood(one: Rig, seconds: float, bits_per_s: int) -> tuple["subprocess.Popen[bytes]", int, int]:
    """True packets of 1,200 bytes of an attacker in a room of its own; the process, its handles."""
    attacker, c = Peer(one).connect(), Peer(one).connect()
    publication = publish_audio(attacker, FLOOD_SSRC, group=2)
    subscription = subscribe_audio(c, publication, TO_C_SSRC)
    attacker.settle()
    rate = bits_per_s // 8 // PACKET_BYTES
    sealed = [
        attacker.protect(rtp(FLOOD_SSRC, n, bytes(1_172))) for n in range(1, int(rate * seconds))
    ]
    handle = attacker.wire.socket.fileno()
    process = subprocess.Popen(
        [sys.executable, "-c", SEND, str(handle), str(seconds), str(rate), str(len(sealed[0]))],
        pass_fds=[handle],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(b"".join(sealed))
    process.stdin.close()
    return process, attacker.transport, subscription


def delays(a: Peer, b: Peer, seconds: float, sequence: int) -> list[float]:
    """Of one audio packet every 20 ms."""
    taken = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sequence += 1
        sent_at = time.monotonic()
        a.send_rtp(rtp(A_SSRC, sequence, b"x" * 80))
        assert b.receive_rtp(1.0), "lost"
        taken.append(time.monotonic() - sent_at)
        time.sleep(max(0.0, 0.02 - taken[-1]))
    return sorted(taken)


def attack(shards: int, seconds: float, bits_per_s: int) -> tuple[float, float]:
    """p99 of the audio delay in another room, before and during; the caps are asserted."""
    with rig(shards=shards) as one:
        a, b = Peer(one).connect(), Peer(one).connect()
        subscribe_audio(b, publish_audio(a, A_SSRC), TO_B_SSRC)
        a.settle()
        before = delays(a, b, seconds, 0)
        process, attacker, subscription = flood(one, seconds, bits_per_s)
        began = time.monotonic()
        during = delays(a, b, seconds, 1_000)
        assert process.wait(10) == 0
        assert process.stdout is not None
        sent = int(process.stdout.read())
        process.stdout.close()
        passed = time.monotonic() - began + 0.5
        time.sleep(0.3)
        forwarded = one.counters("subscriptions", subscription)
        assert sent * PACKET_BYTES * 8 >= LEAST_SENT * bits_per_s * seconds, "hardly a flood"
        # The burst is a second's worth.
        assert forwarded["bytes"] * 8 <= DEFAULT_BPS * (passed + 1)
        assert forwarded["packets"] <= DEFAULT_PPS * (passed + 1)
        assert one.counters("drops")["over_limit"] > 0
        assert not one.find("expired", attacker)
        before_ms, during_ms = (1_000 * taken[int(0.99 * len(taken))] for taken in (before, during))
        print(f"{sent / seconds:.0f} packets/s; audio p99 {before_ms:.2f} -> {during_ms:.2f} ms")
        return before_ms, during_ms


def test_the_excess_is_dropped_before_forwarding(shards: int) -> None:
    attack(shards, 1.0, 100_000_000)


@pytest.mark.slow
def test_other_rooms_do_not_wait(shards: int) -> None:
    before_ms, during_ms = attack(shards, 10.0, 200_000_000)
    assert during_ms <= before_ms + 10
