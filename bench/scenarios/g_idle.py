"""G: 2,000 people in a hundred rooms, nobody sends: memory and CPU; then what a published layer costs.

The engine's share is measured by itself (`bench.enginememory`), the rest of the worker's growth is Python's.
"""

import asyncio
import json
import sys
from typing import Any, Final

from bench import machine
from bench.cast import OPUS, SIMULCAST, Cast
from bench.goals import Goal, at_most, told
from bench.load import ROOT
from bench.scenarios.scenario import Effort, Result, Scenario
from bench.stage import Setting, stage

CAST: Final = Cast(rooms=100, speakers=1, listeners=19, media=(OPUS, SIMULCAST))
PUBLISHERS: Final = Cast(rooms=40, speakers=1, listeners=1, media=(SIMULCAST,))
QUIET_S: Final = 3.0  # after the joins, so that only what stays is counted
HISTORY_S: Final = 4.0  # of sending: caches are full after one
ENGINE_S: Final = 60.0


async def run(setting: Setting, effort: Effort, ceiling: float) -> Result:
    engine = await _engine_alone()
    found: Result = {"engine_alone": engine, "sessions": CAST.people}
    async with stage(CAST, setting) as scene:
        found["resident_empty_bytes"] = empty = machine.resident_bytes(scene.pid)
        await scene.join(at_once=16, hears=False, speaks=False)
        found["control_cpu_ms_per_join"] = scene.join_cpu.control_s * 1e3 / len(scene.listeners)
        await asyncio.sleep(QUIET_S)
        found["idle"] = await scene.measure(effort.seconds)
        found["resident_full_bytes"] = full = machine.resident_bytes(scene.pid)
    found["bytes_per_session"] = (full - empty) / CAST.people
    found["engine_bytes_per_session"] = engine["bytes_per_session"]
    found["python_bytes_per_session"] = found["bytes_per_session"] - engine["bytes_per_session"]
    found["bytes_per_layer"] = await _layers(setting, found)
    return found


async def _engine_alone() -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.enginememory", str(CAST.people)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(ENGINE_S):
        out, _ = await process.communicate()
    return dict(json.loads(out))


async def _layers(setting: Setting, found: Result) -> float:
    """What the worker grows by when published layers begin to flow, each."""
    async with stage(PUBLISHERS, setting) as scene:
        await scene.join(hears=False, speaks=False)
        silent = machine.resident_bytes(scene.pid)
        scene.speak()
        await asyncio.sleep(HISTORY_S)
        flowing = machine.resident_bytes(scene.pid)
        layers = len(scene.speakers) * len(SIMULCAST.layers)
        found |= {
            "layers": layers,
            "resident_silent_bytes": silent,
            "resident_flowing_bytes": flowing,
        }
        return (flowing - silent) / layers


def goals(found: Result, ceiling: float) -> list[Goal]:
    return [
        at_most(
            "memory of an idle session, engine",
            found["engine_bytes_per_session"] / 1e3,
            60,
            "KB",
            1,
        ),
        at_most(
            "memory of an idle session, Python",
            found["python_bytes_per_session"] / 1e3,
            250,
            "KB",
            1,
        ),
        at_most("memory of a published layer", found["bytes_per_layer"] / 1e6, 0.5, "MB"),
        told(
            "CPU with 2,000 idle sessions, of one core",
            found["idle"]["server_cpu_share"] * 100,
            "%",
            1,
        ),
    ]


SCENARIO: Final = Scenario("G", "2,000 idle sessions", run, goals)
