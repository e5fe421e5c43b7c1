"""S3: authentication failures are counted and never end a call (CVE-2021-41105: a hundred of them did).

A process of its own sends garbage as fast as it may, once from the victim's own 5-tuple and once from a stranger's.
"""

import subprocess
import sys
import time

import pytest

from tests.adversary.media import Peer, Rig, Wire, publish_audio, rig, rtp, subscribe_audio

A_SSRC, TO_B_SSRC = 0x0A0A0A0A, 0x0B0B0B0B
RATE_PER_S = 50_000
LEAST_PER_S = 20_000  # that a busy machine of two cores sends of it
MOST_CPU_US = 20.0  # of a refused packet, the test's own work included
LOSS = 0.001
PACKET_S = 0.02
FLOOD = """
import socket, sys, time
wire = socket.socket(fileno=int(sys.argv[1]))
seconds, rate = float(sys.argv[2]), int(sys.argv[3])
garbage = [bytes.fromhex(text) for text in sys.argv[4:]]
began, sent = time.monotonic(), 0
while (passed := time.monotonic() - began) < seconds:
    while sent < rate * passed:
        wire.send(garbage[sent % len(garbage)])
        sent += 1
    time.sleep(0.0005)
print(sent)
"""


def garbage() -> list[str]:
    packets = [rtp(A_SSRC, 7 * n, bytes(100)) for n in range(20)]
    packets += [b"\x81\xc9" + bytes(60), b"\x80\xc8" + bytes(20)]
    return [packet.hex() for packet in packets]


def flooded(one: Rig, wire: Wire, a: Peer, b: Peer, seconds: float) -> tuple[int, int, int]:
    """(bad packets, true packets sent, true packets that arrived)."""
    handle = wire.socket.fileno()
    arguments = [str(handle), str(seconds), str(RATE_PER_S), *garbage()]
    flood = subprocess.Popen(
        [sys.executable, "-c", FLOOD, *arguments], pass_fds=[handle], stdout=subprocess.PIPE
    )
    sent = got = 0
    while flood.poll() is None:
        sent += 1
        a.send_rtp(rtp(A_SSRC, sent, b"%d" % sent))
        next_at = time.monotonic() + PACKET_S
        while (left := next_at - time.monotonic()) > 0:
            got += bool(b.receive_rtp(left))
    while b.receive_rtp(0.2):
        got += 1
    out, _ = flood.communicate(timeout=5)
    return int(out), sent, got


def survives(shards: int, seconds: float, *, own: bool) -> None:
    with rig(shards=shards) as one:
        a, b = Peer(one).connect(), Peer(one).connect()
        subscribe_audio(b, publish_audio(a, A_SSRC), TO_B_SSRC)
        a.settle()
        before = time.process_time()
        bad, sent, got = flooded(one, a.wire if own else Wire(one.address), a, b, seconds)
        cpu_us = 1e6 * (time.process_time() - before) / bad
        drops, of_a = one.counters("drops"), one.counters("transports", a.transport)
        refused = drops["unvalidated"] + drops["malformed"] + of_a["auth_failures"]
        refused += of_a["replays"]
        print(f"{bad / seconds:.0f} bad packets/s, {cpu_us:.1f} us of CPU for each", drops)
        assert bad >= LEAST_PER_S * seconds, "hardly a flood"
        assert cpu_us <= MOST_CPU_US
        assert refused >= 0.5 * bad, "counted, but for what the kernel had no room for"
        assert sent - got <= max(1, LOSS * sent)
        assert not one.find("expired", a.transport)


@pytest.mark.parametrize("own", [True, False])
def test_a_flood_of_forgeries_costs_nobody_a_packet(shards: int, own: bool) -> None:
    survives(shards, 1.0, own=own)


@pytest.mark.slow
@pytest.mark.parametrize("own", [True, False])
def test_ten_seconds_of_flood(shards: int, own: bool) -> None:
    survives(shards, 10.0, own=own)
