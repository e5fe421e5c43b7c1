"""MP34: layers that nobody watches are switched off at the publisher, with the native LiveKit SDK on both sides.

A publisher without dynacast sends on, whatever we tell it.
Not here: which wish means which layer (tests/sfu/test_layers.py), the message itself (tests/gateways/livekit).
"""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from livekit import api

from sfu.layers import LOWER_AFTER_S
from tests.peers.parley import Parley
from tests.peers.process import PeerProcess

pytestmark = [pytest.mark.peers, pytest.mark.timeout(180)]

ALL = {"q", "h", "f"}
LOOK_S = 0.7  # longer than between two pictures of a busy encoder
POLL_S = 0.05
LOW, HIGH = 0, 2
# The row: off within 2 s, back within 1 s. Both ends encode here, on a machine that may do other things too.
LOAD_S = 0.3
OFF_S, BACK_S = 2.0 + LOAD_S, 1.0 + LOAD_S


@pytest.fixture
async def parley(tmp_path: Path) -> AsyncIterator[Parley]:
    async with Parley(tmp_path / "parley") as server:
        yield server


def _client(parley: Parley, folder: Path, name: str, *arguments: str) -> PeerProcess:
    token = (
        api.AccessToken(parley.api_key, parley.api_secret)
        .with_identity(name)
        .with_grants(api.VideoGrants(room_join=True, room="layers"))
        .to_jwt()
    )
    first = ["--url", parley.ws_url, "--token", token, "--no-audio"]
    return PeerProcess("tests.peers.native", [*first, *arguments], folder / f"{name}.log")


async def _sending(peer: PeerProcess) -> set[str]:
    """Layers that grow."""
    before = await peer.ask("layers_sent")
    await asyncio.sleep(LOOK_S)
    after = await peer.ask("layers_sent")
    return {rid for rid, packets in after.items() if packets > before.get(rid, 0)}


async def _until_sending(peer: PeerProcess, layers: set[str], wait_s: float) -> None:
    """Until exactly these layers grow."""
    began = time.monotonic()
    seen: set[str] = set()
    while time.monotonic() - began < wait_s:
        seen = await _sending(peer)
        if seen == layers:
            return
    raise AssertionError(f"sends {seen}, not {layers}, after {wait_s:.0f} s")


async def _until_off(peer: PeerProcess, layers: set[str]) -> float:
    """Seconds until the last packet of any of these layers."""
    began = at = last = time.monotonic()
    sent = await peer.ask("layers_sent")
    while at - last < LOOK_S or at - began < OFF_S:
        await asyncio.sleep(POLL_S)
        now_sent, at = await peer.ask("layers_sent"), time.monotonic()
        if any(now_sent.get(rid, 0) > sent.get(rid, 0) for rid in layers):
            last = at
            assert last - began < OFF_S, f"{layers}: still sent after {last - began:.1f} s"
        sent = now_sent
    return last - began


async def _until_back(peer: PeerProcess, layers: set[str]) -> float:
    """Seconds until the first packets of all of these layers."""
    began = time.monotonic()
    sent = await peer.ask("layers_sent")
    while True:
        now_sent, took_s = await peer.ask("layers_sent"), time.monotonic() - began
        missing = {rid for rid in layers if now_sent.get(rid, 0) <= sent.get(rid, 0)}
        assert took_s < BACK_S, f"{missing or layers}: not yet sent after {took_s:.1f} s"
        if not missing:
            return took_s
        await asyncio.sleep(POLL_S)


async def test_unwatched_layers_end_at_the_publisher_and_come_back_on_demand(
    parley: Parley, tmp_path: Path
) -> None:
    async with (
        _client(parley, tmp_path, "ann", "--size", "960x540", "--simulcast", "--dynacast") as ann,
        _client(parley, tmp_path, "bob", "--no-video") as bob,
    ):
        await _until_sending(ann, ALL, 30)
        await bob.ask("prefer", quality=LOW)
        down_s = await _until_off(ann, {"h", "f"})
        assert await _sending(ann) == {"q"}
        await bob.ask("prefer", quality=HIGH)
        up_s = await _until_back(ann, {"h", "f"})
        await bob.ask("prefer", quality=None)
        off_s = await _until_off(ann, ALL)
        await bob.ask("prefer", quality=HIGH)
        on_s = await _until_back(ann, ALL)
        print(f"down {down_s:.2f} s, up {up_s:.2f} s, off {off_s:.2f} s, on {on_s:.2f} s")


async def test_a_publisher_without_dynacast_is_left_alone(parley: Parley, tmp_path: Path) -> None:
    async with (
        _client(parley, tmp_path, "ann", "--size", "960x540", "--simulcast") as ann,
        _client(parley, tmp_path, "bob", "--no-video") as bob,
    ):
        await _until_sending(ann, ALL, 30)
        await bob.ask("prefer", quality=LOW)
        await asyncio.sleep(LOWER_AFTER_S + 1)
        await _until_sending(ann, ALL, 5)
