"""The livekit gateway and a real browser SDK: our page (livekit-client), a native client, a killed parley.

A browser resumes after a kill of parley: its connection, its tracks and its sids stay.
Not here: Matrix and XMPP (test_three_worlds), the page as such.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.peers import guestpage
from tests.peers.browser import Browser, Look, hears, open_browser
from tests.peers.parley import Parley

pytestmark = [pytest.mark.peers, pytest.mark.timeout(240)]

ANN, BEN = Look(520, (200, 40, 40)), Look(900, (40, 60, 200))
PACKETS = """
async () => {
  let packets = 0, lost = 0;
  for (const connection of window.__probe.connections) {
    if (connection.connectionState !== 'connected') continue;
    for (const report of (await connection.getStats()).values()) {
      if (report.type === 'inbound-rtp') { packets += report.packetsReceived; lost += report.packetsLost; }
    }
  }
  const live = window.__probe.connections.filter((c) => c.connectionState === 'connected').length;
  return { packets, lost, live, all: window.__probe.connections.length };
}
"""


async def _within(wait_s: float, look: Callable[[], Awaitable[bool]], what: str) -> None:
    began = time.monotonic()
    while time.monotonic() - began < wait_s:
        if await look():
            return
        await asyncio.sleep(0.25)
    raise AssertionError(f"{what}: not within {wait_s:.0f} s")


async def _meet(one: Browser, other: Look) -> None:
    async def heard() -> bool:
        return hears(await one.peaks(), other.tone_hz)

    await _within(20, heard, "the other's tone")
    await _within(20, lambda: one.sees(other.rgb), "the other's colour")


async def test_two_browsers_meet_and_survive_a_kill_of_parley(tmp_path: Path) -> None:
    sections = {"conferences": [{"slug": "demo", "title": "Demo"}]}
    async with (
        Parley(tmp_path / "parley", sections) as parley,
        open_browser(ANN) as ann,
        open_browser(BEN) as ben,
    ):
        await guestpage.join(ann, await parley.invite("demo"), "Ann")
        await guestpage.join(ben, await parley.invite("demo"), "Ben")
        await _meet(ann, BEN)
        await _meet(ben, ANN)
        await guestpage.say(ann, "hello")

        async def read() -> bool:
            return any("hello" in line for line in await guestpage.texts(ben))

        await _within(5, read, "the line of text")

        before = await ann.page.evaluate(PACKETS)
        await parley.kill()
        await asyncio.sleep(4)
        meanwhile = await ann.page.evaluate(PACKETS)
        assert meanwhile["packets"] > before["packets"] + 50  # nobody signals, and media flows
        await parley.start()
        await asyncio.sleep(8)  # a browser tries again after 0.3, 1.2, 2.7, 4.8 s, then every 7 s
        after = await ann.page.evaluate(PACKETS)
        assert after["all"] == before["all"], "a connection was made anew instead of resumed"
        assert after["packets"] > meanwhile["packets"] + 50
        assert after["lost"] == before["lost"]
        await guestpage.say(ben, "still there?")

        async def answered() -> bool:
            return any("still there?" in line for line in await guestpage.texts(ann))

        await _within(20, answered, "text after the restart")
        await guestpage.leave(ben)

        async def gone() -> bool:
            return not any("Ben" in caption for caption in await guestpage.people(ann))

        await _within(5, gone, "the one who left is gone")
