"""Real clients (libwebrtc, native SDK) on links that lose, narrow, fall silent, swallow or forbid: N1, N3, N6, N8, N9, N12.

Server and clients run in network namespaces of their own with a userspace link in between, and with the kernel's own
token bucket (tbf) or firewall (nft) where a test names them; what is measured are the clients' own statistics. One
publisher, three VP8 layers; several viewers watch it at once, each on its own link.
The table is printed and kept in results/network.json.
Not here: the same matrix in virtual time with every case (engine/core/src/media/tests/network).

The limits are two to five times what a quiet machine shows, because client, encoder and link share it with everything
else (after 3 and 10 s of N8 they are the goal itself); what was seen is kept in `results/network.json`. The goals are
judged in virtual time, by the engine's `media/tests/network`.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest
from livekit import api

from tests.peers.parley import Parley
from tests.peers.process import PeerProcess
from tests.peers.spaces import Link, Spaces, why_not
from tests.scenarios.results import FILE, Results

pytestmark = [
    pytest.mark.peers,
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.skipif(bool(why_not()), reason=f"no network namespaces here: {why_not()}"),
]

NETWORK_FILE = FILE.with_name("network.json")
SCENE = "960x540@15"
TOP_WIDTH = 960
WATCHER = "tests.peers.watcher"
START_S = 40.0  # joining behind 10 % loss alone takes up to 15 s


@dataclass(slots=True)
class Field:
    """Parley in its namespace, and who is with it."""

    spaces: Spaces
    parley: Parley
    folder: Path
    stack: AsyncExitStack
    results: Results = field(default_factory=Results)

    async def join(self, name: str, *options: str, link: Link | None = None) -> PeerProcess:
        """A client behind this link, or behind one that is in nobody's way."""
        if link is None:
            link = await self.spaces.link()
            await link.shape(**both(latency_ms=1))
        token = (
            api.AccessToken(self.parley.api_key, self.parley.api_secret)
            .with_identity(name)
            .with_name(name)
            .with_grants(api.VideoGrants(room_join=True, room="field"))
            .to_jwt()
        )
        url = f"ws://{self.spaces.address}:{self.parley.public_port}"
        arguments = ["--url", url, "--token", token, *options]
        peer = PeerProcess(WATCHER, arguments, self.folder / f"{name}.log", space=link.space)
        return await self.stack.enter_async_context(peer)

    def judge(self, *cases: str) -> None:
        """Print, keep, fail."""
        print(f"\n{self.results.table()}")
        self.results.write(NETWORK_FILE)
        assert not [bad for case in cases for bad in self.results.bad(case)]


@asynccontextmanager
async def _field(folder: Path) -> AsyncIterator[Field]:
    async with AsyncExitStack() as stack:
        spaces = await stack.enter_async_context(Spaces(folder))
        parley = Parley(folder / "parley")
        http = {
            "public": {"host": spaces.address, "port": parley.public_port},
            "internal": {"host": "127.0.0.1", "port": parley.internal_port},
            "ops": {"host": "127.0.0.1", "port": parley.ops_port},
            "public_url": f"http://{spaces.address}:{parley.public_port}",
            # Plain HTTP between namespaces of one machine.
            "trusted_proxies": ["127.0.0.1"],
        }
        parley.sections = {"http": http, "media": {"listen": [spaces.address], "port": 0}}
        await stack.enter_async_context(parley)
        yield Field(spaces, parley, folder, stack)


def both(**shape: Any) -> dict[str, dict[str, Any]]:
    return {"down": shape, "up": shape}


async def _flows(peers: Iterable[PeerProcess], width: int = 0) -> None:
    """Everybody decodes pictures (of this width) and hears."""
    end = time.monotonic() + START_S
    for peer in peers:
        while True:
            last = (await peer.ask("samples", after=-1) or [{}])[-1]
            video, audio = last.get("video", {}), last.get("audio", {})
            if video.get("frames", 0) > 5 and video["width"] >= width and audio["received"] > 20:
                break
            assert time.monotonic() < end, f"{peer.log.stem} after {START_S:.0f} s: {last}"
            await asyncio.sleep(0.2)


