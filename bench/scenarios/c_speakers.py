"""C: three speakers, 300 who listen; audio only."""

from typing import Final

from bench.cast import OPUS, Cast
from bench.goals import Goal, told
from bench.scenarios.scenario import Effort, Result, Scenario, play
from bench.stage import Setting

CAST: Final = Cast(speakers=3, listeners=300, media=(OPUS,), speakers_watch=False)


async def run(setting: Setting, effort: Effort, ceiling: float) -> Result:
    return await play(CAST, setting, effort.seconds)


def goals(found: Result, ceiling: float) -> list[Goal]:
    return [
        told("copies per second", found["copies_per_s"], digits=0),
        told("worker CPU, of one core", found["server_cpu_share"] * 100, "%", 1),
        told("added latency, p99", found["delay_p99_us"] / 1e3, "ms"),
        told("packets missing", found["lost"] + found["lost_audio"], digits=0),
    ]


SCENARIO: Final = Scenario("C", "3 speakers -> 300, audio", run, goals)
