"""Commands to the worker: asked by gateways (answered to them), or planned from events (nobody waits).

Not here: which commands (`media.room`), sockets (`sfu.client`).
"""

import asyncio
import logging
from collections.abc import Iterable
from typing import Final

from bridge.conference.errors import ConferenceError, Unavailable
from bridge.conference.ids import ConferenceId
from bridge.media.room import Room
from bridge.media.worker import Worker, fault
from sfu import protocol
from sfu.client import ClientError
from sfu.description import Description

log = logging.getLogger(__name__)

MAX_COMMANDS: Final = 65_536  # 1,000 legs that get 64 tracks each; a worker takes 10,000 a second
IN_FLIGHT: Final = 64


class Lane:
    """Requests are written in the order of calls, so planned commands keep theirs; answers come side by side."""

    def __init__(self, worker: Worker, tasks: asyncio.TaskGroup) -> None:
        self._worker = worker
        self._tasks = tasks
        self._queue: asyncio.Queue[tuple[Room, protocol.Command]] = asyncio.Queue(MAX_COMMANDS)
        self._in_flight = asyncio.Semaphore(IN_FLIGHT)

    async def do(self, command: protocol.Command) -> None:
        """Raises `Malformed`, `Refused`, `Unavailable`."""
        await self._request(command)

    async def describe(self, command: protocol.Offer | protocol.MakeOffer) -> Description:
        """Raises `Malformed`, `Refused`, `Unavailable`."""
        reply = await self._request(command)
        if not isinstance(reply, protocol.Described):
            raise Unavailable("The media worker answered something else.")
        return reply.description

    def enqueue(self, room: Room, commands: Iterable[protocol.Command]) -> None:
        """Never blocks. What is lost is planned again at the next snapshot."""
        for command in commands:
            try:
                self._queue.put_nowait((room, command))
            except asyncio.QueueFull:
                room.missed(command)
                log.error("media lane full", extra={"command": type(command).__name__})

    def enqueue_apart(self, command: protocol.Command) -> None:
        """A command that concerns no conference."""
        self.enqueue(Room(ConferenceId("")), (command,))

    async def run(self) -> None:
        while True:
            room, command = await self._queue.get()
            await self._in_flight.acquire()
            self._tasks.create_task(self._send(room, command), name="media-send")

    async def _send(self, room: Room, command: protocol.Command) -> None:
        try:
            await self._request(command)
        except ConferenceError as why:
            room.missed(command)  # planned again when the worker knows its session or track
            name = type(command).__name__
            log.info("media command failed", extra={"command": name, "why": str(why)})
        finally:
            self._in_flight.release()

    async def _request(self, command: protocol.Command) -> protocol.Reply:
        try:
            return await self._worker.request(command)
        except ClientError as why:
            raise fault(why) from why
