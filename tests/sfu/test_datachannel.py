"""Data channels end to end in memory, and the caps around them (S13)."""

import asyncio
import itertools
import struct
import time
from collections import deque

import pytest
from aiortc.rtcdatachannel import RTCDataChannel, RTCDataChannelParameters
from google_crc32c import value as crc32c
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sfu.datachannel import MAX_CHANNELS, MAX_MESSAGE_BYTES, Channels
from sfu.description import ChannelSpec
from sfu.errors import ChannelGone, Refused
from sfu.protocol import MESSAGE_BACKLOG_BYTES


class End:
    """One end of an association, and what it was told."""

    def __init__(self, *, is_client: bool, ours: tuple[ChannelSpec, ...] = ()) -> None:
        self.wire: deque[bytes] = deque()
        self.opened: list[str] = []
        self.closed: list[str] = []
        self.messages: list[tuple[str, bytes, bool]] = []
        self.backlog = 0
        self.channels = Channels(
            self,
            self._send,
            is_client=is_client,
            remote_port=5_000,
            remote_max_message_bytes=MAX_MESSAGE_BYTES,
            ours=ours,
        )

    def _send(self, packet: bytes) -> bool:
        self.wire.append(packet)
        return True

    def channel_opened(self, channel: str) -> None:
        self.opened.append(channel)

    def channel_closed(self, channel: str) -> None:
        self.closed.append(channel)

    def message(self, channel: str, data: bytes, binary: bool) -> None:
        self.messages.append((channel, data, binary))

    def backlog_bytes(self) -> int:
        return self.backlog


async def carry(one: End, other: End, rounds: int = 50) -> None:
    for _ in range(rounds):
        await asyncio.sleep(0)
        for source, sink in ((one, other), (other, one)):
            while source.wire:
                sink.channels.receive(source.wire.popleft())


async def linked(*ours: ChannelSpec) -> tuple[End, End]:
    client, server = End(is_client=True), End(is_client=False, ours=ours)
    await carry(client, server)
    return client, server


async def close(*ends: End) -> None:
    for end in ends:
        end.channels.close()
    await asyncio.sleep(0)


async def test_channels_of_ours_open_and_carry_both_ways() -> None:
    client, server = await linked(ChannelSpec("_reliable"), ChannelSpec("_lossy", False, 0))
    assert client.opened == server.opened == ["_reliable", "_lossy"]
    server.channels.send("_lossy", b"down", binary=True)
    client.channels.send("_reliable", "up ü".encode(), binary=False)
    await carry(client, server)
    assert client.messages == [("_lossy", b"down", True)]
    assert server.messages == [("_reliable", "up ü".encode(), False)]
    await close(client, server)
    assert sorted(server.closed) == ["_lossy", "_reliable"]


async def test_unknown_channels_and_bad_text() -> None:
    client, server = await linked(ChannelSpec("c"))
    with pytest.raises(ChannelGone):
        server.channels.send("other", b"", binary=True)
    with pytest.raises(Refused):
        server.channels.send("c", b"\xff", binary=False)
    with pytest.raises(Refused):
        server.channels.send("c", bytes(MAX_MESSAGE_BYTES + 1), binary=True)
    await close(client, server)


async def test_more_channels_than_allowed_are_closed() -> None:
    specs = tuple(ChannelSpec(str(n)) for n in range(MAX_CHANNELS))
    client, server = await linked(*specs)
    RTCDataChannel(server.channels._sctp, RTCDataChannelParameters(label="one too many"))
    await carry(client, server)
    assert len(client.opened) == MAX_CHANNELS
    assert "one too many" not in client.opened
    await close(client, server)


async def test_a_message_above_the_cap_closes_its_channel() -> None:
    client, server = await linked(ChannelSpec("c"))
    server.channels._sctp._remote_max_message_size = 0  # as a peer that ignores what we told
    channel = server.channels._channels[0]
    channel.send(bytes(MAX_MESSAGE_BYTES + 1))
    await carry(client, server, 400)
    assert client.messages == []
    assert client.closed == ["c"]
    await close(client, server)


