"""K: one room of 100 receivers, saturated, on one data-plane thread and on two.

Two threads and the load tool share the CPUs of a small machine, so wall-clock rates say little there; what counts is
copies per CPU-second of the busier thread: what each would carry on a CPU of its own. The load tool's threads lie on both
CPUs both times, because a copy costs more beside them and when its reader is on another CPU. One and two are measured
in turn, and what counts is the middle of the ratios of neighbours, because the speed of a machine wanders.
"""

import statistics
from collections.abc import Callable, Sequence
from typing import Final

from bench import machine
from bench.cast import Cast, video
from bench.goals import Goal, at_least, told
from bench.scenarios.scenario import Effort, Result, Scenario
from bench.stage import Setting, stage

RECEIVERS: Final = 100
JOIN_RATE: Final = 20  # packets/s
PAIRS: Final = 9
SECONDS: Final = 2.0


async def run(setting: Setting, effort: Effort, ceiling: float) -> Result:
    cast = Cast(listeners=RECEIVERS, media=(video(JOIN_RATE),), is_unlimited=True)
    found: Result = {"saturated": []}
    async with (
        stage(cast, Setting(1, setting.environment)) as one,
        stage(cast, Setting(2, setting.environment)) as two,
    ):
        scenes = (one, two)
        for scene in scenes:
            await scene.join(hears=False)
            scene.tool.pace(0)
            machine.spread(scene.tool.pid)
        for _ in range(PAIRS):
            found["saturated"].append([await scene.saturate(SECONDS) for scene in scenes])
    return found


def _ratio(found: Result, cpu_s: Callable[[Sequence[float]], float]) -> float:
    """Of copies per CPU-second, two against one; `cpu_s` makes one number of those of the threads."""
    ratios = [
        (two["copies"] / cpu_s(two["shards_cpu_s"])) / (one["copies"] / cpu_s(one["shards_cpu_s"]))
        for one, two in found["saturated"]
    ]
    return float(statistics.median(ratios))


def goals(found: Result, ceiling: float) -> list[Goal]:
    return [
        at_least(
            "two shards against one, one room, the busier thread", _ratio(found, max), 1.8, "x"
        ),
        told("the same if both had the same to do", _ratio(found, statistics.mean), "x"),
    ]


SCENARIO: Final = Scenario("K", "one room on two shards", run, goals)
