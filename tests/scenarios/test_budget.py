"""MP32: a native SDK client says how much it wants to be sent, and gets no more until it takes that back.

Not here: the same in virtual time, with every kind of feedback (engine/core/src/media/tests/network/sharing.rs).
"""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.peers.parley import Parley
from tests.peers.process import PeerProcess
from tests.scenarios.test_livekit_loop import token

pytestmark = [pytest.mark.peers, pytest.mark.timeout(180)]

BUDGET_BPS = 500_000
MUCH_BPS = 800_000  # the top layer is twice as much
OVERHEAD_BYTES = (
    28 + 12 + 24 + 16
)  # IP and UDP, RTP, extensions, SRTP: what inbound-rtp does not count


@pytest.fixture
async def parley(tmp_path: Path) -> AsyncIterator[Parley]:
    media = {"listen": ["127.0.0.1"], "port": 0}
    async with Parley(tmp_path / "parley", {"media": media}) as server:
        yield server


def _peer(parley: Parley, folder: Path, name: str, *options: str) -> PeerProcess:
    arguments = ["--url", parley.ws_url, "--token", token(parley, name), *options]
    return PeerProcess("tests.peers.watcher", arguments, folder / f"{name}.log")


async def _received_bps(peer: PeerProcess, over_s: float) -> float:
    """Everything, headers included."""

    async def total() -> tuple[float, float]:
        (sample,) = await peer.ask("samples", after=-1)
        kinds = [sample[kind] for kind in ("audio", "video") if kind in sample]
        size = sum(row["bytes"] + OVERHEAD_BYTES * row["received"] for row in kinds)
        return sample["at"], size

    began, before = await total()
    await asyncio.sleep(over_s)
    ended, after = await total()
    return 8 * (after - before) / (ended - began)


async def _gets_much(peer: PeerProcess, within_s: float) -> None:
    end = time.monotonic() + within_s
    while (bps := await _received_bps(peer, 2)) < MUCH_BPS:
        assert time.monotonic() < end, f"{bps:.0f} bit/s after {within_s:.0f} s"


async def test_a_budget_is_kept_and_lifted(parley: Parley, tmp_path: Path) -> None:
    async with (
        _peer(parley, tmp_path, "camera", "--show", "960x540@15") as camera,
        _peer(parley, tmp_path, "thrifty") as thrifty,
        _peer(parley, tmp_path, "other") as other,
    ):
        for peer in (thrifty, other):
            await _gets_much(peer, 40)
        await thrifty.ask("budget", bps=BUDGET_BPS)
        await asyncio.sleep(3)
        rates = [await _received_bps(thrifty, 2) for _ in range(4)]
        assert max(rates) <= BUDGET_BPS, rates
        assert min(rates) >= 50_000, f"there is still a picture: {rates}"
        await _gets_much(other, 2)
        await thrifty.ask("budget", bps=None)
        await _gets_much(thrifty, 20)
        for peer in (camera, other):
            happened = [note["what"] for note in await peer.ask("happened")]
            assert "data" not in happened, "a budget is the server's alone"
