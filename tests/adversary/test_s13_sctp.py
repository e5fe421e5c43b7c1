"""S13: what an authenticated peer may do to the data channels of its own session, and to nobody else.

Zero-length chunks (CVE-2021-3655's class), SCTP before DTLS, channel floods, giant and endless messages,
acknowledgements of what was never sent, floods, and readers that do not read.
"""

import itertools
import os
import struct
import time
from pathlib import Path

import pytest
from aiortc.rtcdatachannel import RTCDataChannel, RTCDataChannelParameters
from google_crc32c import value as crc32c
from hypothesis import given
from hypothesis import strategies as st

from sfu import client as sfu_client
from sfu import protocol
from sfu.allowance import Allowance
from sfu.client import Client
from sfu.datachannel import (
    MAX_CHANNELS,
    PEER_BYTES_PER_S,
    SLOW_READER_S,
    TOTAL_BACKLOG_BYTES,
)
from sfu.description import ChannelSpec, Malformed
from sfu.errors import ChannelGone, Refused
from sfu.lock import holder
from sfu.sctp import look
from tests.adversary.media import QUIET_S, SILENCE, Peer, rig
from tests.sfu.live import owner, peer, worker
from tests.sfu.test_datachannel import End, carry, close, linked

DATA, SACK, HEARTBEAT, FORWARD_TSN = 0, 3, 4, 192
WHOLE = 3  # flags: first and last fragment
BINARY = 53
MEBIBYTE = 1 << 20
CPU_S = 0.2  # what a hundred of the dearest packets may cost, on a busy machine


def chunk(kind: int, body: bytes, *, flags: int = 0, length: int | None = None) -> bytes:
    head = struct.pack("!BBH", kind, flags, 4 + len(body) if length is None else length)
    return head + body + bytes(-len(body) % 4)


def data(
    tsn: int, payload: bytes, *, stream: int = 0, flags: int = WHOLE, kind: int = BINARY
) -> bytes:
    return chunk(
        DATA, struct.pack("!IHHI", tsn & 0xFFFFFFFF, stream, 0, kind) + payload, flags=flags
    )


def packet(to: End, *chunks: bytes) -> bytes:
    """With the right tag and checksum."""
    head = struct.pack("!HHI", 5_000, 5_000, to.channels._sctp._local_verification_tag)
    body = b"".join(chunks)
    return head + struct.pack("<I", crc32c(head + bytes(4) + body)) + body


def stream_of(to: End) -> int:
    stream = to.channels._channels[0].id
    assert stream is not None
    return stream


def next_tsn(to: End) -> int:
    last = to.channels._sctp._last_received_tsn
    assert last is not None
    return last + 1


async def still_works(client: End, server: End) -> None:
    client.channels.send("c", b"alive", binary=True)
    await carry(client, server)
    assert server.messages[-1] == ("c", b"alive", True)


# --- lengths


@pytest.mark.parametrize("kind", [DATA, SACK, HEARTBEAT, FORWARD_TSN, 1, 6, 10, 130, 255])
@pytest.mark.parametrize("length", [0, 1, 3, 5, 17, 0xFFFF])
async def test_chunks_of_impossible_length_are_dropped_at_once(kind: int, length: int) -> None:
    client, server = await linked(ChannelSpec("c"))
    began = time.process_time()
    for _ in range(100):
        server.channels.receive(packet(server, chunk(kind, b"", length=length), bytes(1_100)))
    assert time.process_time() - began < CPU_S
    await still_works(client, server)
    await close(client, server)


@given(st.binary(max_size=1_200))
def test_any_packet_has_a_look_or_is_malformed(packet: bytes) -> None:
    try:
        asked = look(packet)
    except Malformed:
        return
    assert asked.acknowledged <= 300 * 65_536
    assert asked.has_data == (asked.charge_bytes > 0)


def test_an_acknowledgement_is_counted_before_it_is_believed() -> None:
    gaps = struct.pack("!HH", 1, 65_535) * 200
    sack = chunk(SACK, struct.pack("!IIHH", 1, 1, 200, 0) + gaps)
    assert look(bytes(12) + sack).acknowledged == 200 * 65_535


