"""Is every part well? Probes register here; the listeners' `/healthz` asks.

Not here: what to do about it (each part reconnects by itself), metrics.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from bridge.conference.errors import ConferenceError

_log = logging.getLogger(__name__)

_PROBE_S: Final = 2.0  # R18: health says so within 3 s

Probe = Callable[[], Awaitable[str]]
"""Returns one short line when well; raises a `ConferenceError` that says what is wrong."""


@dataclass(frozen=True, slots=True)
class Part:
    """One probe's answer."""

    name: str
    is_well: bool
    detail: str
    is_vital: bool


@dataclass(frozen=True, slots=True)
class Report:
    parts: tuple[Part, ...]

    @property
    def is_well(self) -> bool:
        """No vital part is unwell."""
        return all(part.is_well for part in self.parts if part.is_vital)


class Health:
    """The registry. Without probes everything is well."""

    def __init__(self) -> None:
        self._probes: dict[str, tuple[Probe, bool]] = {}

    def watch(self, name: str, probe: Probe, *, is_vital: bool = True) -> None:
        """An unwell part that is not vital (a chat network that is away) is shown, but calls go on: still 200."""
        if name in self._probes:
            raise ValueError(f"a probe called {name} is there already")
        self._probes[name] = (probe, is_vital)

    async def report(self) -> Report:
        """Ask all probes at once; an answer takes 2 s at most."""
        async with asyncio.TaskGroup() as tasks:
            asked = [
                tasks.create_task(_ask(name, probe, is_vital), name=f"health-{name}")
                for name, (probe, is_vital) in self._probes.items()
            ]
        return Report(tuple(task.result() for task in asked))


async def _ask(name: str, probe: Probe, is_vital: bool) -> Part:
    try:
        async with asyncio.timeout(_PROBE_S):
            return Part(name, True, await probe(), is_vital)
    except TimeoutError:
        return Part(name, False, f"no answer in {_PROBE_S:.0f} s", is_vital)
    except ConferenceError as why:
        return Part(name, False, str(why), is_vital)
    except Exception:
        # A probe that breaks is a sick part, not a sick health page.
        _log.exception("health probe broke", extra={"part": name})
        return Part(name, False, "probe broke, see the log", is_vital)
