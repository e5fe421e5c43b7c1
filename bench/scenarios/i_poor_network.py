"""I: meeting B where everybody has a poor network (N2): 5 % loss in both directions, 80 ms round trip."""

from typing import Final

from bench.goals import Goal, told
from bench.scenarios.b_meeting import CAST
from bench.scenarios.scenario import Effort, Result, Scenario, play
from bench.stage import Setting

LOSS: Final = 0.05
ROUND_TRIP_MS: Final = 80.0


async def run(setting: Setting, effort: Effort, ceiling: float) -> Result:
    return await play(
        CAST, setting, 2 * effort.seconds, loss=LOSS, round_trip_ms=ROUND_TRIP_MS, settle_s=6.0
    )


def goals(found: Result, ceiling: float) -> list[Goal]:
    whole = found["copies"] + found["recovered"] + max(found["lost"], 0)
    return [
        told("copies per second", found["copies_per_s"], digits=0),
        told("worker CPU, of one core", found["server_cpu_share"] * 100, "%", 1),
        told("video missing after repair", max(found["lost"], 0) / max(whole, 1) * 100, "%", 2),
        told("from gap to repair, p50", found["repair_p50_us"] / 1e3, "ms", 0),
        told("from gap to repair, p99", found["repair_p99_us"] / 1e3, "ms", 0),
    ]


SCENARIO: Final = Scenario("I", "meeting B under 5 % loss and 80 ms", run, goals)
