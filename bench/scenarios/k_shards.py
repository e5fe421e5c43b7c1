"""K: one room of 100 receivers, saturated, on one data-plane thread and on two.

Two threads and the load tool share the CPUs of a small machine, so wall-clock rates say little there; what counts is
copies per CPU-second of the busier thread: what each would carry on a CPU of its own.
"""

import statistics
from typing import Any, Final

from bench.cast import Cast, video
from bench.goals import Goal, at_least, told
from bench.scenarios.scenario import Effort, Result, Scenario
from bench.stage import Setting, stage

RECEIVERS: Final = 100
SHARDS: Final = (1, 2)
JOIN_RATE: Final = 20  # packets/s


async def run(setting: Setting, effort: Effort, ceiling: float) -> Result:
    cast = Cast(listeners=RECEIVERS, media=(video(JOIN_RATE),), is_unlimited=True)
    found: Result = {}
    for shards in SHARDS:
        async with stage(cast, Setting(shards, setting.environment)) as scene:
            await scene.join(hears=False)
            runs = [await scene.saturate(effort.seconds) for _ in range(effort.repeats)]
        found[str(shards)] = {
            "capacity": statistics.median(map(_capacity, runs)),
            "saturated": runs,
        }
    return found


def _capacity(run: dict[str, Any]) -> float:
    """Copies per second if every thread had a CPU and the busiest were the limit."""
    return float(run["copies"] / max(run["shards_cpu_s"]))


def goals(found: Result, ceiling: float) -> list[Goal]:
    one, two = (found[str(shards)]["capacity"] for shards in SHARDS)
    return [
        at_least("two shards against one, one room", two / one, 1.8, "x"),
        told("copies per CPU-second of the busier of two", two, digits=0),
    ]


SCENARIO: Final = Scenario("K", "one room on two shards", run, goals)
