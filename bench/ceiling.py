"""The ceiling probe around a scenario: what one thread of this machine can send at best, before and after.

Not here: the probe itself (`engine/io/src/probe.rs`).
"""

import asyncio
import statistics
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from bench.cast import PACKET_BYTES
from sfu import _engine

DESTINATIONS: Final = 100
PROBE_CPU_S: Final = 0.7  # each; CPU seconds, so that a busy machine only takes longer


@dataclass(slots=True)
class Ceiling:
    """Copies per CPU-second (rewrite, GCM, sendmmsg) of the probes so far."""

    found: list[float] = field(default_factory=list)

    async def probe(self) -> float:
        result = await asyncio.to_thread(
            _engine.fanout_ceiling, DESTINATIONS, PACKET_BYTES, PROBE_CPU_S
        )
        self.found.append(result["copies_per_cpu_s"])
        return self.found[-1]

    @property
    def mean(self) -> float:
        return statistics.mean(self.found)


@asynccontextmanager
async def ceiling() -> AsyncIterator[Ceiling]:
    """A probe before, and one after."""
    found = Ceiling()
    await found.probe()
    yield found
    await found.probe()
