"""A: one publisher of video, 10 to 1,000 receivers, the data-plane thread saturated; with and without GSO.

Added latency is measured at half and at four fifths of the rate that was reached with 100 receivers: from the
publisher's stamp to the kernel's stamp in the receiver's socket. One saturated run has receivers with UDP_GRO: the
kernel then does not cut GSO messages on the sender's account, as with a card that does it.
"""

import statistics
from typing import Any, Final

from bench.cast import Cast, video
from bench.goals import Goal, at_least, at_most, told
from bench.scenarios.scenario import Effort, Result, Scenario
from bench.stage import Setting, Stage, stage

SIZES: Final = (10, 100, 1_000)
MAIN: Final = 100  # receivers of the ratio and of the latencies
MODES: Final = {"gso": {}, "sendmmsg": {"PARLEY_NO_GSO": "1"}}
JOIN_RATE: Final = 20  # packets/s; a thousand receivers still can join
LATENCY_SAMPLE: Final = 16


async def run(setting: Setting, effort: Effort, ceiling: float) -> Result:
    found: Result = {}
    for mode, environment in MODES.items():
        here = Setting(setting.shards, {**setting.environment, **environment})
        found[mode] = {str(size): await _size(size, here, effort) for size in SIZES}
    return found


async def _size(receivers: int, setting: Setting, effort: Effort) -> Result:
    cast = Cast(listeners=receivers, media=(video(JOIN_RATE),), is_unlimited=True)
    async with stage(cast, setting) as scene:
        await scene.join(at_once=16, hears=False)
        is_main = receivers == MAIN
        runs = [
            await scene.saturate(effort.seconds) for _ in range(effort.repeats if is_main else 1)
        ]
        middle = statistics.median(run["copies_per_cpu_s"] for run in runs)
        result: Result = {
            "copies_per_cpu_s": middle,
            "us_per_copy": 1e6 / middle,
            "saturated": runs,
        }
        if is_main:
            scene.tool.manner(whole=True)
            result["read_whole"] = await scene.saturate(effort.seconds)
            rate = statistics.median(run["sent"] / run["wall_s"] for run in runs)
            scene.tool.manner(sample=LATENCY_SAMPLE, stamps=True)
            result["at_half"] = await _latency(scene, rate / 2, effort)
            result["at_80_percent"] = await _latency(scene, rate * 0.8, effort)
        return result


async def _latency(scene: Stage, packets_per_s: float, effort: Effort) -> dict[str, Any]:
    found = await scene.offer(max(int(packets_per_s), 1), effort.seconds)
    return {"packets_per_s": int(packets_per_s), **found}


def goals(found: Result, ceiling: float) -> list[Goal]:
    lines: list[Goal] = []
    for mode, bound in (("sendmmsg", 0.70), ("gso", 1.0)):
        main = found[mode][str(MAIN)]
        costs = [found[mode][str(size)]["us_per_copy"] for size in SIZES]
        half, most = main["at_half"], main["at_80_percent"]
        lines += [
            at_least(
                f"copies per CPU-second against the ceiling, {mode}",
                main["copies_per_cpu_s"] / ceiling,
                bound,
            ),
            told(f"copies per CPU-second, {mode}", main["copies_per_cpu_s"], digits=0),
            told(
                f"against the ceiling, {mode}, receivers read messages whole",
                main["read_whole"]["copies_per_cpu_s"] / ceiling,
            ),
            at_most(
                f"cost per copy, {SIZES[-1]:,} against {SIZES[0]} subscribers, {mode}",
                costs[-1] / costs[0],
                1.3,
                "x",
            ),
            at_most(
                f"added latency at half load, p50, {mode}", half["delay_p50_us"] / 1e3, 0.2, "ms"
            ),
            at_most(
                f"added latency at half load, p99, {mode}", half["delay_p99_us"] / 1e3, 1.0, "ms"
            ),
            at_most(
                f"added latency at 80 % load, p99, {mode}", most["delay_p99_us"] / 1e3, 5.0, "ms"
            ),
        ]
    return lines


SCENARIO: Final = Scenario("A", "1 -> 10, 100, 1,000 video, saturating", run, goals)
