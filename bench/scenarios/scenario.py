"""What a scenario is, and the plain kind: a cast that sends for a while.

Not here: any particular one.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from bench.cast import Cast
from bench.goals import Goal
from bench.load import TRANSPORT_CC_ID
from bench.publicstage import public_stage
from bench.stage import Setting, stage

Result = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Effort:
    """How long each measurement lasts, and how often it is repeated where repeating is affordable."""

    seconds: float = 5.0
    repeats: int = 3


@dataclass(frozen=True, slots=True)
class Scenario:
    """`run` measures, `goals` reads the result; both know nothing of other scenarios."""

    letter: str
    title: str
    run: Callable[[Setting, Effort, float], Awaitable[Result]]
    """Setting, effort, and the ceiling found before (copies per CPU-second)."""
    goals: Callable[[Result, float], list[Goal]]
    """The result, and the mean of both ceilings."""
    joins: str = "worker socket"


async def play_public(cast: Cast, seconds: float, *, settle_s: float = 4.0) -> Result:
    """The same with `parley`, through the public LiveKit protocol; only the worker is measured."""
    async with public_stage(cast) as scene:
        await scene.speak()
        await asyncio.sleep(settle_s)  # everybody is offered everybody, estimates rise
        device = scene.speakers[0]
        scene.tool.manner(
            sample=16,
            feedback=True,
            stamps=True,
            transport_cc=device.transport_cc or TRANSPORT_CC_ID,
        )
        found = await scene.measure(settle_s)
        found = await scene.measure(seconds)
        return {
            "people": cast.people,
            "streams_down": cast.streams_down,
            **found,
        }


async def play(
    cast: Cast,
    setting: Setting,
    seconds: float,
    *,
    loss: float = 0.0,
    round_trip_ms: float = 0.0,
    settle_s: float = 3.0,
) -> Result:
    """Everybody joins and sends at the cast's rates; receivers send NACK and transport-wide feedback."""
    async with stage(cast, setting) as scene:
        await scene.join(hears=False)
        scene.tool.manner(sample=16, feedback=True, stamps=True)
        scene.tool.weather(loss, round_trip_ms)
        found = await scene.measure(settle_s)  # estimates rise, layers settle: thrown away
        found = await scene.measure(seconds)
        return {
            "people": cast.people,
            "streams_down": cast.streams_down,
            "joins_at_once": 4,
            "control_cpu_ms_per_join": scene.join_cpu.control_s
            * 1e3
            / max(len(scene.listeners), 1),
            **found,
        }
