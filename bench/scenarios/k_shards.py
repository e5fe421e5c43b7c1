"""K: one room of 100 receivers, saturated, on one data-plane thread and on two.

Two threads and the load tool share the CPUs of a small machine, so wall-clock rates say little there; what counts is
copies per CPU-second of the busier thread: what each would carry on a CPU of its own. The load tool's threads lie on both
CPUs both times, because a copy costs more beside them and when its reader is on another CPU; and as they are more in the way
of one CPU than of the other, the data-plane threads change places after each measurement, and a thread counts with what
it used in both places. One and two are measured in turn, and what counts is the middle of the ratios of neighbours,
because the speed of a machine wanders.
"""

import statistics
from collections.abc import Callable, Iterable
from typing import Final

from bench import machine
from bench.cast import Cast, video
from bench.goals import Goal, at_least, told
from bench.scenarios.scenario import Effort, Result, Scenario
from bench.stage import Setting, stage

RECEIVERS: Final = 100
JOIN_RATE: Final = 20  # packets/s
PLACES: Final = 2
TURNS: Final = 5
SECONDS: Final = 2.0


async def run(setting: Setting, effort: Effort, ceiling: float) -> Result:
    cast = Cast(listeners=RECEIVERS, media=(video(JOIN_RATE),), is_unlimited=True)
    turns: list[dict[str, list[Result]]] = []
    async with (
        stage(cast, Setting(1, setting.environment)) as one,
        stage(cast, Setting(2, setting.environment)) as two,
    ):
        scenes = {"one": one, "two": two}
        for scene in scenes.values():
            await scene.join(hears=False)
            scene.tool.pace(0)
            machine.spread(scene.tool.pid)
        for _ in range(TURNS):
            turn: dict[str, list[Result]] = {"one": [], "two": []}
            for place in range(PLACES):
                for name, scene in scenes.items():
                    machine.rotate(scene.pid, place)
                    turn[name].append(await scene.saturate(SECONDS))
            turns.append(turn)
    return {"saturated": turns}


def _per_cpu_s(runs: list[Result], of: Callable[[Iterable[float]], float]) -> float:
    """Copies per CPU-second of a thread; `of` makes one number of those of the threads."""
    threads = zip(*(run["shards_cpu_s"] for run in runs), strict=True)
    copies = sum(run["copies"] for run in runs)
    return float(copies / of(sum(thread) for thread in threads))


def _ratio(found: Result, of: Callable[[Iterable[float]], float]) -> float:
    turns = found["saturated"]
    return float(
        statistics.median(
            _per_cpu_s(turn["two"], of) / _per_cpu_s(turn["one"], of) for turn in turns
        )
    )


def goals(found: Result, ceiling: float) -> list[Goal]:
    return [
        at_least(
            "two shards against one, one room, the busier thread", _ratio(found, max), 1.8, "x"
        ),
        told("the same if both had the same to do", _ratio(found, statistics.mean), "x"),
    ]


SCENARIO: Final = Scenario("K", "one room on two shards", run, goals)