async def test_acknowledging_what_was_never_sent_costs_nothing() -> None:
    """Unguarded, one such packet keeps aiortc busy for seconds."""
    client, server = await linked(ChannelSpec("c"))
    gaps = struct.pack("!HH", 1, 65_535) * 200
    tsn = server.channels._sctp._last_sacked_tsn
    lie = packet(server, chunk(SACK, struct.pack("!IIHH", tsn, 1 << 20, 200, 0) + gaps))
    began = time.process_time()
    for _ in range(100):
        server.channels.receive(lie)
    assert time.process_time() - began < CPU_S
    await still_works(client, server)
    await close(client, server)


# --- before DTLS


def test_sctp_outside_dtls_reaches_nobody(shards: int) -> None:
    """Not even from a validated 5-tuple; inside DTLS it waits for the fingerprint (tests/sfu/test_dtls.py)."""
    with rig(shards=shards) as one:
        a = Peer(one)
        a.check(nominate=True)
        one.wait_for("validated", a.transport)
        init = chunk(1, struct.pack("!IIHHI", 1, 1 << 20, 1, 1, 1))
        for _ in range(20):
            a.wire.send(struct.pack("!HHI", 5_000, 5_000, 0) + bytes(4) + init)
        assert a.receive(QUIET_S) == SILENCE
        assert not one.find("datagram", a.transport)
        assert one.wait_for_counter("drops", 0, "malformed", 20) == 20


# --- channels and messages


def opening(tsn: int, stream: int, label: bytes = b"x") -> bytes:
    body = struct.pack("!BBHLHH", 3, 0, 0, 0, len(label), 0) + label
    return data(tsn, body, stream=stream, kind=50)


async def test_a_seventeenth_channel_is_refused_and_a_flood_ends_the_association() -> None:
    client, server = await linked(ChannelSpec("c"))
    first = next_tsn(server)
    for n in range(MAX_CHANNELS + 4):
        server.channels.receive(packet(server, opening(first + n, 100 + n, b"%d" % n)))
    # Ours is one of the sixteen.
    assert server.opened == ["c", *(str(n) for n in range(MAX_CHANNELS - 1))]
    assert not server.closed
    for n in range(MAX_CHANNELS + 4, 100):
        server.channels.receive(packet(server, opening(first + n, 100 + n)))
    assert sorted(server.closed) == sorted(server.opened)
    await close(client, server)


async def test_an_endless_message_ends_the_association() -> None:
    """Its fragments have a bound of their own: tiny ones never fill the receive window."""
    client, server = await linked(ChannelSpec("c"))
    now = itertools.count(time.monotonic(), 1.0)
    server.channels._clock = lambda: next(now)  # no rate limit
    began, first = time.process_time(), next_tsn(server)
    flags = itertools.chain([2], itertools.repeat(0))  # a first fragment, then middle ones
    for n in range(0, 2_200, 50):
        fragments = [data(first + n + k, b"x", flags=next(flags), stream=1) for k in range(50)]
        server.channels.receive(packet(server, *fragments))
    assert server.closed == ["c"]
    assert time.process_time() - began < 10 * CPU_S
    await close(client, server)


async def test_chunks_behind_a_hole_are_bounded_and_the_hole_can_be_closed() -> None:
    client, server = await linked(ChannelSpec("c"))
    now = itertools.count(time.monotonic(), 1.0)
    server.channels._clock = lambda: next(now)
    first, stream = next_tsn(server), stream_of(server)
    for n in range(1, 3_000):
        server.channels.receive(
            packet(server, data(first + n, b"x", flags=WHOLE | 4, stream=stream))
        )
    assert len(server.channels._sctp._sack_misordered) <= 512
    assert not server.closed
    server.channels.receive(packet(server, data(first, b"x", flags=WHOLE | 4, stream=stream)))
    assert not server.channels._sctp._sack_misordered
    assert 500 < len(server.messages) <= 513
    await close(client, server)


