"""B: a meeting of ten, everybody with Opus and three layers of simulcast; tiles of different sizes.

On a clean network: what the server adds to it is bounded here (N0: about 200 forwards, and these are 180).
"""

from typing import Final

from bench.cast import OPUS, SIMULCAST, TILES, Cast
from bench.goals import Goal, at_most, told
from bench.scenarios.scenario import Effort, Result, Scenario, play
from bench.stage import Setting

CAST: Final = Cast(speakers=10, media=(OPUS, SIMULCAST), wishes=TILES)


async def run(setting: Setting, effort: Effort, ceiling: float) -> Result:
    return await play(CAST, setting, effort.seconds)


def goals(found: Result, ceiling: float) -> list[Goal]:
    return [
        told("copies per second", found["copies_per_s"], digits=0),
        told("worker CPU, of one core", found["server_cpu_share"] * 100, "%", 1),
        at_most("added latency, p50", found["delay_p50_us"] / 1e3, 0.3, "ms"),
        at_most("added latency, p99", found["delay_p99_us"] / 1e3, 2.0, "ms"),
        told("packets missing", found["lost"] + found["lost_audio"], digits=0),
    ]


SCENARIO: Final = Scenario("B", "meeting of 10, simulcast of 3 layers", run, goals)