@dataclass(frozen=True, slots=True)
class Stretch:
    """What a viewer's statistics grew by between two instants."""

    before: dict[str, Any]
    after: dict[str, Any]

    def grew(self, kind: str, what: str) -> float:
        return float(self.after[kind][what] - self.before[kind][what])

    @property
    def lost_video_percent(self) -> float:
        """After repair."""
        gone = max(0.0, self.grew("video", "lost") - self.grew("video", "repaired"))
        return 100 * gone / max(1.0, self.grew("video", "received") + gone)

    @property
    def lost_audio_percent(self) -> float:
        gone = self.grew("audio", "lost")
        return 100 * gone / max(1.0, self.grew("audio", "received") + gone)


async def _stretch(peer: PeerProcess, since: float, until: float = float("inf")) -> Stretch:
    samples = [row for row in await peer.ask("samples") if "video" in row and "audio" in row]
    inside = [row for row in samples if since <= row["at"] <= until]
    assert len(inside) > 10, f"{peer.log.stem} was hardly watched"
    return Stretch(inside[0], inside[-1])


async def test_loss_is_repaired_and_a_small_path_carries_everything(tmp_path: Path) -> None:
    """N1, N3, N9 downstream."""
    async with _field(tmp_path) as own:
        links = [await own.spaces.link(mtu) for mtu in (1500, 1500, 1280)]
        await links[0].shape(**both(latency_ms=15, loss_percent=1))
        await links[1].shape(**both(latency_ms=60, jitter_ms=30, loss_percent=10))
        # Larger packets vanish in both directions and nobody is told: a black hole for path MTU discovery.
        await links[2].shape(**both(latency_ms=15, mtu=1280))
        await own.join("camera", "--show", SCENE)
        peers = [
            await own.join(name, link=link)
            for name, link in zip(("n1", "n3", "n9"), links, strict=True)
        ]
        await _flows(peers)
        await asyncio.sleep(5)
        since = time.monotonic()
        await asyncio.sleep(35)
        n1, n3, n9 = [await _stretch(peer, since) for peer in peers]
        add = own.results.add
        # What the encoder leaves out at a key frame freezes on the best of links too.
        always = n9.grew("video", "freezes")
        for case, seen, freezes, lost in (
            ("N1", n1, 6, 0.3),
            ("N3", n3, 8, 1.0),
            ("N9", n9, 0, 0.3),
        ):
            count = seen.grew("video", "freezes") - always
            # N3: what is lost three or four times comes after the buffer's 400 ms: no picture is lost, one is late.
            # Two or three a minute were seen (docs/performance.md), at most six.
            add(case, "freezes beyond the encoder's", f"{count:.0f} in 35 s", count <= freezes)
            residual = seen.lost_video_percent
            add(case, "video lost after repair", f"{residual:.3f} %", residual <= lost)
            frames = seen.grew("video", "frames") / 35
            add(case, "frames per second", f"{frames:.1f}", frames >= (12 if case == "N3" else 10))
        # Without RED or FEC of the client the link's own loss is what is lost: nothing beyond it.
        add(
            "N3",
            "audio lost, link 10 %",
            f"{n3.lost_audio_percent:.1f} %",
            n3.lost_audio_percent <= 13,
        )
        passed = await links[2].seen()
        # More than 1,200: a browser's RTP has up to 1,200, then come our header extensions and SRTP's tag; 1,228 in
        # all (docs/running.md). What we size ourselves stays below (`media::tests::network::sizes`).
        largest = passed["down"]["largest_udp"]
        add("N9", "largest payload of ours", f"{largest} bytes", largest <= 1_228)
        add("N9", "swallowed", str(passed["down"]["too_large"]), passed["down"]["too_large"] == 0)
        own.judge("N1", "N3", "N9")


