"""Real browsers behind networks that get in the way: no UDP, only TURN, only IPv6, a NAT that forgets, a restart.

MP4, MP5, MP8, MP9, R9, R10, N12. The page is ours (livekit-client); each test prints what it measured.
Not here: the rules of each part (tests/engine/test_ice_tcp.py, tests/engine/test_moves.py), loss (the emulator).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.peers import guestpage, networks
from tests.peers.browser import Browser, Look, hears, open_browser
from tests.peers.parley import Parley
from tests.peers.synapse import free_port

pytestmark = [pytest.mark.peers, pytest.mark.timeout(240)]

ANN, BEN = Look(520, (200, 40, 40)), Look(900, (40, 60, 200))
DEMO = {"conferences": [{"slug": "demo", "title": "Demo"}]}
MEET_S = 20.0


async def _within(wait_s: float, look: Callable[[], Awaitable[bool]], what: str) -> float:
    """How long it took (s)."""
    began = time.monotonic()
    while time.monotonic() - began < wait_s:
        if await look():
            return time.monotonic() - began
        await asyncio.sleep(0.1)
    raise AssertionError(f"{what}: not within {wait_s:.0f} s")


async def _meet(one: Browser, other: Look) -> None:
    async def heard() -> bool:
        return hears(await one.peaks(), other.tone_hz)

    await _within(MEET_S, heard, "the other's tone")
    await _within(MEET_S, lambda: one.sees(other.rgb), "the other's colour")


async def _join_both(parley: Parley, ann: Browser, ben: Browser) -> None:
    await guestpage.join(ann, await parley.invite("demo"), "Ann")
    await guestpage.join(ben, await parley.invite("demo"), "Ben")
    await _meet(ann, BEN)
    await _meet(ben, ANN)


async def _selected(browser: Browser) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = await browser.page.evaluate("window.__selected()")
    assert rows
    return rows


@pytest.mark.parametrize("shards", [1, 2])
async def test_without_udp_media_goes_over_tcp(tmp_path: Path, shards: int) -> None:
    """MP5, N12: no TURN server, no UDP. Connections come to one thread and may belong to another."""
    media = {"listen": ["127.0.0.1"], "port": 0, "shards": shards}
    async with (
        Parley(tmp_path / "parley", {**DEMO, "media": media}) as parley,
        open_browser(ANN, storage=networks.without_udp()) as ann,
        open_browser(BEN, storage=networks.plain()) as ben,
    ):
        began = time.monotonic()
        await _join_both(parley, ann, ben)
        print(f"\nUDP blocked: both hear and see after {time.monotonic() - began:.1f} s")
        assert {row["protocol"] for row in await _selected(ann)} == {"tcp"}
        assert {row["protocol"] for row in await _selected(ben)} == {"udp"}
        before = sum(row["received"] for row in await ann.reception())
        await asyncio.sleep(3)
        rows = await ann.reception()
        assert sum(row["received"] for row in rows) - before > 100
        assert sum(row["lost"] for row in rows) == 0


@pytest.mark.skipif(not networks.has_turn(), reason="no coturn here (packages.txt)")
async def test_a_client_that_may_only_use_turn(tmp_path: Path) -> None:
    """MP8, S17: the credentials come with the join."""
    async with (
        networks.turn(tmp_path / "turn") as turn,
        Parley(tmp_path / "parley", {**DEMO, "turn": turn.section}) as parley,
        open_browser(ANN, storage=networks.relay_only()) as ann,
        open_browser(BEN, storage=networks.plain()) as ben,
    ):
        await _join_both(parley, ann, ben)
        assert {row["type"] for row in await _selected(ann)} == {"relay"}
        assert {row["type"] for row in await _selected(ben)} <= {"host", "prflx"}


async def test_a_conference_on_ipv6_alone(tmp_path: Path) -> None:
    """MP9."""
    media = {"listen": ["::1"], "port": 0}
    async with (
        Parley(tmp_path / "parley", {**DEMO, "media": media}) as parley,
        open_browser(ANN, storage=networks.plain()) as ann,
        open_browser(BEN, storage=networks.plain()) as ben,
    ):
        await _join_both(parley, ann, ben)
        for browser in (ann, ben):
            assert {row["remote"].strip("[]") for row in await _selected(browser)} == {"::1"}


async def test_a_nat_that_forgets_costs_less_than_three_seconds(tmp_path: Path) -> None:
    """R9: the client's outer port changes three times in a call; nothing is signalled."""
    port = free_port()
    media = {"listen": ["127.0.0.1"], "port": port}
    async with (
        networks.nat(port) as nat,
        Parley(tmp_path / "parley", {**DEMO, "media": media}) as parley,
        open_browser(ANN, storage=networks.behind(nat.port)) as ann,
        open_browser(BEN, storage=networks.plain()) as ben,
    ):
        await _join_both(parley, ann, ben)
        connections = await ann.connections()
        gaps: list[dict[str, float]] = []
        for _ in range(3):
            await asyncio.sleep(4)
            watches = [asyncio.create_task(_longest_gap(one, 6.0)) for one in (ann, ben)]
            await asyncio.sleep(0.5)
            await nat.rebind()
            down, up = await asyncio.gather(*watches)
            gaps.append({"down_s": down, "up_s": up})
        print(f"\nNAT rebinding, longest silence: {gaps}")
        assert max(gap for row in gaps for gap in row.values()) < 3.5
        # N9: with 48 bytes of IPv6 and UDP, what a path of 1,280 carries. Packets of others are forwarded whole.
        print(f"largest datagram of ours: {nat.largest_bytes} bytes")
        assert 0 < nat.largest_bytes <= 1_232
        assert await ann.connections() == connections, "joined again instead"
        await _meet(ann, BEN)
        await _meet(ben, ANN)


