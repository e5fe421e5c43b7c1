"""A: one publisher of video, 10 to 1,000 receivers, the data-plane thread saturated; with and without GSO.

Added latency is measured at half and at four fifths of the rate that was reached with 100 receivers just before, read
and stamped alike, for the machine's speed changes: from the publisher's stamp to the kernel's stamp in the receiver's
socket; in turn with that of a relay without any feature at the same rate, which is what the machine and the load tool
add themselves. One saturated run has receivers with UDP_GRO: the kernel then does not cut GSO messages on the
sender's account, as with a card that does it.
"""

import statistics
from typing import Any, Final

from bench.cast import Cast, video
from bench.goals import Goal, at_least, at_most, told
from bench.relay import relay
from bench.scenarios.scenario import Effort, Result, Scenario
from bench.stage import Setting, Stage, stage

SIZES: Final = (10, 100, 1_000)
MAIN: Final = 100  # receivers of the ratio and of the latencies
MODES: Final = {"gso": {}, "sendmmsg": {"PARLEY_NO_GSO": "1"}}
JOIN_RATE: Final = 20  # packets/s; a thousand receivers still can join
LATENCY_SAMPLE: Final = 16
LATENCY_S: Final = 2.0
SHARES: Final = {"at_half": 0.5, "at_80_percent": 0.8}


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
            scene.tool.manner(sample=LATENCY_SAMPLE, stamps=True)
            result |= await _latencies(scene, receivers, setting, effort)
        return result


async def _latencies(scene: Stage, receivers: int, setting: Setting, effort: Effort) -> Result:
    joins = "PARLEY_NO_GSO" not in setting.environment
    found: Result = {name: {"ours": [], "relay": []} for name in SHARES}
    async with relay(receivers, video(JOIN_RATE), joins=joins, sample=LATENCY_SAMPLE) as bare:
        for _ in range(effort.repeats):
            most = await scene.saturate(LATENCY_S)
            for name, share in SHARES.items():
                packets_per_s = max(int(most["sent"] / most["wall_s"] * share), 1)
                for who, of in (("ours", scene), ("relay", bare)):
                    run = await of.offer(packets_per_s, LATENCY_S)
                    found[name][who].append({"packets_per_s": packets_per_s, **run})
    return found


def _delay_ms(runs: list[dict[str, Any]], percentile: str) -> float:
    return float(statistics.median(run[f"delay_{percentile}_us"] for run in runs)) / 1e3


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
            *_latency_lines(half, "half", "p50", 0.2, mode),
            *_latency_lines(half, "half", "p99", 1.0, mode),
            *_latency_lines(most, "80 %", "p99", 5.0, mode),
        ]
    return lines


def _latency_lines(
    found: Result, load: str, percentile: str, bound_ms: float, mode: str
) -> tuple[Goal, Goal]:
    what = f"at {load} load, {percentile}, {mode}"
    ours, bare = (_delay_ms(found[who], percentile) for who in ("ours", "relay"))
    return (
        at_most(f"added latency {what}", ours, bound_ms, "ms"),
        told(f"a relay without features {what}", bare, "ms"),
    )


SCENARIO: Final = Scenario("A", "1 -> 10, 100, 1,000 video, saturating", run, goals)
