"""Janus: the same sender and receivers, one video to ten viewers at 25,000 and 50,000 copies/s; in turn with ours.

In turn, because the machine's speed changes. At last ours at the lower rate with receivers that send NACKs and
transport-wide feedback, so that estimates, pacing and probes are at work too. Ten, because Janus runs an event loop per
viewer and is cheapest per copy with few of them.
"""

import asyncio
import statistics
from contextlib import AsyncExitStack
from typing import Any, Final

from bench.cast import Cast, video
from bench.goals import Goal, at_least, told
from bench.janus import Absent, janus_stage
from bench.scenarios.scenario import Effort, Result, Scenario
from bench.stage import Setting, measure, offer, stage

VIEWERS: Final = 10
RATES: Final = (25_000, 50_000)  # copies/s
JOIN_RATE: Final = 100  # packets/s
ESTIMATED_S: Final = 8.0  # until a link of 24 Mbit/s is known
MODES: Final[dict[str, dict[str, str]]] = {"sendmmsg": {"PARLEY_NO_GSO": "1"}, "gso": {}}


async def run(setting: Setting, effort: Effort, ceiling: float) -> Result:
    found: Result = {"viewers": VIEWERS}
    media = video(JOIN_RATE)
    async with AsyncExitStack() as scenes:
        running = {}
        try:
            janus = await scenes.enter_async_context(janus_stage(VIEWERS))
            await janus.join(media, 4)
            found["janus"] = {"version": janus.version}
            running["janus"] = (janus.tool, janus.pid)
        except Absent as why:
            found["skipped"] = str(why)
        cast = Cast(listeners=VIEWERS, media=(media,), is_unlimited=True)
        for mode, environment in MODES.items():
            ours = await scenes.enter_async_context(
                stage(cast, Setting(setting.shards, environment))
            )
            await ours.join()
            found[mode] = {}
            running[mode] = (ours.tool, ours.pid)
        for tool, _ in running.values():
            tool.pace(0)
        for rate in RATES:
            for _ in range(effort.repeats):
                for who, (tool, pid) in running.items():
                    one = await offer(tool, pid, rate // VIEWERS, effort.seconds)
                    found[who].setdefault(str(rate), []).append(one)
        tool, pid = running["gso"]
        tool.manner(feedback=True, stamps=True)
        tool.pace(RATES[0] // VIEWERS)
        await asyncio.sleep(ESTIMATED_S)
        found["feedback"] = [
            await measure(tool, pid, effort.seconds) for _ in range(effort.repeats)
        ]
    return found


def _middle(runs: list[dict[str, Any]]) -> float:
    return float(statistics.median(run["copies_per_cpu_s"] for run in runs))


def goals(found: Result, ceiling: float) -> list[Goal]:
    lines: list[Goal] = []
    for rate in RATES:
        ours = {mode: _middle(found[mode][str(rate)]) for mode in MODES}
        if "janus" not in found:
            lines += [told(f"{mode} at {rate:,} copies/s", ours[mode], digits=0) for mode in MODES]
            continue
        theirs = _middle(found["janus"][str(rate)])
        lines += [
            at_least(
                f"sendmmsg against Janus at {rate:,} copies/s", ours["sendmmsg"] / theirs, 2.5, "x"
            ),
            at_least(f"GSO against Janus at {rate:,} copies/s", ours["gso"] / theirs, 4.0, "x"),
            told(f"Janus' copies per CPU-second at {rate:,} copies/s", theirs, digits=0),
        ]
    fed = _middle(found["feedback"]) / _middle(found["gso"][str(RATES[0])])
    lines.append(
        told(f"GSO at {RATES[0]:,} copies/s, with feedback against without feedback", fed, "x")
    )
    return lines


SCENARIO: Final = Scenario(
    "J", "against Janus, 10 viewers", run, goals, "worker socket; Janus' API"
)