async def _longest_gap(browser: Browser, watch_s: float) -> float:
    """Of audio packets received, in seconds, looked at every 20 ms."""
    gap_ms: float = await browser.page.evaluate(
        """async (watch) => {
          const count = async () => {
            let packets = 0;
            for (const connection of window.__probe.connections)
              for (const receiver of connection.getReceivers())
                if (receiver.track.kind === 'audio')
                  for (const row of (await receiver.getStats()).values())
                    if (row.type === 'inbound-rtp') packets += row.packetsReceived;
            return packets;
          };
          const end = performance.now() + watch * 1000;
          let last = await count(), since = performance.now(), longest = 0;
          while (performance.now() < end) {
            await new Promise((done) => setTimeout(done, 20));
            const now = performance.now(), packets = await count();
            longest = Math.max(longest, now - since);
            if (packets !== last) { last = packets; since = now; }
          }
          return longest;
        }""",
        watch_s,
    )
    return round(gap_ms / 1000, 2)


async def test_an_ice_restart_costs_no_packet(tmp_path: Path) -> None:
    """MP4, R10: the signalling socket breaks, the client resumes with new ICE credentials; DTLS and tracks stay."""
    async with (
        Parley(tmp_path / "parley", DEMO) as parley,
        open_browser(ANN, storage=networks.plain()) as ann,
        open_browser(BEN, storage=networks.plain()) as ben,
    ):
        await _join_both(parley, ann, ben)
        await asyncio.sleep(2)
        before = {row["ufrag"] for row in await _selected(ann)}
        lost = [sum(row["lost"] for row in await one.reception()) for one in (ann, ben)]
        ssrcs = {row["ssrc"] for row in await ann.reception()}
        watches = [asyncio.create_task(_longest_gap(one, 8.0)) for one in (ann, ben)]
        await ann.page.evaluate("window.__sockets.forEach((socket) => socket.close())")

        async def restarted() -> bool:
            return not before & {row["ufrag"] for row in await _selected(ann)}

        took = await _within(8, restarted, "new ICE credentials in use")
        gaps = await asyncio.gather(*watches)
        print(f"\nICE restart: new pair after {took:.2f} s, longest silence down and up {gaps} s")
        assert max(gaps) < 0.5
        for browser, known in zip((ann, ben), lost, strict=True):
            assert sum(row["lost"] for row in await browser.reception()) == known
        assert {row["ssrc"] for row in await ann.reception()} == ssrcs
        assert {row["dtls"] for row in await _selected(ann)} == {"connected"}
