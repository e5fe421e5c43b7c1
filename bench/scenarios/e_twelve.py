"""E: twelve speakers, all to all: 12 up, 132 down, each audio and video; 120 Mbit/s down, 1,200-byte packets."""

from typing import Final

from bench.cast import OPUS, PACKET_BYTES, Cast, Layer, Media
from bench.goals import Goal, at_most, told
from bench.scenarios.scenario import Effort, Result, Scenario, play_public
from bench.stage import Setting
from sfu.description import MediaKind

# 30 pictures/s of three packets: 864 kbit/s; with Opus 132 such pairs are 120 Mbit/s.
VIDEO: Final = Media(MediaKind.VIDEO, "camera", (Layer(90, 3, PACKET_BYTES, 3),))
CAST: Final = Cast(speakers=12, media=(OPUS, VIDEO))


async def run(setting: Setting, effort: Effort, ceiling: float) -> Result:
    return await play_public(CAST, effort.seconds)


def goals(found: Result, ceiling: float) -> list[Goal]:
    return [
        at_most("worker CPU, of one core", found["server_cpu_share"] * 100, 15, "%", 1),
        at_most("worker memory, resident", found["resident_bytes"] / 1e6, 100, "MB", 1),
        told("streams down", found["incoming"], digits=0),
        told("down altogether", found["down_bps"] / 1e6, "Mbit/s", 1),
        told("added latency, p99", found["delay_p99_us"] / 1e3, "ms"),
        told("packets missing", found["lost"] + found["lost_audio"], digits=0),
    ]


SCENARIO: Final = Scenario("E", "12 speakers, all to all", run, goals, "LiveKit protocol")