async def test_streams_that_nobody_opened_are_bounded() -> None:
    client, server = await linked(ChannelSpec("c"))
    first = next_tsn(server)
    for n in range(200):
        server.channels.receive(packet(server, data(first + n, b"x", stream=300 + n)))
    assert server.closed == ["c"]
    await close(client, server)


# --- floods and slow readers


async def test_a_peer_brings_a_mebibyte_per_second() -> None:
    client, server = await linked(ChannelSpec("c"))
    now = time.monotonic()
    server.channels._clock = lambda: now
    stream = stream_of(server)

    def bring(packets: int) -> None:
        for _ in range(packets):
            whole = data(next_tsn(server), bytes(1_100), stream=stream, flags=WHOLE | 4)
            server.channels.receive(packet(server, whole))

    bring(5_000)
    taken = sum(len(m[1]) for m in server.messages)
    assert 0.9 * PEER_BYTES_PER_S < taken <= PEER_BYTES_PER_S, "the burst of one second"
    now += 0.5
    bring(5_000)
    more = sum(len(m[1]) for m in server.messages) - taken
    assert 0.4 * PEER_BYTES_PER_S < more <= 0.51 * PEER_BYTES_PER_S
    assert not server.closed
    await close(client, server)


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(1, 2_000)), max_size=50))
def test_an_allowance_never_gives_more_than_rate_and_burst(asked: list[tuple[float, int]]) -> None:
    now = taken = 0.0
    allowance = Allowance(per_s=1_000, burst=1_500, now=now)
    for wait_s, units in asked:
        now += wait_s
        taken += units if allowance.take(units, now) else 0
        assert taken <= 1_500 + 1_000 * now + 1e-6


async def test_sixteen_slow_channels_are_one_slow_peer() -> None:
    specs = tuple(ChannelSpec(str(n)) for n in range(MAX_CHANNELS))
    client, server = await linked(*specs)
    for spec in specs:
        try:
            while True:
                server.channels.send(spec.label, bytes(60_000), binary=True)
        except Refused:
            pass
    waiting = sum(c.bufferedAmount for c in server.channels._channels)
    assert waiting <= TOTAL_BACKLOG_BYTES
    await close(client, server)


async def test_a_reader_that_stays_slow_loses_its_channel() -> None:
    client, server = await linked(ChannelSpec("c"))
    now = 0.0
    server.channels._clock = lambda: now
    for _ in range(100):
        try:
            server.channels.send("c", bytes(60_000), binary=True)
        except Refused:
            now += 0.5
        except ChannelGone:
            break
    assert SLOW_READER_S < now <= SLOW_READER_S + 1.0
    with pytest.raises(ChannelGone):
        server.channels.send("c", b"", binary=True)
    await close(client, server)


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_a_real_slow_reader_costs_the_worker_little(tmp_path: Path, shards: int) -> None:
    """Twenty times what may wait is offered to a peer whose SCTP hears nothing any more."""
    running = worker(tmp_path, shards)
    async with running as options, owner(options) as one, peer(one, "ann") as ann:
        channel = ann.pc.createDataChannel("chat")
        assert isinstance(channel, RTCDataChannel)
        await ann.offer()
        await one.see(lambda e: e == protocol.ChannelOpened("ann", "chat"))
        pid = holder(options.lock)
        assert pid is not None

        async def deaf(_packet: bytes) -> None:
            return

        ann.pc.sctp._handle_data = deaf  # type: ignore[method-assign]
        before = resident_bytes(pid)
        refused = 0
        for _ in range(20 * 20):
            refused += await was_refused(
                one.client, protocol.Send("ann", "chat", bytes(50_000), True)
            )
        assert refused > 300
        assert resident_bytes(pid) - before <= 8 * MEBIBYTE


async def was_refused(client: Client, command: protocol.Command) -> bool:
    try:
        await client.request(command)
    except (sfu_client.Refused, sfu_client.ChannelGone):
        return True
    return False


async def test_labels_longer_than_allowed_are_refused() -> None:
    client, server = await linked(ChannelSpec("c"))
    RTCDataChannel(client.channels._sctp, RTCDataChannelParameters(label="l" * 300))
    await carry(client, server)
    assert server.opened == ["c"]
    await close(client, server)
