"""Parley as an operator runs it, with a cast that joins through the public LiveKit protocol.

Both processes are measured: `parley` (WebSocket, tokens, conference, SQL) and its worker.
Not here: the worker alone (`bench.stage`), one client (`bench.livekit`).
"""

import asyncio
import contextlib
import itertools
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp

from bench import machine
from bench.cast import Cast
from bench.handshake import RECEIVE_BUFFER_BYTES, new_socket, now_ns
from bench.livekit import Device, Door
from bench.load import Load, build, load
from bench.stage import JOIN_S, allow_files, in_turn, measure
from sfu.dtls import Certificate
from tests.peers.parley import Parley

MAX_BUFFERS_BYTES: Final = 512 << 20  # of all sockets together, when nobody reads


@dataclass(slots=True)
class PublicStage:
    """The server with its cast; nobody has joined yet."""

    parley: Parley
    worker_pid: int
    tool: Load
    speakers: list[Device]
    listeners: list[Device]
    open: contextlib.AsyncExitStack
    joined_ms: list[float] = field(default_factory=list)
    first_ms: list[float] = field(default_factory=list)
    wall_s: float = 0.0
    control_cpu_s: float = 0.0  # of parley
    control_loop_s: float = 0.0  # of its event loop's thread
    worker_cpu: machine.Cpu = field(default_factory=lambda: machine.Cpu(0, 0, 0))

    async def speak(self) -> None:
        """The speakers join, then all of them publish and send; later offers are answered by and by."""
        for device in self.speakers:
            await self.open.enter_async_context(device.signalling())
            self.tool.add(device.number, await device.receive())
        for device in self.speakers:
            self.tool.add(device.number + 1, await device.publish())
        for device in self.speakers:
            for stream in device.sending:
                self.tool.send(stream)

    async def join(self, at_once: int, *, hears: bool = True) -> None:
        """The listeners, so many at the same time; CPU time is taken of exactly this."""
        control, worker = machine.cpu(self.parley.pid), machine.cpu(self.worker_pid)
        loop_s = machine.main_thread_s(self.parley.pid)
        began_ns = now_ns()

        async def arrive(device: Device) -> None:
            started_ns = now_ns()
            await self.open.enter_async_context(device.signalling())
            self.tool.add(device.number, await device.receive())
            self.joined_ms.append((now_ns() - started_ns) / 1e6)
            if hears:
                first_ns = await self.tool.first_packet(device.number, JOIN_S)
                self.first_ms.append((first_ns - started_ns) / 1e6)

        await in_turn(self.listeners, at_once, arrive)
        self.wall_s = (now_ns() - began_ns) / 1e9
        self.control_cpu_s = machine.cpu(self.parley.pid).since(control).process_s
        self.control_loop_s = machine.main_thread_s(self.parley.pid) - loop_s
        self.worker_cpu = machine.cpu(self.worker_pid).since(worker)

    async def measure(self, seconds: float) -> dict[str, Any]:
        """What the worker does meanwhile."""
        return await measure(self.tool, self.worker_pid, seconds)


@asynccontextmanager
async def public_stage(cast: Cast, *, log_level: str = "warning") -> AsyncIterator[PublicStage]:
    """`parley run` with its worker on loopback, the load tool and everybody's sockets."""
    binary = await asyncio.to_thread(build)
    devices = 2 * cast.rooms * cast.speakers + cast.rooms * cast.listeners
    allow_files(3 * devices + 256)
    buffer = min(RECEIVE_BUFFER_BYTES, MAX_BUFFERS_BYTES // devices)
    async with contextlib.AsyncExitStack() as stack:
        folder = tempfile.TemporaryDirectory(prefix="parley-bench-")
        directory = Path(stack.enter_context(folder))
        sockets = [stack.enter_context(new_socket(buffer_bytes=buffer)) for _ in range(devices)]
        parley = await stack.enter_async_context(Parley(directory, log_level=log_level))
        worker_pid = parley.worker_pid
        assert worker_pid is not None
        tool = await stack.enter_async_context(load(binary, [one.fileno() for one in sockets]))
        for pid, cpu in ((parley.pid, machine.SERVER), (worker_pid, machine.SERVER)):
            machine.pin(pid, cpu)
        machine.pin(tool.pid, machine.LOAD)
        limit = aiohttp.TCPConnector(limit=0)
        http = await stack.enter_async_context(aiohttp.ClientSession(connector=limit))
        signalling = await stack.enter_async_context(contextlib.AsyncExitStack())
        stage = PublicStage(parley, worker_pid, tool, [], [], signalling)
        _populate(stage, cast, http, sockets)
        yield stage


def _populate(
    stage: PublicStage, cast: Cast, http: aiohttp.ClientSession, sockets: list[Any]
) -> None:
    parley = stage.parley
    door = Door(parley.ws_url, parley.api_key, parley.api_secret)
    certificate = Certificate()
    numbers, tracks = itertools.count(), itertools.count()
    for room in range(cast.rooms):
        for _ in range(cast.speakers):
            number, up = next(numbers), next(numbers)
            sends = tuple((next(tracks), media) for media in cast.media)
            stage.speakers.append(
                Device(
                    *(door, http, certificate, f"bench-{room}", number, sockets[number]),
                    up=sockets[up],
                    sends=sends,
                )
            )
        for _ in range(cast.listeners):
            number = next(numbers)
            stage.listeners.append(
                Device(door, http, certificate, f"bench-{room}", number, sockets[number])
            )
