"""R11: a worker with half of the CPU that it needs keeps sound in time, sheds video, says so, and recovers.

The worker is a process in a control group of its own; one room is played by the benchmarks' load tool, whose publishers
send Opus and simulcast of three layers up to 1080p, and whose receivers report, ask again and give feedback. What the
worker uses without a limit is measured first; then its quota is half of that for `SHORT_S`, then there is none again.
Not here: the same in virtual time, with every kind of shortage (engine/core/src/overload/tests.rs).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from bench import machine
from bench.cast import OPUS, Cast, Layer, Media
from bench.stage import Setting, Stage, stage
from sfu import protocol
from sfu.client import Happening
from sfu.description import MediaKind, Wish
from tests.peers.quota import Quota, quota_of, why_not
from tests.scenarios.results import FILE, Results

pytestmark = [
    pytest.mark.peers,
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.skipif(bool(why_not()), reason=f"no CPU quota can be given here: {why_not()}"),
]

OVERLOAD_FILE: Final = FILE.with_name("overload.json")
HD: Final = Media(
    MediaKind.VIDEO,
    "camera",
    (
        Layer(30, 2, 680, 2, "q", 320, 180),
        Layer(80, 4, 1_000, 4, "h", 640, 360),
        Layer(420, 14, 1_180, 14, "f", 1_920, 1_080),  # 30 frames/s, 4 Mbit/s
    ),
)
CAST: Final = Cast(
    speakers=4, listeners=70, media=(OPUS, HD), wishes=(Wish(width=1_920, height=1_080),)
)
SETTLE_S: Final = 4.0
NEED_S: Final = 4.0
SHORT_S: Final = 15.0
# The goals of R11; a machine that is busy with other things adds to the delay.
MAX_AUDIO_LOSS: Final = 0.01
MAX_AUDIO_P99_MS: Final = 50.0
MAX_RECOVERY_S: Final = 10.0
RECOVERED: Final = 0.95  # of the video packets that came per second before


@dataclass(slots=True)
class Told:
    """What the owner of the worker, and with it people, hear of video."""

    paused: set[tuple[str, str]] = field(default_factory=set)
    ever: set[tuple[str, str]] = field(default_factory=set)
    loads: list[protocol.LoadStatistics] = field(default_factory=list)

    def hear(self, event: Happening) -> None:
        match event:
            case protocol.StreamState(session=session, track=track, paused=True):
                self.paused.add((session, track))
                self.ever.add((session, track))
            case protocol.StreamState(session=session, track=track):
                self.paused.discard((session, track))
            case protocol.Statistics(loads=loads):
                self.loads.extend(loads)
            case _:
                pass


@dataclass(frozen=True, slots=True)
class Passage:
    """What receivers saw meanwhile."""

    audio: int
    audio_lost: int
    audio_p99_ms: float
    audio_max_ms: float
    all_p99_ms: float
    video_per_s: float

    @classmethod
    def between(cls, before: dict[str, Any], after: dict[str, Any]) -> "Passage":
        seconds = (after["now_ns"] - before["now_ns"]) / 1e9
        audio = after["audio"] - before["audio"]
        copies = after["copies"] - before["copies"]
        return cls(
            audio,
            max(after["lost_audio"] - before["lost_audio"], 0),
            after["audio_delay_p99_us"] / 1e3,
            after["audio_delay_max_us"] / 1e3,
            after["delay_p99_us"] / 1e3,
            (copies - audio) / seconds,
        )

    @property
    def audio_loss(self) -> float:
        return self.audio_lost / max(self.audio + self.audio_lost, 1)


@dataclass(slots=True)
class Play:
    """The room, what it needs without a limit, and the worker's group."""

    on: Stage
    told: Told
    quota: Quota
    need: float
    before: Passage

    async def passage(self, seconds: float) -> Passage:
        first = await self.on.tool.report()
        await asyncio.sleep(seconds)
        return Passage.between(first, await self.on.tool.report())

    async def recovery_s(self) -> float:
        """Until everybody has everything again; more than the limit if that takes longer."""
        start = time.monotonic()
        while (elapsed := time.monotonic() - start) <= MAX_RECOVERY_S + 2.0:
            seen = await self.passage(0.5)
            if seen.video_per_s >= RECOVERED * self.before.video_per_s and not self.told.paused:
                return elapsed  # it began with this half second
        return time.monotonic() - start


@contextmanager
def _judged() -> Iterator[Results]:
    results = Results()
    yield results
    results.write(OVERLOAD_FILE)
    print(f"\n{results.table()}")
    assert results.bad("R11") == []


@asynccontextmanager
async def _play() -> AsyncIterator[Play]:
    told = Told()
    async with stage(CAST, Setting(sheds=True), told.hear) as on:
        on.tool.manner(sample=4, feedback=True, stamps=True)
        await on.join()
        await asyncio.sleep(SETTLE_S)
        first, cpu = await on.tool.report(), machine.cpu(on.pid)
        await asyncio.sleep(NEED_S)
        last, used = await on.tool.report(), machine.cpu(on.pid).since(cpu)
        need = used.process_s / ((last["now_ns"] - first["now_ns"]) / 1e9)
        with quota_of(on.pid) as quota:
            yield Play(on, told, quota, need, Passage.between(first, last))


async def test_half_of_the_cpu_keeps_sound_and_sheds_video() -> None:
    with _judged() as results:
        async with _play() as play:
            await play.on.client.request(protocol.ReadStatistics())
            play.quota.limit(play.need / 2)
            short = await play.passage(SHORT_S)
            throttled = play.quota.throttled()
            play.quota.limit(None)
            recovery_s = await play.recovery_s()
            told = play.told
            is_shown = any(load.is_shedding and load.cpu_capacity > 0 for load in told.loads)
            before = play.before
        add = results.add
        add("R11", "worker's need, of one CPU", f"{play.need:.3f}", play.need > 0)
        add("R11", "sound lost without a limit", f"{before.audio_loss:.2%}", before.audio_loss == 0)
        loss = f"{short.audio_lost} of {short.audio}"
        add("R11", "sound lost with half", loss, short.audio_loss <= MAX_AUDIO_LOSS)
        p99 = f"{short.audio_p99_ms:.1f} ms, longest {short.audio_max_ms:.1f} ms"
        add("R11", "sound late with half, p99", p99, short.audio_p99_ms <= MAX_AUDIO_P99_MS)
        add("R11", "everything that still comes, p99", f"{short.all_p99_ms:.1f} ms", True)
        share = short.video_per_s / before.video_per_s
        add("R11", "video with half", f"{share:.0%}", 0 < share < RECOVERED)
        add(
            "R11",
            "periods that used up the quota",
            f"{throttled} of {SHORT_S * 10:.0f}",
            throttled > 0,
        )
        add("R11", "people told that video paused", f"{len(told.ever)} streams", bool(told.ever))
        add("R11", "shown in statistics", "yes" if is_shown else "no", is_shown)
        add("R11", "everything is back after", f"{recovery_s:.1f} s", recovery_s <= MAX_RECOVERY_S)
