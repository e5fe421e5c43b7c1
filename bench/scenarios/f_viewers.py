"""F: one publisher of 1 Mbit/s, 1,000 viewers."""

from typing import Final

from bench.cast import Cast, video
from bench.goals import Goal, told
from bench.scenarios.scenario import Effort, Result, Scenario
from bench.stage import Setting, stage

VIEWERS: Final = 1_000
PACKETS_PER_S: Final = 100
JOIN_RATE: Final = 20  # packets/s


async def run(setting: Setting, effort: Effort, ceiling: float) -> Result:
    cast = Cast(listeners=VIEWERS, media=(video(JOIN_RATE),), is_unlimited=True)
    async with stage(cast, setting) as scene:
        await scene.join(at_once=16, hears=False)
        scene.tool.manner(sample=16, stamps=True)
        found = await scene.offer(PACKETS_PER_S, effort.seconds)
        cpu_ms = scene.join_cpu.control_s * 1e3 / VIEWERS
        return {"viewers": VIEWERS, "control_cpu_ms_per_join": cpu_ms, **found}


def goals(found: Result, ceiling: float) -> list[Goal]:
    return [
        told("copies per second", found["copies_per_s"], digits=0),
        told("worker CPU, of one core", found["server_cpu_share"] * 100, "%", 1),
        told("added latency, p50", found["delay_p50_us"] / 1e3, "ms"),
        told("added latency, p99", found["delay_p99_us"] / 1e3, "ms"),
        told("packets missing", found["lost"], digits=0),
    ]


SCENARIO: Final = Scenario("F", "1 -> 1,000 viewers at 1 Mbit/s", run, goals)
