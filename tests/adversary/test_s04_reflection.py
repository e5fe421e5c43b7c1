"""S4: unauthenticated UDP makes no state and draws no answer; the port is no reflector.

The property "strangers get nothing" over arbitrary datagrams runs on virtual time in
engine/core/src/plane/tests.rs; this is the built module on a real socket.
"""

import os
import random
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.adversary.conftest import SHARDS
from tests.adversary.media import (
    CONTROLLING,
    PRIORITY,
    QUIET_S,
    REQUEST,
    SILENCE,
    USERNAME,
    Credentials,
    Peer,
    Rig,
    Wire,
    check,
    client_hello,
    rig,
    rtp,
    stun,
)

MEBIBYTE = 1 << 20


@pytest.fixture
def under_test(shards: int) -> Iterator[Rig]:
    with rig(shards=shards) as one:
        yield one


def resident_bytes() -> int:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def strange_checks(server: Credentials) -> list[bytes]:
    user = (USERNAME, f"{server.ufrag}:abcd".encode())
    role = (CONTROLLING, bytes(8))
    signed = check(server, Credentials.fresh())
    return [
        stun(REQUEST),
        stun(REQUEST, user),
        stun(REQUEST, user, (PRIORITY, bytes(4)), role),
        stun(REQUEST, user, role, pwd="wrong password of 22 c"),
        stun(REQUEST, (USERNAME, b"nobody:abcd"), role, pwd=server.pwd),
        stun(REQUEST, (USERNAME, b"\xff" * 513), pwd=server.pwd),
        stun(0x0003, user, pwd=server.pwd),  # Allocate: no TURN here
        stun(0x0101, user, pwd=server.pwd),  # a response that nobody asked for
        stun(0x0111, user, pwd=server.pwd),
        signed[:-4] + bytes(4),  # a broken fingerprint
        signed[:40],
        signed + b"\x00" * 4,
        client_hello(),
        rtp(1, 1),
        b"\x40" + bytes(20),  # a TURN channel number
        b"",
    ]


def test_no_stranger_draws_an_answer(under_test: Rig) -> None:
    server = Peer(under_test).server
    stranger = Wire(under_test.address)
    for datagram in strange_checks(server):
        stranger.send(datagram)
    assert stranger.receive(QUIET_S) == SILENCE
    drops = under_test.counters("drops")
    assert drops["unknown_ufrag"] >= 1
    assert drops["bad_integrity"] >= 3


def test_an_honest_check_gets_no_more_bytes_than_it_sent(under_test: Rig) -> None:
    peer = Peer(under_test)
    for _ in range(50):
        peer.check()
    assert peer.receive(QUIET_S) == SILENCE
    assert peer.wire.bytes_in <= peer.wire.bytes_out


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(datagram=st.binary(max_size=1400), shape=st.integers(0, 3))
def test_bytes_out_never_exceed_bytes_in(
    reused: tuple[Wire, Rig], datagram: bytes, shape: int
) -> None:
    wire, _ = reused
    header = struct.pack("!HHI", 1, len(datagram) // 4 * 4, 0x2112A442)
    shaped = [
        datagram,
        header + datagram[: len(datagram) // 4 * 4],
        b"\x16" + datagram,
        b"\x80" + datagram,
    ]
    wire.send(shaped[shape])
    assert wire.receive(0) == SILENCE


@pytest.fixture(scope="module", params=SHARDS)
def reused(request: pytest.FixtureRequest) -> Iterator[tuple[Wire, Rig]]:
    with rig(shards=request.param) as one:
        Peer(one)
        yield Wire(one.address), one


def flood(under_test: Rig, count: int) -> None:
    """Random datagrams, and random checks for the right ufrag, from a few sockets."""
    server = Peer(under_test).server
    source = random.Random(4)
    shapes = [source.randbytes(source.randrange(0, 1200)) for _ in range(200)]
    shapes += [
        check(server, Credentials.fresh(), pwd=source.randbytes(12).hex()) for _ in range(100)
    ]
    shapes += [d for d in strange_checks(server) if d]
    wires = [Wire(under_test.address) for _ in range(8)]
    for at in range(20_000):  # warm: allocator, counters, socket buffers
        wires[at % 8].send(shapes[at % len(shapes)])
    time.sleep(0.5)
    before = resident_bytes()
    for at in range(count):
        wires[at % 8].send(shapes[at % len(shapes)])
    time.sleep(0.5)
    grown = resident_bytes() - before
    assert grown <= MEBIBYTE, f"{grown} bytes more after {count} datagrams"
    assert all(wire.receive(0) == SILENCE for wire in wires)
    statistics = under_test.engine.statistics()
    assert [row[1]["packets_out"] for row in statistics["transports"]] == [0]
    assert not under_test.engine.poll()


def test_a_flood_makes_no_state(under_test: Rig) -> None:
    flood(under_test, 100_000)


@pytest.mark.slow
def test_a_million_datagrams_make_no_state(under_test: Rig) -> None:
    flood(under_test, 1_000_000)