async def test_loss_upstream_is_repaired(tmp_path: Path) -> None:
    """N1 and N3 from the publisher to us."""
    async with _field(tmp_path) as own:
        links = [await own.spaces.link() for _ in range(2)]
        await links[0].shape(**both(latency_ms=15, loss_percent=1))
        await links[1].shape(**both(latency_ms=60, jitter_ms=30, loss_percent=10))
        for case, link, lost, least in (("N1", links[0], 0.3, 10), ("N3", links[1], 1.0, 3)):
            camera = await own.join(f"camera-{case}", "--show", SCENE, link=link)
            viewer = await own.join(f"viewer-{case}")
            await _flows([viewer])
            await asyncio.sleep(5)
            since = time.monotonic()
            await asyncio.sleep(18)
            seen = await _stretch(viewer, since)
            name = f"{case} up"
            # How often its encoder leaves frames out is the client's affair on its own link: told, not judged.
            count = seen.grew("video", "freezes")
            own.results.add(name, "freezes, the encoder's too", f"{count:.0f} in 18 s", True)
            residual = seen.lost_video_percent
            own.results.add(name, "video lost for others", f"{residual:.3f} %", residual <= lost)
            frames = seen.grew("video", "frames") / 18
            own.results.add(name, "frames per second", f"{frames:.1f}", frames >= least)
            await viewer.leave()
            await camera.leave()
        own.judge("N1 up", "N3 up")


async def _outage(
    own: Field, case: str, viewer: PeerProcess, link: Link, lasts_s: int, limit_s: float
) -> None:
    """What a viewer has when a link, its own or the publisher's, is back.

    After about 15 s this client gives its connection up and joins again in its own time, whatever we do.
    """
    await link.shape(**both(latency_ms=25, blocked=True))
    await asyncio.sleep(lasts_s)
    await link.shape(**both(latency_ms=25))
    back = time.monotonic()
    await asyncio.sleep(max(limit_s, 5) + 3)
    rows = [row for row in await viewer.ask("samples") if "video" in row and "audio" in row]
    silent = [row for row in rows if back - lasts_s + 1 <= row["at"] <= back]
    rows = [row for row in rows if row["at"] > back]
    add = own.results.add
    for kind, count in (("audio", "received"), ("video", "frames")):
        base = silent[-1][kind][count]
        # Who joined again counts from nothing.
        counts = ((row["at"], row[kind][count]) for row in rows)
        first = next((at for at, seen in counts if seen > base or 0 < seen < base / 2), None)
        after_s = float("inf") if first is None else max(0.0, first - back)
        add(
            case,
            f"{kind} back after {lasts_s} s of nothing",
            f"{after_s:.2f} s",
            after_s <= limit_s,
        )
    subscribed = [row for row in await viewer.ask("happened") if row["what"] == "track_subscribed"]
    again = len(subscribed) - 2
    add(
        case, f"joined again after {lasts_s} s", "yes" if again else "no", not again or lasts_s > 10
    )


class Bottleneck(Protocol):
    """What is narrow towards a viewer."""

    name: str

    async def become(self, rate_kbit: int) -> None: ...

    async def second(self) -> tuple[float, int]:
        """Lasts a second: the longest queue (ms), packets dropped."""


@dataclass(slots=True)
class Emulated:
    link: Link
    name: str = "N6"

    async def become(self, rate_kbit: int) -> None:
        await self.link.shape(down={"latency_ms": 20, "rate_kbit": rate_kbit, "queue_ms": 2_000})

    async def second(self) -> tuple[float, int]:
        await self.link.seen()
        await asyncio.sleep(1)
        passed = (await self.link.seen())["down"]
        return passed["longest_queue_ms"], passed["overflowed"]


@dataclass(slots=True)
class OfTheKernel:
    link: Link
    name: str = "N6 tbf"
    rate_kbit: int = 0

    async def become(self, rate_kbit: int) -> None:
        self.rate_kbit = rate_kbit
        await self.link.limit(rate_kbit, 2_000)

    async def second(self) -> tuple[float, int]:
        longest, (_, before) = 0, await self.link.queue()
        for _ in range(5):
            await asyncio.sleep(0.2)
            waits, dropped = await self.link.queue()
            longest = max(longest, waits)
        return longest * 8 / self.rate_kbit, dropped - before


