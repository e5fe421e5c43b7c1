"""Which conferences live here: conference id -> focus, started lazily, gone when idle.

Not here: leases between machines (`bridge.cluster`), what a focus does (`focus.focus`).
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from bridge.conference.commands import Command
from bridge.conference.errors import Unavailable
from bridge.conference.events import Event, Leg
from bridge.conference.ids import ConferenceId
from bridge.conference.ports import Cause, ConferenceRecord, Ghosts, Journal, Listener
from bridge.focus.focus import Focus, Ports

IDLE_S: Final = 60.0
SUBMIT_TIMEOUT_S: Final = 15.0  # longer than a commit that is given up


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


class Registry:
    """`tasks` is the app's TaskGroup: foci live in it and end with it."""

    def __init__(
        self,
        tasks: asyncio.TaskGroup,
        journal: Journal,
        ghosts: Ghosts,
        listeners: Sequence[Listener],
        *,
        now_ms: Callable[[], int] = _wall_clock_ms,
        idle_s: float = IDLE_S,
    ) -> None:
        self._tasks = tasks
        self._ports = Ports(journal, ghosts, listeners, now_ms)
        self._idle_s = idle_s
        self._foci: dict[ConferenceId, Focus] = {}

    async def submit(
        self, conference: ConferenceId, command: Command, cause: Cause | None = None
    ) -> tuple[Event, ...]:
        """What came of it. Raises `Refused`, `Malformed`, `Unavailable`.

        After `Refused` or `Malformed` an inbox row is the caller's to finish (`Inbox.done`); otherwise it is
        done in the same commit, also when nothing changed.
        """
        focus = self._foci.get(conference) or self._start(conference)
        try:
            async with asyncio.timeout(SUBMIT_TIMEOUT_S):
                return await focus.submit(command, cause)
        except TimeoutError as why:
            raise Unavailable("The conference did not answer in time; try again.") from why

    def view(self, conference: ConferenceId) -> Sequence[Leg]:
        """The legs right now; empty when nobody is in."""
        focus = self._foci.get(conference)
        return () if focus is None else focus.legs

    def record(self, conference: ConferenceId) -> ConferenceRecord | None:
        """The current head of a live conference."""
        focus = self._foci.get(conference)
        return None if focus is None else focus.record

    def live(self) -> Sequence[ConferenceId]:
        """Conferences that have a focus now."""
        return tuple(self._foci)

    async def adopt(self, conference: ConferenceId) -> Sequence[Leg]:
        """Bring a conference to life from SQL before any command: its legs of before the restart."""
        if conference not in self._foci:
            focus = self._make(conference)
            await focus.restore()
            self._run(conference, focus)
        return self.view(conference)

    async def flush(self) -> None:
        """Until everything that has acted is committed (the caller sets the time limit)."""
        for focus in tuple(self._foci.values()):
            await focus.flushed()

    def _start(self, conference: ConferenceId) -> Focus:
        focus = self._make(conference)
        self._run(conference, focus)
        return focus

    def _make(self, conference: ConferenceId) -> Focus:
        return Focus(conference, self._ports, self._idle_s, lambda: self._forget(conference))

    def _run(self, conference: ConferenceId, focus: Focus) -> None:
        self._foci[conference] = focus
        self._tasks.create_task(focus.run(), name=f"focus-{conference}")

    def _forget(self, conference: ConferenceId) -> None:
        self._foci.pop(conference, None)
