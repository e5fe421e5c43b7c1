"""N9: what the worker itself makes fits a path of 1,280 bytes: handshakes and data channels."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sfu import protocol
from sfu.description import ChannelSpec
from tests.sfu.live import PROFILE, Peer, owner, peer, worker

pytestmark = pytest.mark.timeout(60)

LARGEST_BYTES = 1_200
MESSAGE_BYTES = 60_000


def record(one: Peer, sizes: list[int]) -> None:
    """Note every datagram that this peer takes from its ICE transport."""
    transport: Any = next(iter(one.pc._RTCPeerConnection__iceTransports))  # type: ignore[attr-defined]
    take = transport._recv

    async def recording() -> bytes:
        data: bytes = await take()
        sizes.append(len(data))
        return data

    transport._recv = recording


async def test_nothing_of_ours_is_above_1200_bytes(tmp_path: Path) -> None:
    profile = replace(PROFILE, channels=(ChannelSpec("down"),))
    sizes: list[int] = []
    received = asyncio.Event()
    async with worker(tmp_path) as options, owner(options) as own, peer(own, "ann", profile) as ann:
        ann.pc.createDataChannel("up")

        def opened(channel: Any) -> None:
            def message(data: bytes) -> None:
                assert len(data) == MESSAGE_BYTES
                received.set()

            channel.on("message", message)

        ann.pc.on("datachannel", opened)
        await ann.pc.setLocalDescription(await ann.pc.createOffer())
        record(ann, sizes)
        await ann.offer()
        await ann.is_connected()
        await own.see(lambda e: e == protocol.ChannelOpened("ann", "down"))
        await own.ask(protocol.Send("ann", "down", bytes(MESSAGE_BYTES)))
        await asyncio.wait_for(received.wait(), 10)
    assert sum(sizes) > MESSAGE_BYTES
    assert max(sizes) > 1_000  # large ones were seen, and
    assert max(sizes) <= LARGEST_BYTES