async def _narrow(own: Field, viewer: PeerProcess, bottleneck: Bottleneck) -> None:
    await bottleneck.become(500)
    narrowed = time.monotonic()
    await asyncio.sleep(3)
    queues, dropped = [], 0
    for _ in range(27):
        queue_ms, overflowed = await bottleneck.second()
        queues.append(queue_ms)
        dropped += overflowed
    print("longest queue of each second, ms:", *(f"{queue:.0f}" for queue in queues))
    await bottleneck.become(4_000)
    widened = time.monotonic()
    await asyncio.sleep(20)
    add, case = own.results.add, bottleneck.name
    seen = await _stretch(viewer, narrowed + 3, widened)
    rate = seen.grew("video", "bytes") * 8 / (widened - narrowed - 3) / 1000
    add(case, "video while 500 kbit/s are left", f"{rate:.0f} kbit/s", 80 <= rate <= 500)
    # A key frame of the lowest layer alone fills such a link for a while: nine seconds of ten are judged.
    usual = sorted(queues)[int(len(queues) * 0.9)]
    add(case, "queue from 3 s on, nine seconds of ten", f"{usual:.0f} ms", usual <= 300)
    add(case, "queue from 3 s on, longest", f"{max(queues):.0f} ms", max(queues) <= 1_000)
    add(case, "dropped from 3 s on", str(dropped), dropped == 0)
    audio = seen.lost_audio_percent
    add(case, "audio lost while narrow", f"{audio:.2f} %", audio <= 1)
    rows = [row for row in await viewer.ask("samples") if row["at"] >= widened and "video" in row]
    top = next((row["at"] for row in rows if row["video"]["width"] >= TOP_WIDTH), None)
    after_s = float("inf") if top is None else top - widened
    add(case, "top layer again", f"{after_s:.1f} s", after_s <= 10)


async def test_a_link_that_narrows_and_links_that_fall_silent(tmp_path: Path) -> None:
    """N6 (on the emulator and behind the kernel's token bucket), N8."""
    async with _field(tmp_path) as own:
        links = [await own.spaces.link() for _ in range(5)]
        narrow: tuple[Bottleneck, ...] = (Emulated(links[0]), OfTheKernel(links[1]))
        await links[0].shape(up={"latency_ms": 20})
        await links[1].shape(**both(latency_ms=20))
        for bottleneck in narrow:
            await bottleneck.become(4_000)
        for link in links[2:]:
            await link.shape(**both(latency_ms=25))
        camera = await own.spaces.link()
        await camera.shape(**both(latency_ms=1))
        await own.join("camera", "--show", SCENE, link=camera)
        names = ("n6", "n6-tbf", "n8-3", "n8-10", "n8-25")
        peers = [await own.join(name, link=link) for name, link in zip(names, links, strict=True)]
        await _flows(peers, TOP_WIDTH)
        await asyncio.sleep(3)
        async with asyncio.TaskGroup() as group:
            for peer, bottleneck in zip(peers, narrow, strict=False):
                group.create_task(_narrow(own, peer, bottleneck))
            for peer, link, lasts_s in zip(peers[2:], links[2:], (3, 10, 25), strict=True):
                limit_s = {3: 1.0, 10: 1.0, 25: 17.0}[lasts_s]
                group.create_task(_outage(own, "N8", peer, link, lasts_s, limit_s))
        for lasts_s in (3, 10):
            await _outage(own, "N8 up", peers[2], camera, lasts_s, limit_s=1.0)
        own.judge("N8", "N8 up")
        bad = [line for bottleneck in narrow for line in own.results.bad(bottleneck.name)]
        # 137 to 331 ms were seen: the goal is not always met, judged as it is, and known.
        assert all("queue from 3 s on, nine" in line for line in bad), bad
        if bad:
            pytest.xfail(
                f"a link that narrows may have a queue for longer (CHANGELOG, known): {bad}"
            )


async def test_without_udp_media_comes_over_tcp(tmp_path: Path) -> None:
    """N12: a firewall that lets TCP out and nothing else; from the first byte of signalling to a picture."""
    joins = 3
    async with _field(tmp_path) as own:
        await own.join("camera", "--show", SCENE)
        took: list[float] = []
        for number in range(joins):
            link = await own.spaces.link()
            await link.shape(**both(latency_ms=20))
            await link.forbid_udp()
            viewer = await own.join(f"n12-{number}", link=link)
            await _flows([viewer])
            rows = await viewer.ask("samples")
            first = next(
                row["at"]
                for row in rows
                if row.get("video", {}).get("frames") and row.get("audio", {}).get("received")
            )
            took.append(first - await viewer.ask("began"))
            assert set(await viewer.ask("protocols")) == {"tcp"}
            await viewer.leave()
        worst = max(took)
        own.results.add(
            "N12", f"sound and picture, slowest of {joins}", f"{worst:.1f} s", worst <= 5
        )
        own.judge("N12")