async def test_above_the_backlog_reliable_data_waits_and_lossy_is_lost() -> None:
    specs = (ChannelSpec("reliable"), ChannelSpec("lossy", False, 0))
    client, server = await linked(*specs)
    other_client, other = await linked(*specs)
    server.backlog = MESSAGE_BACKLOG_BYTES + 1
    client.channels.send("lossy", b"is lost", binary=True)
    client.channels.send("reliable", b"waits", binary=True)
    other_client.channels.send("lossy", b"of another peer", binary=True)
    await carry(client, server)
    await carry(other_client, other)
    assert server.messages == []
    assert other.messages == [("lossy", b"of another peer", True)]
    server.backlog = 0
    async with asyncio.timeout(10):  # the peer's own retransmission brings it
        while not server.messages:
            await carry(client, server, 1)
            await asyncio.sleep(0.02)
    # What was lost is given up by its sender (RFC 3758), and the channel goes on.
    client.channels.send("lossy", b"is heard", binary=True)
    async with asyncio.timeout(10):
        while len(server.messages) < 2:
            await carry(client, server, 1)
            await asyncio.sleep(0.02)
    assert server.messages == [("reliable", b"waits", True), ("lossy", b"is heard", True)]
    await close(client, server, other_client, other)


async def test_a_backlog_that_grows_within_a_packet_costs_lossy_messages_only() -> None:
    """Of one SCTP packet: the first message fills the backlog, those behind it find it full."""
    client, server = await linked(ChannelSpec("reliable"), ChannelSpec("lossy", False, 0))
    take = server.message

    def fill(channel: str, data: bytes, binary: bool) -> None:
        take(channel, data, binary)
        server.backlog = MESSAGE_BACKLOG_BYTES + 1

    server.message = fill  # type: ignore[method-assign]
    streams = {c.label: c.id for c in server.channels._channels}
    head = struct.pack("!HHI", 5_000, 5_000, server.channels._sctp._local_verification_tag)
    tsn = server.channels._sctp._last_received_tsn
    assert tsn is not None
    chunks = b""
    for n, label in enumerate(("lossy", "lossy", "reliable"), 1):
        # Unordered, whole, binary (RFC 9260 section 3.3.1, RFC 8831 section 8).
        body = struct.pack("!IHHI", tsn + n, streams[label], 0, 53) + b"%04d" % n
        chunks += struct.pack("!BBH", 0, 7, 4 + len(body)) + body
    checksum = struct.pack("<I", crc32c(head + bytes(4) + chunks))
    server.channels.receive(head + checksum + chunks)
    assert server.messages == [("lossy", b"0001", True), ("reliable", b"0003", True)]
    await close(client, server)


async def test_a_slow_reader_is_refused() -> None:
    """Of either so much is queued; what is too much of reliable data is refused, of lossy data lost."""
    client, server = await linked(ChannelSpec("reliable"), ChannelSpec("lossy", False, 0))
    other_client, other = await linked(ChannelSpec("lossy", False, 0))
    seconds = itertools.count(time.monotonic())
    client.channels._clock = lambda: next(seconds)  # a peer has no limit to what we may bring
    fits = MESSAGE_BACKLOG_BYTES // 60_000
    for n in range(40):
        server.channels.send("lossy", bytes([n]) * 60_000, binary=True)
    queued = {c.label: c.bufferedAmount for c in server.channels._channels}
    assert queued == {"reliable": 0, "lossy": fits * 60_000}
    for _ in range(fits):
        server.channels.send("reliable", bytes(60_000), binary=True)
    with pytest.raises(Refused):
        server.channels.send("reliable", bytes(60_000), binary=True)
    server.channels.send("lossy", bytes(60_000), binary=True)
    # Who reads is not behind one who does not.
    other.channels.send("lossy", b"of another peer", binary=True)
    await carry(other_client, other)
    assert other_client.messages == [("lossy", b"of another peer", True)]
    # The reader comes back: all of the reliable data, and of the lossy data what was queued.
    async with asyncio.timeout(30):
        while any(c.bufferedAmount for c in server.channels._channels):
            await carry(client, server, 1)
    await carry(client, server)
    assert [data for label, data, _ in client.messages if label == "reliable"] == [
        bytes(60_000)
    ] * fits
    lossy = [data[0] for label, data, _ in client.messages if label == "lossy"]
    assert lossy == list(range(fits))
    await close(client, server, other_client, other)


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.binary(max_size=100), max_size=8), st.binary(max_size=60))
def test_any_packet_is_survived(packets: list[bytes], tail: bytes) -> None:
    async def run() -> None:
        client, server = await linked(ChannelSpec("c"))
        tag = server.channels._sctp._local_verification_tag.to_bytes(4, "big")
        for packet in packets:
            server.channels.receive(packet)
            # With the right tag and checksum it reaches the chunk handlers.
            body = b"\x13\x88\x13\x88" + tag + bytes(4) + packet + tail
            checksum = crc32c(body).to_bytes(4, "little")
            server.channels.receive(body[:8] + checksum + body[12:])
        await carry(client, server, 5)
        await close(client, server)

    asyncio.run(run())
