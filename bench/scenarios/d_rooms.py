"""D: twenty rooms of five, audio and simulcast video."""

from typing import Final

from bench.cast import OPUS, SIMULCAST, TILES, Cast
from bench.goals import Goal, told
from bench.scenarios.scenario import Effort, Result, Scenario, play
from bench.stage import Setting

CAST: Final = Cast(rooms=20, speakers=5, media=(OPUS, SIMULCAST), wishes=TILES)


async def run(setting: Setting, effort: Effort, ceiling: float) -> Result:
    return await play(CAST, setting, effort.seconds)


def goals(found: Result, ceiling: float) -> list[Goal]:
    return [
        told("copies per second", found["copies_per_s"], digits=0),
        told("worker CPU, of one core", found["server_cpu_share"] * 100, "%", 1),
        told("added latency, p99", found["delay_p99_us"] / 1e3, "ms"),
        told("packets missing", found["lost"] + found["lost_audio"], digits=0),
    ]


SCENARIO: Final = Scenario("D", "20 rooms of 5, simulcast of 3 layers", run, goals)
