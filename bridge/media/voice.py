"""Media's own word to the conference: transport truth, and leaving for a leg that nobody else ends.

Not here: when to speak (`media.media`).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from bridge.conference.commands import Command
from bridge.conference.errors import ConferenceError, Unavailable
from bridge.conference.ids import ConferenceId

log = logging.getLogger(__name__)

TRIES: Final = 10
RETRY_S: Final = 1.0

Submit = Callable[[ConferenceId, Command], Awaitable[object]]


class Voice:
    """Speaks without making the worker's events wait; commands reach the focus in the order they were said."""

    def __init__(self, submit: Submit, tasks: asyncio.TaskGroup) -> None:
        self._submit = submit
        self._tasks = tasks

    def say(self, conference: ConferenceId, command: Command) -> None:
        self._tasks.create_task(self._until_heard(conference, command), name="media-voice")

    async def _until_heard(self, conference: ConferenceId, command: Command) -> None:
        for _ in range(TRIES):
            try:
                await self._submit(conference, command)
            except Unavailable:
                await asyncio.sleep(RETRY_S)
            except ConferenceError as why:
                log.error("media was refused", extra={"why": str(why)})
                return
            else:
                return
        log.error("media was not heard", extra={"command": type(command).__name__})
